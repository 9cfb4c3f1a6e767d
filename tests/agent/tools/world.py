"""What a tool under test sees of the world: a context whose recorded updates can be awaited, clocks, and named pipes that know
when every process that held them has ended."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from holdfast.agent.tools import ToolContext
from holdfast.agent.tools.base import Progress, SessionHost
from holdfast.core.clock import Clock


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep_until(self, deadline_ms: int) -> None:
        await asyncio.sleep(max(0, deadline_ms - self.now_ms()) / 1000)


class HandClock:
    """Stands still until it is advanced."""

    def __init__(self) -> None:
        self._now_ms = 1_700_000_000_000
        self._moved = asyncio.Condition()

    def now_ms(self) -> int:
        return self._now_ms

    async def sleep_until(self, deadline_ms: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._now_ms >= deadline_ms)

    async def advance(self, ms: int) -> None:
        async with self._moved:
            self._now_ms += ms
            self._moved.notify_all()


class Record:
    """What a tool recorded while it ran."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self._grown = asyncio.Condition()

    async def progress(self, title: str | None, metadata: dict[str, Any]) -> None:
        assert title is None
        if self.failure is not None:
            raise self.failure
        async with self._grown:
            self.updates.append(metadata)
            self._grown.notify_all()

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The newest update once it satisfies the condition."""
        async with self._grown:
            await self._grown.wait_for(lambda: bool(self.updates) and condition(self.updates[-1]))
            return self.updates[-1]

    async def until_output(self, text: str) -> None:
        await self.until(lambda update: text in update["output"])

    @property
    def group(self) -> int:
        return self.updates[-1]["process"]["group"]


class Fifo:
    """A named pipe. `hold` is a piece of shell that makes the shell, and all that it starts, keep the pipe open as descriptor 9
    and say so: `ended` returns when every one of them is dead."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.hold = f"exec 9>'{path}'; echo up >&9;"
        # Nobody who opens it for writing waits for us.
        self._reading = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
        self._writing: int | None = None
        self._stream: asyncio.StreamReader | None = None

    async def line(self) -> str:
        """The next line that somebody wrote."""
        return (await (await self._connected()).readline()).decode().rstrip("\n")

    async def ended(self) -> None:
        await (await self._connected()).read()

    def has_ended(self) -> bool:
        return self._stream is not None and self._stream.at_eof()

    def hold_open(self) -> int:
        """Nobody who opens it for reading waits for others, either."""
        if self._writing is None:
            self._writing = os.open(self.path, os.O_RDWR)
        return self._writing

    def say(self, line: str = "") -> None:
        """To whoever does `read -r _ < path`."""
        os.write(self.hold_open(), f"{line}\n".encode())

    def close(self) -> None:
        self._reading.close()
        if self._writing is not None:
            os.close(self._writing)

    async def _connected(self) -> asyncio.StreamReader:
        if self._stream is None:
            self._stream = asyncio.StreamReader()
            protocol = asyncio.StreamReaderProtocol(self._stream)
            file = os.fdopen(os.dup(self._reading.fileno()), "rb", 0)
            await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, file)
        return self._stream


def make_context(directory: Path, progress: Progress, *, part_id: str, clock: Clock | None = None) -> ToolContext:
    return ToolContext(
        session_id="ses_1",
        message_id="msg_1",
        part_id=part_id,
        call_id="call_1",
        directory=directory,
        worktree=directory,
        output_directory=directory.parent / "data" / "tool-output",
        clock=clock or WallClock(),
        progress=progress,
        host=cast(SessionHost, None),  # for tools that do not talk with their session
    )
