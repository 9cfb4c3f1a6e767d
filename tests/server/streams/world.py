"""Durable Streams without a socket: the face on a store that can be closed and opened again, with a clock that tests move."""

import asyncio
import os
import random
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from holdfast.core.ids import IdGenerator
from holdfast.server.aisdk import ChatStreams
from holdfast.server.streams import StreamFace, StreamOptions, Wording, key_id
from holdfast.service.seal import Seal
from holdfast.service.session_streams import SessionStreams
from holdfast.service.signing import Signer
from holdfast.service.stream_links import StreamLinks
from holdfast.service.streams import StreamService
from holdfast.service.subscriptions import SubscriptionService
from holdfast.service.webhooks import Webhooks
from holdfast.storage.memory import MemoryStore
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.manual_clock import ManualClock

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
BYTES = {"content-type": "application/octet-stream"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def next(self) -> str:
        return self.headers["stream-next-offset"]

    @property
    def up_to_date(self) -> bool:
        return self.headers.get("stream-up-to-date") == "true"

    @property
    def closed(self) -> bool:
        return self.headers.get("stream-closed") == "true"


class StreamWorld:
    """`async with StreamWorld(directory) as world`; without a directory in memory."""

    def __init__(self, directory: Path | None = None, *, vfs: str | None = None, **options: Any) -> None:
        self.directory = directory
        self.vfs = vfs
        self.clock = ManualClock()
        self.environ = {"HOLDFAST_AUTH_KEY": b64encode(bytes(range(32))).decode()}
        self.seal = Seal(Path(os.devnull) / "auth.key", environ=self.environ, entropy=os.urandom)
        self.options = StreamOptions(**{"long_poll_seconds": 0.02, "sse_seconds": 30, **options})

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def restart(self) -> None:
        """As a stop and a start of the server. In memory there is nothing to stop."""
        if self.directory is not None:
            await self._close()
            await self._open()

    async def _open(self) -> None:
        if self.directory is None:
            self.store: Any = MemoryStore(self.clock.now_ms, IdGenerator(self.clock.now_ms, os.urandom))
        else:
            self.store = await SqliteStore.open(
                self.directory, now_ms=self.clock.now_ms, entropy=os.urandom, vfs=self.vfs
            )
        self.signer = Signer(self.store.subscriptions, seal=self.seal, key_id=key_id, entropy=os.urandom)
        self.subscriptions = SubscriptionService(
            self.store.subscriptions,
            self.store.byte_streams,
            signer=self.signer,
            webhooks=Webhooks(allow_local=True),
            wording=Wording(),
            clock=self.clock,
            new_wake_id=lambda: os.urandom(8).hex(),
            jitter=random.random,
        )
        self.store.byte_streams.heard = self.subscriptions.heard
        await self.subscriptions.start()
        service = StreamService(self.store.byte_streams, SessionStreams(self.store), ChatStreams(self.store))
        links = StreamLinks(self.signer, password=None, clock=self.clock)
        self.face = StreamFace(
            service, self.subscriptions, links, self.options, clock=self.clock, pick=random.randrange
        )

    async def _close(self) -> None:
        await self.subscriptions.stop()
        await self.store.close()

    # --- requests

    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        *,
        query: str = "",
        is_known: bool = True,
    ) -> Answer:
        """`path` below the root of streams, as it stands on the wire. `is_known`: with the server's password."""
        answer = [
            message async for message in self.messages(method, path, headers, body, query=query, is_known=is_known)
        ]
        start = answer[0]
        return Answer(
            start["status"],
            {name.decode(): value.decode("latin-1") for name, value in start["headers"]},
            b"".join(message.get("body", b"") for message in answer[1:]),
        )

    async def messages(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | str = b"",
        *,
        query: str = "",
        is_known: bool = True,
    ) -> AsyncIterator[Any]:
        body = body.encode() if isinstance(body, str) else body
        raw_path = f"/v1/stream/{path}".encode("latin-1")
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": "",
            "raw_path": raw_path,
            "query_string": query.encode("latin-1"),
            "headers": [
                (b"host", b"127.0.0.1:4096"),
                *((name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()),
            ],
            "client": ("127.0.0.1", 1),
        }
        sent: asyncio.Queue[Any] = asyncio.Queue()
        given = False

        async def receive() -> Any:
            nonlocal given
            if given:
                await asyncio.Event().wait()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        task = asyncio.ensure_future(self.face(scope, dict(scope["headers"]), receive, sent.put, is_known=is_known))
        task.add_done_callback(lambda _: sent.put_nowait(None))
        try:
            while (message := await sent.get()) is not None:
                yield message
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def put(self, path: str, headers: Mapping[str, str] = JSON, body: bytes | str = b"") -> Answer:
        return await self.request("PUT", path, headers, body)

    async def post(self, path: str, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> Answer:
        return await self.request("POST", path, {**JSON, **(headers or {})}, body)

    async def get(self, path: str, query: str = "", headers: Mapping[str, str] | None = None) -> Answer:
        return await self.request("GET", path, headers, query=query)

    async def read_all(self, path: str, offset: str = "-1") -> tuple[list[Any], Answer]:
        """Page by page, until the end: the messages of a JSON stream."""
        found: list[Any] = []
        while True:
            page = await self.get(path, f"offset={offset}")
            assert page.status == 200, page
            found += page.json
            offset = page.next
            if page.up_to_date:
                return found, page

    @asynccontextmanager
    async def sse(self, path: str, query: str, headers: Mapping[str, str] | None = None) -> AsyncIterator["SseReader"]:
        messages = self.messages("GET", path, headers, query=f"live=sse&{query}")
        start = await anext(messages)
        assert start["status"] == 200, start
        try:
            yield SseReader(messages)
        finally:
            await messages.aclose()  # pyright: ignore[reportAttributeAccessIssue]


class SseReader:
    def __init__(self, messages: AsyncIterator[Any]) -> None:
        self._messages = messages

    async def frame(self) -> str | None:
        """All that came in one send; None at the end."""
        async with asyncio.timeout(60):
            message = await anext(self._messages, None)
        return message["body"].decode() if message is not None and message["body"] else None
