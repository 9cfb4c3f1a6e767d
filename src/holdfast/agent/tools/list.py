"""The tool `list`: the files below a directory, as a tree."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.agent.globs import Glob
from holdfast.agent.permissions import Ask
from holdfast.agent.search import find_files
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.places import resolved, shown
from holdfast.agent.tools.results import result
from holdfast.agent.tools.searching import asks, directory_of, failures_told, text_of
from holdfast.core.messages import ToolPart

FILES_MAX: Final = 100


class List:
    id = "list"
    repeatable = True
    description = f"""\
Shows the files below a directory as a tree, at most {FILES_MAX} of them, those near the top first.

- What git ignores is left out, unless `path` is in it; `ignore` leaves out more, by patterns of file names.
- To find certain files, the glob and grep tools are quicker."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "path": {
                "type": "string",
                "description": "The directory, absolute or relative; leave it out for the project directory",
            },
            "ignore": {
                "type": "array",
                "items": {"type": "string", "minLength": 1},
                "maxItems": 100,
                "description": "Patterns of files to leave out",
            },
        },
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        directory = resolved(context, input.get("path", ""))
        return asks(context, directory, "list", str(directory), {"path": str(directory)})

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        directory = await directory_of(context, input.get("path", ""))
        try:
            ignored = [Glob(pattern) for pattern in input.get("ignore", [])]
        except ValueError as error:
            raise ToolFailure(str(error)) from error
        with failures_told():
            found = await find_files(str(directory))
        names, count = await asyncio.to_thread(_nearest, found.names, ignored)
        lines = [f"{directory}/", *_tree(names)]
        if not names:
            lines.append("(There are no files.)")
        if count > len(names) or found.is_cut:
            lines += [
                "",
                f"({count - len(names)} more files are not shown. List a directory in it, or use the glob tool.)",
            ]
        return await result(
            context,
            title=shown(context, directory),
            output="\n".join(lines),
            metadata={"count": len(names)},
            truncated=count > len(names) or found.is_cut,
        )

    async def clean_up(self, part: ToolPart) -> None:
        """It only read."""


def _nearest(names: Sequence[bytes], ignored: Sequence[Glob]) -> tuple[list[str], int]:
    wanted = [name for name in names if not any(_is_below(glob, name) for glob in ignored)]
    nearest = sorted(wanted, key=lambda name: (name.count(b"/"), name))[:FILES_MAX]
    return [text_of(name) for name in nearest], len(wanted)


def _is_below(glob: Glob, name: bytes) -> bool:
    """The file, or a directory it is in, matches."""
    end = len(name)
    while end > 0:
        if glob.matches(name[:end]):
            return True
        end = name.rfind(b"/", 0, end)
    return False


def _tree(names: Sequence[str]) -> list[str]:
    """Directories before the files beside them."""
    lines: list[str] = []
    shown_directory = Path()
    for parts in sorted((Path(name).parts for name in names), key=_order):
        directory = Path(*parts[:-1])
        for depth in range(1, len(parts)):
            above = Path(*parts[:depth])
            if above != shown_directory and above not in shown_directory.parents:
                lines.append(f"{'  ' * depth}{above.name}/")
        shown_directory = directory
        lines.append(f"{'  ' * len(parts)}{parts[-1]}")
    return lines


def _order(parts: tuple[str, ...]) -> list[tuple[bool, str]]:
    return [(number == len(parts) - 1, part) for number, part in enumerate(parts)]
