"""`/event` and `/global/event`: server-sent events, raw ASGI, because this is where the traffic is.

Rules
 1. A recorded event's frame is `id: <offset>`, `data: <its bytes as recorded>`. `/global/event` wraps those bytes with
    directory and project, by concatenation. `Last-Event-ID` (or `?after=`) resumes after an id.
 2. First comes `server.connected`. Without an id to resume from, snapshot frames follow: they repeat state, so they
    have no id. The last frame before the live ones has that of the snapshot (a `server.heartbeat` is sent for it): a
    client that was cut off earlier has seen no id, and is given a new snapshot.
 3. All that waits goes out in one send. A frame is made once for all readers that keep up (`Frames`). A reader that does
    not take its bytes holds up only itself: its cursor stays where it is.
 4. `server.heartbeat` at a fixed pace. The end of the store's subscriptions ends the streams.
"""

import asyncio
import functools
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, cast
from urllib.parse import parse_qs
from weakref import WeakValueDictionary

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import ResponseSpec
from litestar.params import HeaderParameter, QueryParameter
from litestar.types import ASGIApp

from holdfast.core.clock import Clock
from holdfast.core.codec import to_json
from holdfast.core.errors import Invalid
from holdfast.core.ids import Prefix
from holdfast.core.offsets import Offset, parse_offset
from holdfast.core.store import ALL, DirectoryScope, Recorded, Scope, SessionScope
from holdfast.protocols.sse import encode_event
from holdfast.server.asgi import App, HttpScope, Receive, Send, disconnected, send_body
from holdfast.server.errors import NamedError
from holdfast.server.opencode.parameters import DirectoryHeader, DirectoryQuery, decoded
from holdfast.service.events import EventService, Feed
from holdfast.service.instances import Instances
from holdfast.service.lsp import LspUpdated
from holdfast.service.mcp import McpEvent
from holdfast.service.pty import PtyEvent
from holdfast.service.sessions import check_session_id

_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)

SessionQuery = Annotated[str | None, QueryParameter(name="session", description="Only the events of this session.")]
AfterQuery = Annotated[
    str | None, QueryParameter(name="after", description="An id of this stream: every later event comes, each once.")
]
LastEventIdHeader = Annotated[
    str | None, HeaderParameter(name="Last-Event-ID", description="The same; it goes first, as it is newer.")
]

Wrap = Callable[[bytes, str, str], bytes]
"""(event JSON, directory, project id) → the data of a frame. Directory and project are "" for what is no session's."""


