"""The tool `glob`: files by a pattern of their names, those changed last first."""

import asyncio
import heapq
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.agent.globs import Glob as Pattern
from holdfast.agent.globs import literal_start
from holdfast.agent.permissions import Ask
from holdfast.agent.search import find_files
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.places import resolved, shown
from holdfast.agent.tools.results import result
from holdfast.agent.tools.searching import asks, directory_of, failures_told, text_of
from holdfast.core.messages import ToolPart

FILES_MAX: Final = 100


class Glob:
    id = "glob"
    repeatable = True
    description = f"""\
Finds files by a pattern of their names, such as `**/*.py`, `src/**/test_*.ts` or `*.{{yml,yaml}}`.

- Answers absolute paths, those changed last first, at most {FILES_MAX}.
- A pattern without `/` is looked for in all directories. What git ignores is left out, unless `path` is in it.
- To look for something in files, use the grep tool."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "minLength": 1, "description": "The pattern of file names"},
            "path": {
                "type": "string",
                "description": "The directory to look in, absolute or relative; leave it out for the project directory",
            },
        },
        "required": ["pattern"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        directory, _ = _place(input, context)
        return asks(context, directory, "glob", input["pattern"], input)

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        directory, pattern = _place(input, context)
        await directory_of(context, str(directory))
        with failures_told():
            found = await find_files(str(directory))
        try:
            newest, count = await asyncio.to_thread(_newest, directory, found.names, Pattern(pattern))
        except ValueError as error:
            raise ToolFailure(str(error)) from error
        lines = [str(directory / text_of(name)) for name in newest] or ["No files found."]
        if count > len(newest):
            lines += [
                "",
                f"({count} files match; these are the {len(newest)} changed last. Use a narrower pattern or path.)",
            ]
        if found.is_cut:
            lines += ["", "(There are too many files to look at all of them. Look in a smaller directory.)"]
        return await result(
            context,
            title=shown(context, directory),
            output="\n".join(lines),
            metadata={"count": len(newest)},
            truncated=count > len(newest) or found.is_cut,
        )

    async def clean_up(self, part: ToolPart) -> None:
        """It only read."""


def _place(input: dict[str, Any], context: ToolContext) -> tuple[Path, str]:
    """Where to look, and for which pattern: the directories a pattern begins with are a place, and may be outside."""
    start, pattern = literal_start(input["pattern"].removeprefix("./"))
    base = resolved(context, input.get("path", ""))
    return resolved(context, str(base / Path(start).expanduser())), pattern


def _newest(directory: Path, names: Sequence[bytes], pattern: Pattern) -> tuple[list[bytes], int]:
    count = 0

    def matching() -> Iterator[tuple[int, bytes]]:
        nonlocal count
        for name in names:
            if pattern.matches(name):
                count += 1
                yield -_changed_ns(os.path.join(os.fsencode(directory), name)), name

    return [name for _, name in heapq.nsmallest(FILES_MAX, matching())], count


def _changed_ns(path: bytes) -> int:
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:  # gone meanwhile
        return 0
