"""A server under a test's hand: what it does with each request, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from holdfast.testing.loop_time import let_pass

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


class Wire:
    """One connection of a server under a test's hand. `request` is what the client sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.request = b""

    async def receive(self) -> None:
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        self.request = head + await self.reader.readexactly(length)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def until_gone(self) -> None:
        """Return once the client closed its side."""
        while await self.reader.read(1024):
            pass

    async def outlast(self, seconds: float) -> None:
        """Say nothing, while so much time passes again and again, until the client closed its side."""
        gone = asyncio.ensure_future(self.until_gone())
        while not gone.done():
            let_pass(seconds)
            await asyncio.wait((gone,), timeout=0.01)


Behaviour = Callable[[Wire], Awaitable[None]]


@asynccontextmanager
async def server(behave: Behaviour) -> AsyncIterator[str]:
    """Does `behave` with each request, and closes the connection after it. Gives the base URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        wire = Wire(reader, writer)
        try:
            await wire.receive()
            await behave(wire)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sends(*pieces: bytes) -> Behaviour:
    async def behave(wire: Wire) -> None:
        for piece in pieces:
            await wire.send(piece)

    return behave


def streams(body: bytes) -> Behaviour:
    return sends(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
