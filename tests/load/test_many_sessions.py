"""Many at once, on the real server: 200 sessions with open turns, 50 subscribers of everything, two of which do not read.

What is promised is not speed but that nothing is stuck, nothing is lost, and memory does not grow with readers: a
subscriber is a cursor, and a reader that does not read costs only itself (promise 7).
"""

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httptools
import pytest

from holdfast.testing.model_server import ModelServer
from holdfast.testing.server_process import ServerProcess, holdfast_command
from tests.kill.arena import opencode_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SESSIONS, SUBSCRIBERS, STALLED = 200, 50, 2
TOKENS = 80
GROWTH_MB_MAX = 200
BEGINNING = "0000000000000000_0000000000000000"

_ID = re.compile(rb"^id: (\S+)", re.MULTILINE)
_ENDED = b'"type":"session.idle"'


class Subscriber(asyncio.Protocol):
    """Reads `/event` and keeps the ids of the recorded events. Knows of frames only that lines end, not where: a chunk of the
    body may end in the middle of one."""

    def __init__(self, url: str, path: str) -> None:
        self.ids: list[bytes] = []
        self.ended = 0
        self.all_ended = asyncio.Event()
        self._address = urlsplit(url)
        self._path = path
        self._line = b""
        self._answer = httptools.HttpResponseParser(self)

    async def connect(self, *, reading: bool = True) -> None:
        assert self._address.hostname
        assert self._address.port
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_connection(lambda: self, self._address.hostname, self._address.port)
        if not reading:
            self.transport.pause_reading()
        self.transport.write(f"GET {self._path} HTTP/1.1\r\nHost: {self._address.netloc}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        self._answer.feed_data(data)

    def on_body(self, body: bytes) -> None:
        whole, _, self._line = (self._line + body).rpartition(b"\n")
        self.ids += _ID.findall(whole)
        self.ended += whole.count(_ENDED)
        if self.ended >= SESSIONS:
            self.all_ended.set()


async def test_200_turns_and_50_subscribers(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    async with ModelServer() as model:
        (work / "opencode.json").write_text(json.dumps(opencode_json(model.url)))
        command = holdfast_command("serve", "--port", "0", "--data", str(tmp_path / "data"))
        server = ServerProcess(command, cwd=work, log=tmp_path / "server.log")
        try:
            await asyncio.to_thread(server.start)
            await hold_many(server, model)
        finally:
            server.kill()


async def hold_many(server: ServerProcess, model: ModelServer) -> None:
    subscribers = [Subscriber(server.url, f"/event?after={BEGINNING}") for _ in range(SUBSCRIBERS)]
    stalled, readers = subscribers[:STALLED], subscribers[STALLED:]
    for subscriber in subscribers:
        await subscriber.connect(reading=subscriber in readers)
    connector = aiohttp.TCPConnector(limit=32)
    async with aiohttp.ClientSession(
        server.url, connector=connector, timeout=aiohttp.ClientTimeout(total=None)
    ) as http:

        async def post(path: str, body: Any) -> Any:
            async with http.post(path, json=body) as response:
                assert response.status in (200, 204), await response.text()
                return await response.json() if response.status == 200 else None

        async def get(path: str) -> Any:
            async with http.get(path) as response:
                assert response.status == 200, await response.text()
                return await response.json()

        async def begin(i: int) -> str:
            session: str = (await post("/session", {"title": f"session {i}"}))["id"]
            prompt = f"[[tokens={TOKENS}]] [[stall=5]] number {i}"
            await post(f"/session/{session}/prompt_async", {"parts": [{"type": "text", "text": prompt}]})
            return session

        before = memory_mb(server.pid)
        sessions = await asyncio.gather(*map(begin, range(SESSIONS)))
        await model.until_stalled(SESSIONS)
        assert set(await get("/session/status")) == set(sessions), "all turns are open at the same time"

        model.release()
        await asyncio.gather(*(reader.all_ended.wait() for reader in readers))
        assert await get("/session/status") == {}, "no session is stuck"
        growth = memory_mb(server.pid) - before
        assert growth < GROWTH_MB_MAX, f"the server grew by {growth} MB"

        text = "".join(f"tok{i} " for i in range(TOKENS))
        for session in sessions:
            _, answer = await get(f"/session/{session}/message")
            assert [part["text"] for part in answer["parts"] if part["type"] == "text"] == [text]

    for subscriber in stalled:  # they begin to read now, when all is over
        subscriber.transport.resume_reading()
        await subscriber.all_ended.wait()
    for subscriber in subscribers:
        assert subscriber.ids == readers[0].ids, "every subscriber gets the same events"
        subscriber.transport.close()
    assert len(readers[0].ids) >= SESSIONS * (TOKENS + 5)
    assert readers[0].ids == sorted(set(readers[0].ids)), "each event once, and in order"


def memory_mb(pid: int) -> int:
    """What the process holds in memory now."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("the memory of a process is only read on Linux")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
    assert found
    return int(found[1]) // 1024
