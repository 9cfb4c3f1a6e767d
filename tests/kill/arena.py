"""Where servers are killed: one data directory, a real `holdfast serve` on it that dies and comes back on the same port,
a model server that outlives it, a subscriber that resumes, and a client that repeats what was not answered.

The subscriber's events are folded as they come; `folds` is the state that a client has that saw nothing but the stream.
"""

import asyncio
import collections
import json
import os
import time
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from holdfast.core.codec import decode
from holdfast.core.events import EVENT_TYPES, Event
from holdfast.core.fold import Fold
from holdfast.core.ids import IdGenerator
from holdfast.testing.model_server import ModelServer
from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command
from tests.sse_watcher import Seen, SseWatcher

_TAGS = {cls.type: f"{cls.type}.{cls.version}" for cls in EVENT_TYPES}
STOP_SECONDS_MAX = 45


class Arena:
    """`async with Arena(directory) as arena:` has a server running; its processes are gone at the end. `repeated` counts
    the calls that were made again, by path."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.work = directory / "work"
        self.log = directory / "server.log"
        self.kills = 0
        self.events: dict[str, list[Event]] = collections.defaultdict(list)
        self.folds: dict[str, Fold] = collections.defaultdict(Fold)
        self.event_ids: collections.Counter[str] = collections.Counter()
        self.repeated: collections.Counter[str] = collections.Counter()
        self.model = ModelServer()
        self.watcher = SseWatcher(self._on_event)
        self._ids = IdGenerator(lambda: time.time_ns() // 1_000_000, os.urandom)
        self._generation = 0
        self._started = asyncio.Condition()
        command = holdfast_command("serve", "--port", str(free_port()), "--data", str(self.data))
        self.process = ServerProcess(command, cwd=self.work, log=self.log)

    async def __aenter__(self) -> Self:
        self.work.mkdir()
        await self.model.__aenter__()
        try:
            (self.work / "opencode.json").write_text(json.dumps(opencode_json(self.model.url)))
            # A fresh connection for each call: a kept one may be found dead without that saying anything of the server.
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=None)
            )
            await self.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.watcher.close()
        self.process.kill()
        await self._http.close()
        await self.model.__aexit__(None, None, None)

    # --- the server's life

    async def start(self) -> None:
        await asyncio.to_thread(self.process.start)
        await self.watcher.connect(self.process.url)
        async with self._started:
            self._generation += 1
            self._started.notify_all()

    async def kill(self) -> None:
        """SIGKILL. Returns when the subscriber has read all that the server had sent."""
        self.kills += 1
        await asyncio.to_thread(self.process.kill)
        await self.watcher.lost.wait()

    async def stop(self) -> None:
        """SIGTERM: the server has to be gone, in good order, and soon: within five seconds, if the machine has no others to
        serve."""
        code = await asyncio.to_thread(self.process.stop, timeout=STOP_SECONDS_MAX)
        assert code == 0, f"the server exited with {code} on SIGTERM"
        await self.watcher.lost.wait()

    async def verify(self) -> None:
        """What `holdfast verify` says of the data directory; the server must not run."""
        verify = await asyncio.create_subprocess_exec(
            *holdfast_command("verify", "--data", str(self.data)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await verify.communicate()
        assert verify.returncode == 0, output.decode()

    # --- a client

    async def call(self, method: str, path: str, body: Any = None, *, expected: tuple[int, ...] = (200, 204)) -> Any:
        """The decoded answer. A call that the server's end cut off, or that found none, is made again to the next one."""
        while True:
            generation = self._generation
            try:
                async with self._http.request(method, self.process.url + path, json=body) as response:
                    status, answer = response.status, await response.read()
            except (aiohttp.ClientError, ConnectionError):
                status, answer = None, b""
            if status is not None and status != 503:  # 503: it is about to stop
                assert status in expected, f"{method} {path}: {status} {answer[:1000]!r}"
                return json.loads(answer) if answer else None
            self.repeated[path] += 1
            async with self._started:
                await self._started.wait_for(lambda g=generation: self._generation > g)

    async def read_stream(self, path: str) -> list[Any]:
        """The messages of a JSON stream up to its end, read by one who comes back to where he was."""
        found: list[Any] = []
        offset = "-1"
        while True:
            generation = self._generation
            try:
                query = {"live": "long-poll", "offset": offset}
                async with self._http.get(self.process.url + path, params=query) as response:
                    status, headers, page = response.status, response.headers, await response.read()
            except (aiohttp.ClientError, ConnectionError):
                status, headers, page = None, {}, b""
            if status is not None and status != 503:
                assert status in (200, 204), f"{path}: {status} {page[:1000]!r}"
                assert headers["stream-next-offset"] >= offset
                found += json.loads(page or b"[]")
                offset = headers["stream-next-offset"]
                if "stream-closed" in headers:
                    return found
                continue
            async with self._started:
                await self._started.wait_for(lambda g=generation: self._generation > g)

    def new_message_id(self) -> str:
        return self._ids.new("msg")

    async def new_session(self) -> str:
        """With a title, so that no title is made up for it. The subscriber has seen it when this returns."""
        session: str = (await self.call("POST", "/session", {"title": "killed"}))["id"]
        await self.watcher.until(lambda: session in self.folds)
        return session

    # --- what the subscriber saw

    def _on_event(self, seen: Seen) -> None:
        envelope = msgspec.json.decode(seen.data, type=_TypeOnly)
        event_id, event = decode(_TAGS[envelope.type], seen.data)
        self.event_ids[event_id] += 1
        self.events[event.session_id].append(event)
        self.folds[event.session_id].apply(event)


class _TypeOnly(msgspec.Struct):
    type: str


def opencode_json(model_url: str) -> dict[str, Any]:
    """What makes the model server the provider of a project, in OpenCode's own words."""
    return {
        "model": "fake/fake-1",
        "small_model": "fake/fake-1",
        "provider": {
            "fake": {
                "npm": "@ai-sdk/openai-compatible",
                "options": {"baseURL": model_url, "apiKey": "none"},
                "models": {
                    "fake-1": {"limit": {"context": 200000, "output": 8192}},
                    "fake-small": {"limit": {"context": 2000, "output": 100}},  # full after any answer
                },
            }
        },
    }
