"""Runs command lines to their end: for the tool `bash`, and for templates of commands.

The order is the rule: spawn behind the gate, record the process group, open the gate (see `processes`). Every update
carries the group, so that whichever is the last one before a crash, `clean_up` knows what to end.
"""

import asyncio
import contextlib
import errno
import shutil
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

from holdfast.agent.tools.base import ToolFailure
from holdfast.agent.tools.output import CommandOutput
from holdfast.agent.tools.processes import Process, Processes
from holdfast.core.clock import Clock

TIMEOUT_MS: Final = 2 * 60 * 1000
TIMEOUT_MS_MAX: Final = 10 * 60 * 1000

_UPDATE_INTERVAL_MS: Final = 100
_QUIET_SECONDS: Final = 0.25
"""How long an output must be quiet after its command has ended until we stop listening to what runs in the background."""

Record = Callable[[dict[str, Any]], Awaitable[None]]
"""Returns once what it is given, the state of a running command, is durable."""


class Ran(NamedTuple):
    """`output` is for the LLM, with notes on what is not usual; `preview` for people. `path` is the file with all of the output
    when it was too long, if one could be made."""

    output: str
    preview: str
    status: int | None
    is_truncated: bool
    path: Path | None


class CommandLines:
    """`shell` is the program that takes `-c command`; bash, or sh where there is none."""

    def __init__(self, processes: Processes, *, shell: str | None = None) -> None:
        self._processes = processes
        self.shell = shell or shutil.which("bash") or "/bin/sh"

    async def run(
        self, command: str, *, directory: Path, part_id: str, file: Path, clock: Clock, record: Record, timeout_ms: int
    ) -> Ran:
        """Run it to its end, or to its timeout. `part_id` marks what it starts; `file` is where output over the limit goes,
        whole. Raises ToolFailure if it cannot be started. When cancelled, ends all of it first."""
        if "\0" in command:  # uvloop would cut it there and run the first half
            raise ToolFailure("A command cannot hold a NUL character.")
        try:
            process = await self._processes.start(self.shell, command, directory=directory, part_id=part_id)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.E2BIG:
                raise ToolFailure(
                    "The command is too long for this system: put it into a file and run that."
                ) from error
            raise ToolFailure(f"The command could not be started: {error}") from error
        call = _Call(process, file, clock, record)
        try:
            ended_by_timeout = await call.run(timeout_ms)
            return await call.result(timeout_ms if ended_by_timeout else None)
        except BaseException:
            await _uninterrupted(call.abandon())
            raise


class _Call:
    """One command, from its gate to its end."""

    def __init__(self, process: Process, file: Path, clock: Clock, record: Record) -> None:
        self._process = process
        self._clock = clock
        self._recorded = record
        self._output = CommandOutput(file)
        self._reader: asyncio.Task[None] | None = None
        self._bytes_recorded = 0
        self._next_update_ms = 0

    async def run(self, timeout_ms: int) -> bool:
        """Record it, let it run to its end, stream what it writes. True if the timeout ended it."""
        clock = self._clock
        await self._record()
        self._process.open_gate()
        self._reader = asyncio.create_task(self._read())
        ended = asyncio.create_task(self._process.wait())
        expired = asyncio.create_task(clock.sleep_until(clock.now_ms() + timeout_ms))
        update = asyncio.create_task(self._until_update())
        try:
            while not (ended.done() or expired.done()):
                # Updates are recorded here and not beside: none is under way when the result is.
                await asyncio.wait({ended, expired, update}, return_when=asyncio.FIRST_COMPLETED)
                if update.done():
                    await self._record()
                    self._next_update_ms = clock.now_ms() + _UPDATE_INTERVAL_MS
                    update = asyncio.create_task(self._until_update())
            ended_by_timeout = not ended.done()
            if ended_by_timeout:
                await self._process.end()
            await self._read_rest()
            return ended_by_timeout
        finally:
            for task in (ended, expired, update):
                task.cancel()

    async def abandon(self) -> None:
        """Stopped from outside: end all of it, then record what it wrote until then."""
        await self._process.end()
        await self._read_rest()
        if self._output.window.bytes_total > self._bytes_recorded:
            with contextlib.suppress(Exception):  # what stopped us is the error to report
                await self._record()
        self._process.output.close()
        self._output.close()

    async def result(self, timeout_ms: int | None) -> Ran:
        self._process.output.drop()
        self._output.close()
        notes: list[str] = []
        if timeout_ms is not None:
            notes.append(
                f"The command was ended after its timeout of {timeout_ms} ms. If it only needs longer and does not wait for "
                "input, run it again with a larger timeout."
            )
        elif self._process.status != 0:
            notes.append(f"Exit code: {self._process.status}")
        if await self._process.has_background():
            notes.append(f"Still running in the background: process group {self._process.group}")
        return Ran(
            output=_with_notes(self._output.result(), notes),
            preview=_with_notes(self._output.preview(growing=False), notes),
            status=self._process.status,
            is_truncated=self._output.is_truncated,
            path=self._output.kept,
        )

    async def _read(self) -> None:
        while data := await self._process.output.read():
            await self._output.take(data)

    async def _read_rest(self) -> None:
        self._process.output.finish(_QUIET_SECONDS)
        if self._reader is not None:
            await self._reader

    async def _until_update(self) -> None:
        """Until there is something new, and the last update is old enough."""
        await self._clock.sleep_until(self._next_update_ms)
        await self._output.grown.wait()

    async def _record(self) -> None:
        self._output.grown.clear()
        self._bytes_recorded = self._output.window.bytes_total
        await self._recorded(
            {
                "output": self._output.preview(growing=True),
                "process": {"group": self._process.group, "started": self._process.started},
            }
        )


def _with_notes(output: str, notes: list[str]) -> str:
    block = "\n".join(("<shell_metadata>", *notes, "</shell_metadata>")) if notes else ""
    return f"{output}\n\n{block}" if output and block else output or block


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do it to the end, even if we are cancelled again meanwhile."""
    task = asyncio.create_task(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    if not task.cancelled():
        task.result()
