"""A network that can fail: a TCP proxy that drops all its connections and is not there for a while."""

import asyncio
import contextlib
from typing import Self
from urllib.parse import urlsplit

from holdfast.testing.server_process import free_port


class CutProxy:
    """`async with CutProxy(url) as proxy:` clients use `proxy.url` instead of `url`."""

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._target = (address.hostname, address.port)
        self._port = free_port()  # one that stays free while it is cut
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._drop()

    async def cut(self, seconds: float) -> None:
        """Break every connection now, in the middle of whatever it carries, and refuse new ones for so long."""
        await self._drop()
        await asyncio.sleep(seconds)  # this is the time for which the network is gone
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)

    async def _drop(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection(*self._target)
            ways = [asyncio.ensure_future(_carry(reader, upstream)), asyncio.ensure_future(_carry(answers, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except (asyncio.CancelledError, OSError):
            pass  # cut, or nobody there: the client sees a broken connection
        finally:
            self._connections.discard(task)
            for end in (writer, upstream):
                if end is not None:
                    end.transport.abort()


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
