"""The tool `edit`: replaces a piece of text in a file."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.diagnostics import note_on_file
from holdfast.agent.tools.differences import difference
from holdfast.agent.tools.file_edits import Contents, FileEdit, FileEdits, Plan, Planner, formatting_note
from holdfast.agent.tools.places import resolved, shown
from holdfast.agent.tools.replacing import replacements
from holdfast.agent.tools.source_text import SourceText, encoded
from holdfast.core.messages import ToolPart


class Edit:
    id = "edit"
    repeatable = True
    description = """\
Replaces a piece of text in a file.

- The file has to be read in this session before, and again if somebody else changed it since: else the call is refused.
- `oldString` must be in the file exactly as given, white space included, and only once. Take it from what the read tool
  showed, without the line number and the space after it. Give enough lines around the change to make it the only place.
- With `replaceAll` every occurrence is replaced: to rename something, for example.
- An empty `oldString` makes a new file with `newString` in it.
- Line ends, byte order mark and mode of the file stay as they are."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "filePath": {
                "type": "string",
                "minLength": 1,
                "description": "The file to change, absolute or relative to the project directory",
            },
            "oldString": {"type": "string", "description": "The text that is there now"},
            "newString": {"type": "string", "description": "The text to have in its place; not the same"},
            "replaceAll": {
                "type": "boolean",
                "description": "Replace every occurrence (default false: there must be one)",
            },
        },
        "required": ["filePath", "oldString", "newString"],
    }

    def __init__(self, edits: FileEdits) -> None:
        self._edits = edits

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return await self._edits.asks([input["filePath"]], _planner(input, context), context)

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        path = resolved(context, input["filePath"])
        made = await self._edits.run([input["filePath"]], _planner(input, context), context)
        return ToolResult(
            title=shown(context, path),
            output=f"Changed {path}.{formatting_note(made.metadata)}{note_on_file(made.errors, str(path))}",
            metadata={**made.metadata, "truncated": False},
        )

    async def clean_up(self, part: ToolPart) -> None:
        await self._edits.clean_up(part)


def _planner(input: dict[str, Any], context: ToolContext) -> Planner:
    if input["oldString"] == input["newString"]:
        raise ToolFailure("oldString and newString are the same: there is nothing to change.")
    return partial(
        _plan,
        resolved(context, input["filePath"]),
        input["oldString"],
        input["newString"],
        bool(input.get("replaceAll", False)),
    )


def _plan(path: Path, old: str, new: str, everywhere: bool, contents: Contents) -> Plan:
    before = contents[path]
    after = _after(path, before, old, new, everywhere)
    changed = difference(str(path), before, after)
    metadata: dict[str, Any] = {"diagnostics": {}, "diff": changed.patch, "filediff": changed.wire}
    return Plan((FileEdit(path, before, after),), metadata)


def _after(path: Path, before: bytes | None, old: str, new: str, everywhere: bool) -> bytes:
    if before is None:
        if old:
            raise ToolFailure(f"There is no {path}. To make it, use the write tool, or an empty oldString.")
        return encoded(new)
    source = SourceText.decode(before, str(path))
    if not old:
        if source.text:
            raise ToolFailure(
                f"oldString is empty, but {path} is not. Give the text to replace, or use the write tool to replace all of it."
            )
        return source.rewritten(new)
    return source.replaced(replacements(source.text, old, new, everywhere=everywhere, name=str(path)))
