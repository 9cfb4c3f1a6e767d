"""The tool `write`: gives a file a content, whatever it had before."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.agent.tools.diagnostics import note_on_file, note_on_others
from holdfast.agent.tools.differences import difference
from holdfast.agent.tools.file_edits import Contents, FileEdit, FileEdits, Plan, Planner, formatting_note
from holdfast.agent.tools.places import resolved, shown
from holdfast.agent.tools.source_text import SourceText, encoded
from holdfast.core.messages import ToolPart


class Write:
    id = "write"
    repeatable = True
    description = """\
Writes a file: makes a new one, with the directories on its way, or replaces all of an existing one.

- An existing file has to be read in this session before, and again if it changed since: else the call is refused.
- To change a part of a file, use the edit tool: it is quicker, and cannot lose the rest.
- The content is written as it is given; end it with a newline. A file with Windows line ends or a byte order mark keeps them.
- Write documentation files only if the user wants them."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "content": {"type": "string", "description": "All that is to be in the file"},
            "filePath": {
                "type": "string",
                "minLength": 1,
                "description": "The file, absolute or relative to the project directory",
            },
        },
        "required": ["content", "filePath"],
    }

    def __init__(self, edits: FileEdits) -> None:
        self._edits = edits

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return await self._edits.asks([input["filePath"]], _planner(input, context), context)

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        path = resolved(context, input["filePath"])
        made = await self._edits.run([input["filePath"]], _planner(input, context), context)
        metadata = made.metadata
        output = f"{'Replaced' if metadata['exists'] else 'Made'} {path}.{formatting_note(metadata)}"
        output += note_on_file(made.errors, str(path)) + note_on_others(made.errors, str(path))
        return ToolResult(title=shown(context, path), output=output, metadata={**metadata, "truncated": False})

    async def clean_up(self, part: ToolPart) -> None:
        await self._edits.clean_up(part)


def _planner(input: dict[str, Any], context: ToolContext) -> Planner:
    return partial(_plan, resolved(context, input["filePath"]), input["content"])


def _plan(path: Path, content: str, contents: Contents) -> Plan:
    before = contents[path]
    after = encoded(content) if before is None else SourceText.decode(before, str(path)).rewritten(content)
    changed = difference(str(path), before, after)
    metadata: dict[str, Any] = {
        "diagnostics": {},
        "filepath": str(path),
        "exists": before is not None,
        "diff": changed.patch,
        "filediff": changed.wire,
    }
    return Plan((FileEdit(path, before, after),), metadata)
