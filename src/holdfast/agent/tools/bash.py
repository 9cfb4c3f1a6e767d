"""The tool `bash`: runs a command, streams its output as recorded updates, and leaves nothing running that should not run.

The order is the rule: spawn behind the gate, record the process group, open the gate (see `processes`). Every update
carries the group, so that whichever is the last one before a crash, `clean_up` knows what to end.
"""

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.output import BYTES_MAX, LINES_MAX, CommandOutput
from holdfast.agent.tools.places import external, is_inside, resolved
from holdfast.agent.tools.processes import Process, Processes
from holdfast.agent.tools.shell_commands import commands_of, prefix_of
from holdfast.agent.tools.shell_paths import operands_of
from holdfast.core.messages import ToolPart, ToolRunning

TIMEOUT_MS: Final = 2 * 60 * 1000
TIMEOUT_MS_MAX: Final = 10 * 60 * 1000

_UPDATE_INTERVAL_MS: Final = 100
_QUIET_SECONDS: Final = 0.25
"""How long an output must be quiet after its command has ended until we stop listening to what runs in the background."""


class Bash:
    """`shell` is the program that takes `-c command`; bash, or sh where there is none. Times are in ms."""

    id = "bash"
    repeatable = False

    def __init__(
        self,
        processes: Processes,
        *,
        shell: str | None = None,
        timeout_ms: int = TIMEOUT_MS,
        timeout_ms_max: int = TIMEOUT_MS_MAX,
    ) -> None:
        self._processes = processes
        self._shell = shell or shutil.which("bash") or "/bin/sh"
        self._timeout_ms = min(timeout_ms, timeout_ms_max)
        self.description = f"""\
Runs a command with `{Path(self._shell).name} -c` and returns what it writes to stdout and stderr, in order.

- Each call is a new shell: variables and the working directory of an earlier call are gone. To work elsewhere, give
  `workdir` instead of a leading `cd`.
- There is no input and no terminal: use the options that make a program ask nothing (`--yes`, `--no-edit`, `--no-pager`).
- The call ends after {self._timeout_ms} ms unless `timeout` says otherwise (at most {timeout_ms_max}).
- Output over {LINES_MAX} lines or {BYTES_MAX // 1024} KB is shortened in the middle; the result names the file with all of it.
- A process started with `&` goes on after the call, and ends with the server. Send its output to a file if you want to see it.
- Quote paths that contain spaces. To look at files, use the read tool rather than cat, head or tail."""
        self.parameters: dict[str, Any] = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "command": {"type": "string", "description": "The command line to run"},
                "timeout": {
                    "type": "integer",
                    "exclusiveMinimum": 0,
                    "maximum": timeout_ms_max,
                    "description": f"After how many milliseconds to end the command (default {self._timeout_ms})",
                },
                "workdir": {
                    "type": "string",
                    "description": "The directory to run in, absolute or relative to the project directory, which is the default",
                },
            },
            "required": ["command"],
        }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        commands = commands_of(input["command"])
        always = tuple(dict.fromkeys(prefix_of(command) for command in commands))
        directory = resolved(context, input.get("workdir", ""))
        return [
            *external(context, directory, is_directory=True),
            *await asyncio.to_thread(_outside, input["command"], directory, context),
            Ask(permission="bash", patterns=commands, always=always, metadata={"command": input["command"]}),
        ]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        command: str = input["command"]
        timeout_ms = int(input.get("timeout", self._timeout_ms))
        if "\0" in command:  # uvloop would cut it there and run the first half
            raise ToolFailure("A command cannot hold a NUL character.")
        directory = resolved(context, input.get("workdir", ""))
        if not os.path.isdir(directory):
            raise ToolFailure(f"There is no directory {directory}: give another workdir, or none.")
        try:
            process = await self._processes.start(self._shell, command, directory=directory, part_id=context.part_id)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno == errno.E2BIG:
                raise ToolFailure(
                    "The command is too long for this system: put it into a file and run that."
                ) from error
            raise ToolFailure(f"The command could not be started: {error}") from error
        call = _Call(process, context)
        try:
            ended_by_timeout = await call.run(timeout_ms)
            return await call.result(title=command, timeout_ms=timeout_ms if ended_by_timeout else None)
        except BaseException:
            await _uninterrupted(call.abandon())
            raise

    async def clean_up(self, part: ToolPart) -> None:
        recorded = (part.state.metadata or {}).get("process") if isinstance(part.state, ToolRunning) else None
        match recorded:
            case {"group": int(group), "started": str(started)}:
                await Processes.clean_up(part.id, group, started)
            case _:
                await Processes.clean_up(part.id, 0, "")


def _outside(command: str, directory: Path, context: ToolContext) -> list[Ask]:
    """What the line names outside of the project and of its working directory (which is asked for by itself)."""
    patterns: dict[str, str] = {}
    for operand in operands_of(command):
        try:
            path = resolved(context, str(directory / Path(operand.text).expanduser()))
        except (ToolFailure, RuntimeError):  # no name of a file, or the home of nobody
            continue
        if is_inside(context, path) or path == directory or directory in path.parents:
            continue
        if not operand.is_target and path != Path("/") and not os.path.lexists(Path("/", path.parts[1])):
            continue  # begins with a slash, but is no path of this machine: a pattern, a route, a part of a URL
        for ask in external(context, path, is_directory=path.is_dir()):
            patterns.update((pattern, str(path)) for pattern in ask.patterns)
    if not patterns:
        return []
    return [
        Ask(
            permission="external_directory",
            patterns=tuple(patterns),
            always=tuple(patterns),
            metadata={"filepath": next(iter(patterns.values())), "command": command},
        )
    ]


class _Call:
    """One command, from its gate to its end."""

    def __init__(self, process: Process, context: ToolContext) -> None:
        self._process = process
        self._context = context
        self._output = CommandOutput(context.output_directory / f"{context.part_id}.txt")
        self._reader: asyncio.Task[None] | None = None
        self._bytes_recorded = 0
        self._next_update_ms = 0

    async def run(self, timeout_ms: int) -> bool:
        """Record it, let it run to its end, stream what it writes. True if the timeout ended it."""
        clock = self._context.clock
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

    async def result(self, *, title: str, timeout_ms: int | None) -> ToolResult:
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
        metadata: dict[str, Any] = {
            "output": _with_notes(self._output.preview(growing=False), notes),
            "exit": self._process.status,
            "truncated": self._output.is_truncated,
        }
        if self._output.is_truncated:
            metadata["outputPath"] = str(self._output.path)
        output = _with_notes(self._output.result(), notes) or "(no output)"
        return ToolResult(title=title, output=output, metadata=metadata)

    async def _read(self) -> None:
        while data := await self._process.output.read():
            await self._output.take(data)

    async def _read_rest(self) -> None:
        self._process.output.finish(_QUIET_SECONDS)
        if self._reader is not None:
            await self._reader

    async def _until_update(self) -> None:
        """Until there is something new, and the last update is old enough."""
        await self._context.clock.sleep_until(self._next_update_ms)
        await self._output.grown.wait()

    async def _record(self) -> None:
        self._output.grown.clear()
        self._bytes_recorded = self._output.window.bytes_total
        await self._context.progress(
            None,
            {
                "output": self._output.preview(growing=True),
                "process": {"group": self._process.group, "started": self._process.started},
            },
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
