"""A server that hangs, or grows without end, because of those who read from it.

Clients that vanished took OpenCode's server with them, and for each that was slow or dead, events piled up in its
memory: to 4, to 60 GB, until the port was open and nothing answered. (anomalyco/opencode 15149, 26697, 20695, 17908,
41502)
"""

import asyncio
import contextlib
import tracemalloc
from pathlib import Path

import pytest

from tests.server.harness import Server


async def test_readers_that_vanish_leave_nothing_behind(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data") as server, asyncio.timeout(60):
        url = await server.listen()
        session = await server.session()
        host, port = url.removeprefix("http://").split(":")
        before = len(asyncio.all_tasks())
        for _ in range(40):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET /event HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()
        await server.prompt(session, noReply=True)
        while len(asyncio.all_tasks()) > before + 5:  # noqa: ASYNC110 - a connection that is gone tells nobody
            await asyncio.sleep(0.01)

        assert (await server.api.get("/global/health")).json()["healthy"] is True


@pytest.mark.slow
async def test_for_a_reader_that_takes_nothing_nothing_piles_up(tmp_path: Path) -> None:
    """30 MB of events, ten readers that sleep: what the process holds does not grow with readers times events."""
    async with Server(tmp_path, tmp_path / "data") as server, asyncio.timeout(60), contextlib.AsyncExitStack() as open:
        url = await server.listen()
        host, port = url.removeprefix("http://").split(":")
        for _ in range(10):
            reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
            open.callback(writer.transport.abort)
            writer.write(b"GET /event HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        session = await server.session()
        tracemalloc.start()
        for _ in range(60):
            await server.prompt(session, "x" * 500_000, noReply=True)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert peak < 120_000_000  # what is written is in memory several times while it is; piled up it would be 300 MB
        assert (await server.api.get("/global/health")).json()["healthy"] is True
