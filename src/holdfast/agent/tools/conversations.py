"""What every talk with a program of ours needs (`processes.Conversation`), whatever language it speaks: MCP, LSP.

What the program writes to stderr goes to our log, so many lines and no more.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.agent.tools.processes import Conversation

LINES_LOGGED_MAX: Final = 200
LINE_CHARACTERS_MAX: Final = 500
_CHUNK_BYTES: Final = 64 * 1024
_BYTES_PER_SECOND_MAX: Final = 4 * 1024 * 1024
_END_SECONDS: Final = 0.5


class LastWords:
    """What a program wrote to stderr: passed on to `log_line`, at most `LINES_LOGGED_MAX` lines of it; `last` is the newest."""

    def __init__(self, log_line: Callable[[str], None]) -> None:
        self.last = ""
        self._log_line = log_line
        self._lines = 0

    def add(self, lines: Sequence[bytes]) -> None:
        for line in lines if self._lines <= LINES_LOGGED_MAX else lines[-1:]:
            self._add(line)

    def _add(self, line: bytes) -> None:
        text = line[: 4 * LINE_CHARACTERS_MAX].decode(errors="replace").strip()[:LINE_CHARACTERS_MAX]
        if not text:
            return
        self.last = text
        self._lines += 1
        if self._lines <= LINES_LOGGED_MAX:
            self._log_line(text)
        elif self._lines == LINES_LOGGED_MAX + 1:
            self._log_line("(what it writes from now on is not logged)")


def path_of(program: str, directory: Path, variables: Mapping[str, str]) -> str | None:
    """Where it is, if it is. Asked before anything is started, since a shell would say it less clearly."""
    path = variables.get("PATH") or os.environ.get("PATH")
    return shutil.which(str(directory / program) if "/" in program else program, path=path)


async def listen(talk: Conversation, words: LastWords) -> None:
    """To what it writes to stderr, until it stops."""
    rest = b""
    while data := await talk.process.output.read():
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-4 * LINE_CHARACTERS_MAX :]
        words.add(lines)
        # One that never stops is held back by its full pipe, and costs the others little.
        await asyncio.sleep(len(data) / _BYTES_PER_SECOND_MAX)
    words.add([rest])


async def how_it_ended(talk: Conversation, listening: asyncio.Task[None], words: LastWords) -> str:
    """Of a program that has nothing more to say."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(talk.process.wait(), _END_SECONDS)
    await asyncio.wait({listening}, timeout=_END_SECONDS)
    return f"It ended (exit status {talk.process.status}){f': {words.last}' if words.last else ''}"


async def end(talk: Conversation, tasks: Sequence[asyncio.Task[None]]) -> None:
    """No more input, some time to end by itself, then an end with all it started. `tasks` are those that listen to it."""
    talk.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(talk.process.wait(), _END_SECONDS)
    await talk.process.end()
    talk.process.output.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    # What is in the pipes still keeps them open.
    if talk.stdin.transport.get_write_buffer_size() > 0:
        talk.stdin.transport.abort()
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(_END_SECONDS):
            while await talk.stdout.read(_CHUNK_BYTES):
                pass


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do it to the end, even if we are cancelled meanwhile: else the program would live on."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