class EventStreams:
    def __init__(
        self,
        events: EventService,
        instances: Instances,
        *,
        clock: Clock,
        new_id: Callable[[Prefix], str],
        heartbeat_seconds: float,
    ) -> None:
        self._events = events
        self._instances = instances
        self._clock = clock
        self._new_id = new_id
        self._heartbeat_seconds = heartbeat_seconds
        self._open: set[Connection] = set()
        self._telling: set[asyncio.Task[None]] = set()

    def apps(self) -> Mapping[bytes, App]:
        """By raw path. What is wrong with a request is raised before anything is sent."""
        return {
            b"/event": functools.partial(self._serve, Frames(_bare), everything=False),
            b"/global/event": functools.partial(self._serve, Frames(_wrapped), everything=True),
        }

    def routes(self) -> Sequence[HTTPRouteHandler]:
        """The same as typed routes, which document them; reached only when the path is spelled otherwise (`/event/`)."""
        apps = self.apps()
        shared: dict[str, Any] = {
            "responses": {
                200: ResponseSpec(
                    str, generate_examples=False, media_type="text/event-stream", description="Server-sent events."
                ),
                400: ResponseSpec(NamedError, generate_examples=False, description="The request is wrong."),
            }
        }

        @get("/event", summary="Events of a directory, as they are recorded", **shared)
        async def directory_events(
            directory: DirectoryQuery = None,
            directory_header: DirectoryHeader = None,
            session: SessionQuery = None,
            after: AfterQuery = None,
            last_event_id: LastEventIdHeader = None,
        ) -> ASGIApp:
            return cast(ASGIApp, apps[b"/event"])

        @get("/global/event", summary="Events of all directories, with directory and project", **shared)
        async def all_events(
            session: SessionQuery = None, after: AfterQuery = None, last_event_id: LastEventIdHeader = None
        ) -> ASGIApp:
            return cast(ASGIApp, apps[b"/global/event"])

        routes: list[Any] = [directory_events, all_events]
        return routes

    async def _serve(
        self, frames: "Frames", scope: HttpScope, receive: Receive, send: Send, *, everything: bool
    ) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        about = await self._about(query, headers, everything=everything)
        feed = await self._events.open(about, _resume_point(query, headers))
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        if scope["method"] == "HEAD":
            await send_body(send, b"")
            return
        connection = Connection(send, about, frames)
        await connection.send(b"".join(self._opening(feed, frames.wrap)))
        self._open.add(connection)
        try:
            await connection.run(feed.live, receive, self._heartbeats(connection))
        finally:
            self._open.discard(connection)

    async def announce_disposed(self, directory: str | None) -> None:
        """Tell those who follow the directory (None: all of them) that its configuration is read again."""
        for connection in tuple(self._open):
            own = connection.about.directory if isinstance(connection.about, DirectoryScope) else None
            if directory is None:
                self._tell(connection, self._unrecorded("global.disposed"))
            elif own in (None, directory):
                self._tell(connection, self._unrecorded("server.instance.disposed", {"directory": directory}))

    def announce(self, directory: str, kind: str, properties: bytes) -> None:
        """Tell those who follow the directory something that is not recorded; `properties` is JSON."""
        instance = self._instances.opened(directory)
        data = self._event(kind, properties)
        for connection in tuple(self._open):
            if connection.about in (ALL, DirectoryScope(directory)):
                self._tell(connection, data, directory, instance.place.id if instance else "")

    def announce_event(self, directory: str, event: PtyEvent | McpEvent | LspUpdated) -> None:
        """Tell those who follow the directory what happened to a terminal, an MCP server or a language server."""
        self.announce(directory, event.type, to_json(event))

    def _tell(self, connection: "Connection", event: bytes, directory: str = "", project_id: str = "") -> None:
        """Without waiting: a reader that takes nothing must hold up nobody."""
        telling = asyncio.create_task(connection.tell(event, directory, project_id))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _about(
        self, query: Mapping[str, list[str]], headers: Mapping[bytes, bytes], *, everything: bool
    ) -> Scope:
        session_id = query.get("session", [""])[-1]
        if session_id:
            return SessionScope(check_session_id(session_id))
        if everything:
            return ALL
        header = headers.get(b"x-opencode-directory")
        directory = query.get("directory", [""])[-1] or decoded(header.decode("latin-1") if header else None)
        return DirectoryScope((await self._instances.open(directory)).directory)

    async def _heartbeats(self, connection: "Connection") -> None:
        while True:
            await asyncio.sleep(self._heartbeat_seconds)
            await connection.tell(self._unrecorded("server.heartbeat"))

    def _unrecorded(self, kind: str, properties: Mapping[str, str] | None = None) -> bytes:
        return self._event(kind, to_json(properties or {}))

    def _event(self, kind: str, properties: bytes) -> bytes:
        return b'{"id":"%b","type":"%b","properties":%b}' % (self._new_id("evt").encode(), kind.encode(), properties)

    # --- how a stream begins -----------------------------------------------------------------------------------

    def _opening(self, feed: Feed, wrap: Wrap) -> Iterable[bytes]:
        connected = wrap(self._unrecorded("server.connected"), "", "")
        if feed.snapshot is None:
            return [encode_event(connected)]
        present = list(self._present(feed, wrap))
        if not present:
            return [encode_event(connected, id=feed.snapshot.offset)]
        complete = wrap(self._unrecorded("server.heartbeat"), "", "")
        return [*map(encode_event, [connected, *present]), encode_event(complete, id=feed.snapshot.offset)]

    def _present(self, feed: Feed, wrap: Wrap) -> Iterable[bytes]:
        """The snapshot as events, the session that changed last at the end, and what waits for the user."""
        assert feed.snapshot is not None
        now = b"%d" % self._clock.now_ms()
        places: dict[str, tuple[str, str]] = {}
        for session in reversed(feed.snapshot.sessions):
            session_id = _id.decode(session.session).id
            place = places[session_id] = (session.directory, session.project_id)
            start = b'{"sessionID":%b,' % to_json(session_id)
            yield wrap(self._event("session.updated", start + b'"info":%b}' % session.session), *place)
            for message in session.messages:
                yield wrap(self._event("message.updated", start + b'"info":%b}' % message.info), *place)
                for part in message.parts:
                    properties = start + b'"part":%b,"time":%b}' % (part, now)
                    yield wrap(self._event("message.part.updated", properties), *place)
            yield wrap(self._event("session.status", start + b'"status":%b}' % to_json(session.status)), *place)
        for kind, requests in (("permission.asked", feed.permissions), ("question.asked", feed.questions)):
            for request in requests:
                if request.session_id in places:
                    yield wrap(self._event(kind, to_json(request)), *places[request.session_id])


