"""A subscriber of `/event` that sees everything the server ever sent, to the last byte before it died.

A plain `asyncio.Protocol`: bytes that arrived before the connection broke are never dropped in favour of the error, as
stream readers do. What it was sent stays in `events`; it resumes with the last `id:` it saw.
"""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Seen(NamedTuple):
    """One event. `offset` is its `id:` line; `data` the JSON as sent."""

    offset: str
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class SseWatcher:
    """`connect` returns once the server greets; `lost` is set when that connection is over. `on_event` is called for each
    recorded event, as it comes. What is not recorded (`server.*`, and snapshots, which have no id) goes to `others`."""

    def __init__(self, on_event: Callable[[Seen], None] | None = None, path: str = "/event") -> None:
        self.events: list[Seen] = []
        self.others: list[bytes] = []
        self.lost = asyncio.Event()
        self.last_offset: str | None = None
        self._on_event = on_event
        self._path = path
        self._changed: set[asyncio.Event] = set()
        self._transport: asyncio.Transport | None = None

    async def connect(self, url: str) -> None:
        address = urlsplit(url)
        assert address.hostname
        assert address.port
        resume = f"Last-Event-ID: {self.last_offset}\r\n" if self.last_offset else ""
        self.lost = asyncio.Event()
        connection = _Connection(self._frame, self.lost)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: connection, address.hostname, address.port)
        head = f"GET {self._path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: text/event-stream\r\n{resume}\r\n"
        self._transport.write(head.encode())
        greeted = asyncio.ensure_future(connection.greeted.wait())
        lost = asyncio.ensure_future(self.lost.wait())
        await asyncio.wait((greeted, lost), return_when=asyncio.FIRST_COMPLETED)
        for waiting in (greeted, lost):
            waiting.cancel()
        if connection.status != 200:
            raise ConnectionError(f"{self._path} answered {connection.status} {connection.rest[:500]!r}")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return as soon as the condition holds; looked at after each read from the connection."""
        changed = asyncio.Event()
        self._changed.add(changed)
        try:
            while not condition():
                changed.clear()
                await changed.wait()
        finally:
            self._changed.discard(changed)

    def _frame(self, offset: str | None, data: bytes | None) -> None:
        """None, None: a read is through."""
        if data is None:
            for changed in self._changed:
                changed.set()
            return
        self.last_offset = offset or self.last_offset
        if offset is None or _type_of(data).startswith("server."):
            self.others.append(data)
        else:
            seen = Seen(offset, data)
            self.events.append(seen)
            if self._on_event:
                self._on_event(seen)


class _Connection(asyncio.Protocol):
    """HTTP head, chunks, frames."""

    def __init__(self, on_frame: Callable[[str | None, bytes | None], None], lost: asyncio.Event) -> None:
        self.greeted = asyncio.Event()
        self.status = 0
        self.rest = b""
        self._on_frame = on_frame
        self._lost = lost
        self._body = b""

    def data_received(self, data: bytes) -> None:
        self.rest += data
        if not self.status:
            head, end, rest = self.rest.partition(b"\r\n\r\n")
            if not end:
                return
            self.status = int(head.split(b" ", 2)[1])
            assert b"transfer-encoding: chunked" in head.lower() or self.status != 200
            self.rest = rest
        self._take_chunks()
        *frames, self._body = self._body.split(b"\n\n")
        for frame in frames:
            self._take_frame(frame)
        self._on_frame(None, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()
        self._on_frame(None, None)

    def _take_chunks(self) -> None:
        while True:
            size, end, rest = self.rest.partition(b"\r\n")
            if not end or len(rest) < (length := int(size, 16)) + 2:
                return
            self._body += rest[:length]
            self.rest = rest[length + 2 :]

    def _take_frame(self, frame: bytes) -> None:
        offset, data = None, None
        for line in frame.split(b"\n"):
            if line.startswith(b"id:"):
                offset = line[3:].strip().decode()
            elif line.startswith(b"data:"):
                data = line[5:].strip()
        if data is not None:
            if _type_of(data) == "server.connected":
                self.greeted.set()
            self._on_frame(offset, data)


def _type_of(data: bytes) -> str:
    """The event's type, without decoding all of it: it stands before the properties."""
    found = re.search(rb'"type":\s*"([^"]+)"', data)
    return found[1].decode() if found else ""
