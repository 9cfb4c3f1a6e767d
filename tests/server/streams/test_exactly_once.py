"""A producer dies, the server dies at the worst moment: what the stock producer writes is there once."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command

SCRIPT = Path(__file__).parents[2] / "node" / "durable_streams" / "producer.mjs"
COUNT = 300

pytestmark = pytest.mark.slow


@asynccontextmanager
async def producing(url: str, count: int = COUNT) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("node")), str(SCRIPT), url, str(count), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def finished(process: asyncio.subprocess.Process) -> None:
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()


async def read(url: str) -> list[int]:
    async with httpx.AsyncClient(timeout=60) as client:
        return (await client.get(url)).raise_for_status().json()


async def written(url: str, count: int) -> None:
    """Return once so many messages are there."""
    async with httpx.AsyncClient(timeout=60) as client:
        found, offset = 0, "-1"
        while found < count:
            page = await client.get(url, params={"live": "long-poll", "offset": offset})
            if page.status_code == 404:
                await asyncio.sleep(0.05)  # there is nothing to wait for before it is created
                continue
            found += len(page.json()) if page.content else 0
            offset = page.headers["stream-next-offset"]


def serving(directory: Path) -> ServerProcess:
    command = holdfast_command("serve", "--port", str(free_port()), "--data", str(directory / "data"))
    return ServerProcess(command, cwd=directory, log=directory / "server.log")


async def test_a_producer_that_is_killed_and_begins_again_writes_nothing_twice(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        url = f"{server.url}/v1/stream/told"
        for share in (1, 3):
            async with producing(url) as process:
                await written(url, COUNT * share // 5)
                process.kill()
        async with producing(url) as process:
            await finished(process)

        assert await read(url) == list(range(COUNT))


class LastWord:
    """A proxy that, when told to, kills the server once it has answered, and lets nobody hear the answer. `unheard` is what
    it said."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._answers = 0
        self._at: tuple[int, ...] = ()
        self._restarting = asyncio.Lock()
        self.unheard: list[bytes] = []

    @asynccontextmanager
    async def serve(self, *at: int) -> AsyncIterator[str]:
        """`at`: after so many appends that were made."""
        self._at = at
        listening = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        listening.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._server.url.removeprefix("http://").split(":")
        try:
            async with self._restarting:
                answers, upstream = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        carry = asyncio.ensure_future(self._carry(reader, upstream))
        try:
            while answer := await answers.read(1 << 16):
                self._answers += answer.startswith(b"HTTP/1.1 200") and b"producer-epoch:" in answer.lower()
                if self._at and self._answers >= self._at[0]:
                    self._at = self._at[1:]
                    self.unheard.append(answer)
                    async with self._restarting:
                        await asyncio.to_thread(self._server.kill)
                        await asyncio.to_thread(self._server.start)
                    break
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            carry.cancel()
            writer.transport.abort()
            upstream.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, upstream: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                upstream.write(data)
                await upstream.drain()
        except ConnectionError:
            pass


async def test_a_server_that_is_killed_between_commit_and_answer_has_made_the_append_once(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        proxy = LastWord(server)
        runs = 0
        async with proxy.serve(20, 90, 200) as url:
            code: int | None = None
            while code != 0:  # the stock producer gives up when a connection breaks: whoever runs it starts it again
                async with producing(f"{url}/v1/stream/told") as process:
                    await asyncio.wait_for(process.communicate(), 60)
                    code = process.returncode
                runs += 1

        assert runs > len(proxy.unheard)
        assert [answer.split(b" ", 2)[1] for answer in proxy.unheard] == [b"200"] * 3
        assert await read(f"{server.url}/v1/stream/told") == list(range(COUNT))