class Connection:
    """One reader of events."""

    def __init__(self, send: Send, about: Scope, frames: "Frames") -> None:
        self.about = about
        self._send = send
        self._frames = frames
        self._sending = asyncio.Lock()

    async def send(self, data: bytes) -> None:
        """Returns when the client has taken enough of it for more to be sent. One at a time: what is large goes in pieces."""
        async with self._sending:
            await send_body(self._send, data, more_body=True)

    async def tell(self, event: bytes, directory: str = "", project_id: str = "") -> None:
        """Send an event that is not recorded."""
        await self.send(encode_event(self._frames.wrap(event, directory, project_id)))

    async def run(
        self, live: AsyncIterator[Sequence[Recorded]], receive: Receive, heartbeats: Coroutine[Any, Any, None]
    ) -> None:
        """Until the client has gone or the subscription is over."""
        reading = asyncio.create_task(self._read(live))
        tasks = (reading, asyncio.create_task(heartbeats), asyncio.create_task(disconnected(receive)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if not reading.cancelled():
            reading.result()  # a defect ends the response without its end, so that the client comes again
            await send_body(self._send, b"")

    async def _read(self, live: AsyncIterator[Sequence[Recorded]]) -> None:
        async for batch in live:
            frames = self._frames.of(self.about, batch)
            await self.send(frames.data)


class _Batch:
    """The frames of some records, joined."""

    __slots__ = ("__weakref__", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data


class Frames:
    """The frames of the newest batches, so that all readers that are up to date share them; large ones for as long as somebody
    is sending them. Of one scope, two batches with the same ends and length are the same (the log changes only by getting
    shorter)."""

    BATCHES_MAX: Final = 16
    BATCH_BYTES_MAX: Final = 1 << 18

    def __init__(self, wrap: Wrap) -> None:
        self.wrap = wrap
        self._newest: OrderedDict[_BatchKey, _Batch] = OrderedDict()
        self._used: WeakValueDictionary[_BatchKey, _Batch] = WeakValueDictionary()

    def of(self, about: Scope, records: Sequence[Recorded]) -> _Batch:
        key = (about, records[0].offset, records[-1].offset, len(records))
        batch = self._used.get(key)
        if batch is None:
            wrap = self.wrap
            frames = [
                encode_event(wrap(record.data, record.directory, record.project_id), id=record.offset)
                for record in records
            ]
            batch = self._used[key] = _Batch(b"".join(frames))
            if len(batch.data) <= self.BATCH_BYTES_MAX:
                self._newest[key] = batch
                if len(self._newest) > self.BATCHES_MAX:
                    self._newest.popitem(last=False)
        return batch


_BatchKey = tuple[Scope, Offset, Offset, int]


class _Identified(msgspec.Struct):
    id: str


_id = msgspec.json.Decoder(_Identified)


def _bare(event: bytes, directory: str, project_id: str) -> bytes:
    return event


def _wrapped(event: bytes, directory: str, project_id: str) -> bytes:
    return _wrapping(directory, project_id) + event + b"}"


@functools.lru_cache(maxsize=1024)
def _wrapping(directory: str, project_id: str) -> bytes:
    if not directory:
        return b'{"payload":'
    return b'{"directory":%b,"project":%b,"payload":' % (to_json(directory), to_json(project_id))


def _resume_point(query: Mapping[str, list[str]], headers: Mapping[bytes, bytes]) -> Offset | None:
    """`Last-Event-ID` goes first: it is newer than the `?after=` of the URL that a client reconnects with."""
    given = headers.get(b"last-event-id", b"").decode("latin-1") or query.get("after", [""])[-1]
    if not given:
        return None
    try:
        return parse_offset(given)
    except Invalid as error:
        raise Invalid(error.message, field="after", hint=error.hint) from None
