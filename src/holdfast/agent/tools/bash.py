"""The tool `bash`: runs a command, streams its output as recorded updates, and leaves nothing running that should not run."""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.command_lines import TIMEOUT_MS, TIMEOUT_MS_MAX, CommandLines
from holdfast.agent.tools.output import BYTES_MAX, LINES_MAX
from holdfast.agent.tools.places import external, is_inside, resolved
from holdfast.agent.tools.processes import Processes
from holdfast.agent.tools.shell_commands import UNCLEAR, commands_of, prefix_of, within
from holdfast.agent.tools.shell_paths import operands_of
from holdfast.core.messages import ToolPart, ToolRunning


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
        self._lines = CommandLines(processes, shell=shell)
        self._timeout_ms = min(timeout_ms, timeout_ms_max)
        self.description = f"""\
Runs a command with `{Path(self._lines.shell).name} -c` and returns what it writes to stdout and stderr, in order.

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
        # Pieces of a line that is unclear may be anything: a text that looks like a command stands for no others.
        is_clear = not commands[0].startswith(UNCLEAR)
        always = tuple(dict.fromkeys(prefix_of(command) if is_clear else command for command in commands))
        directory = resolved(context, input.get("workdir", ""))
        return [
            *external(context, directory, is_directory=True),
            *await asyncio.to_thread(_outside, input["command"], directory, context),
            Ask(
                permission="bash",
                patterns=commands,
                always=always,
                within=await asyncio.to_thread(within, commands),
                metadata={"command": input["command"]},
            ),
        ]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        command: str = input["command"]
        directory = resolved(context, input.get("workdir", ""))
        if not os.path.isdir(directory):
            raise ToolFailure(f"There is no directory {directory}: give another workdir, or none.")
        ran = await self._lines.run(
            command,
            directory=directory,
            part_id=context.part_id,
            file=context.output_directory / f"{context.part_id}.txt",
            clock=context.clock,
            record=lambda metadata: context.progress(None, metadata),
            timeout_ms=int(input.get("timeout", self._timeout_ms)),
        )
        metadata: dict[str, Any] = {"output": ran.preview, "exit": ran.status, "truncated": ran.is_truncated}
        if ran.path is not None:
            metadata["outputPath"] = str(ran.path)
        return ToolResult(title=command, output=ran.output or "(no output)", metadata=metadata)

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
