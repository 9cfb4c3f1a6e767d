"""An event stream that outlives its connections.

Rules
 1. The id of the newest frame read is kept. A new connection sends it as `Last-Event-ID`, and the server goes on after it.
 2. A recorded event is passed on once, in order: its offset is greater than that of every recorded event before it.
 3. A connection that is silent for longer than three heartbeats is dead.
 4. A server that cannot be reached, or says "later", is asked again for ever. One that says no ends the subscription.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import httpx
import msgspec

from holdfast.client.backoff import Backoff
from holdfast.client.errors import Refused, refusal
from holdfast.core import codec
from holdfast.core.errors import Unavailable
from holdfast.core.events import EVENT_TYPES, Event
from holdfast.core.offsets import Offset, parse_offset
from holdfast.protocols.sse import Decoder, RemoteProtocolError, ServerSentEvent

SILENCE_S: Final = 30.0
CONNECT_S: Final = 5.0


class _Properties(msgspec.Struct, frozen=True):
    session_id: str | None = msgspec.field(name="sessionID", default=None)


class _Envelope(msgspec.Struct):
    type: str
    properties: _Properties = _Properties()


_envelope = msgspec.json.Decoder(_Envelope)
_TAGS = {cls.type: f"{cls.type}.{cls.version}" for cls in EVENT_TYPES}


class Received(msgspec.Struct, frozen=True):
    """One frame of an event stream: `data` is the event's wire JSON. `offset` is None for what is not recorded
    (`server.connected`, heartbeats) and for what only repeats the present state. `place` is where a reader stands that has
    this frame: what follows, it will get, whatever happens to the connection. None at the very beginning."""

    offset: Offset | None
    place: Offset | None
    type: str
    session_id: str | None
    data: bytes

    def event(self) -> Event | None:
        """The event; None for a type that is not recorded, or that this client is too old to know."""
        tag = _TAGS.get(self.type)
        return codec.decode(tag, self.data)[1] if tag else None


class Interrupted(msgspec.Struct, frozen=True):
    """The connection is gone; the next try comes in `wait_s` seconds. `attempt` counts the tries in a row that failed."""

    reason: str
    attempt: int
    wait_s: float


async def subscribe(
    http: httpx.AsyncClient,
    path: str,
    params: Mapping[str, str],
    *,
    after: Offset | None,
    backoff: Backoff,
    sleep: Callable[[float], Awaitable[None]],
) -> AsyncGenerator[Received | Interrupted]:
    """Raises Refused when the server says no, or does not speak this protocol."""
    place = Place(after)
    while True:
        try:
            async with _connected(http, path, params, place.after) as answer:
                decoder = Decoder(last_event_id=place.begin())
                async for piece in answer.aiter_bytes():
                    for frame in decoder.feed(piece):
                        if received := place.take(frame):
                            backoff.reset()
                            yield received
            reason = "The server ended the stream."
        except RemoteProtocolError as error:
            raise Refused(200, str(error)) from error
        except (httpx.TransportError, Unavailable) as error:
            reason = str(error) or type(error).__name__
        wait_s = backoff.next_s()
        yield Interrupted(reason, backoff.attempt, wait_s)
        await sleep(wait_s)


@asynccontextmanager
async def _connected(
    http: httpx.AsyncClient, path: str, params: Mapping[str, str], after: Offset | None
) -> AsyncGenerator[httpx.Response]:
    headers = {"accept": "text/event-stream"} | ({"last-event-id": after} if after is not None else {})
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    async with http.stream("GET", path, params=dict(params), headers=headers, timeout=timeout) as answer:
        if answer.status_code >= 400:
            raise refusal(answer.status_code, await answer.aread())
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            raise Refused(answer.status_code, f"{answer.url} is not an event stream: this is no Holdfast server.")
        yield answer


class Place:
    """Where a reader is in the log: `after` is the newest offset that it has, None before the first."""

    def __init__(self, after: Offset | None) -> None:
        self.after = after
        self._id: str = ""
        self._is_first = True

    def begin(self) -> str:
        """The id in force at the beginning of a connection."""
        self._id = self.after or ""
        self._is_first = True
        return self._id

    def take(self, frame: ServerSentEvent) -> Received | None:
        """None for a frame that repeats what was received.

        An id stays in force for the frames after it that have none of their own (SSE standard), so only one that changed
        belongs to its frame. A server that was not told a place, or one that its log does not reach, begins with the
        present state; the id at the end of that is a place to go on from, not an event's."""
        envelope = _envelope.decode(frame.data)
        offset: Offset | None = None
        if frame.id != self._id:
            self._id = frame.id
            offset = parse_offset(frame.id)
            if self._is_first and (self.after is None or offset < self.after):
                self.after, offset = offset, None
            elif self.after is not None and offset <= self.after:
                return None
            else:
                self.after = offset
            self._is_first = False
        return Received(
            offset=offset,
            place=self.after,
            type=envelope.type,
            session_id=envelope.properties.session_id,
            data=frame.data.encode(),
        )
