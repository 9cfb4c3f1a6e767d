"""The tool `apply_patch`: one patch for several files, which happens as a whole or not at all."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from holdfast.agent.permissions import Ask
from holdfast.agent.tools import patch_text
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.diagnostics import note_on_file
from holdfast.agent.tools.differences import PATCH_BYTES_MAX, difference
from holdfast.agent.tools.file_edits import Contents, FileEdit, FileEdits, Plan, Planner, formatting_note
from holdfast.agent.tools.patch_text import AddFile, DeleteFile, Section, UpdateFile
from holdfast.agent.tools.places import resolved, shown
from holdfast.agent.tools.source_text import SourceText, encoded
from holdfast.core.messages import ToolPart

_LETTERS = {"add": "A", "update": "M", "move": "M", "delete": "D"}


class ApplyPatch:
    id = "apply_patch"
    repeatable = True
    description = """\
Changes several files at once: all of them, or, if something does not fit, none. The form of a patch:

*** Begin Patch
*** Add File: new.txt
+each line of the new file after a plus
*** Update File: src/app.py
*** Move to: src/main.py
@@ def greet():
 a line that stays, after a space
-a line that goes
+a line that comes
*** Delete File: old.txt
*** End Patch

- Paths are absolute or relative to the project directory. `*** Move to:` is only for a file that gets another name.
- Give about three lines that stay before and after each change, as they are in the file. If they are at more than one
  place, name a line above them (a function, a class) after `@@`. Changes of a file come in its order, each after an `@@`.
- Files that are updated or deleted have to be read in this session before, and again if somebody else changed them.
- One section per file."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"patchText": {"type": "string", "description": "The whole patch, with its first and last line"}},
        "required": ["patchText"],
    }

    def __init__(self, edits: FileEdits) -> None:
        self._edits = edits

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return await self._edits.asks(*_planner(input, context), context)

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        made = await self._edits.run(*_planner(input, context), context)
        metadata = made.metadata
        files: list[dict[str, Any]] = metadata["files"]
        names = [f"{_LETTERS[file['type']]} {file['relativePath']}" for file in files]
        title = files[0]["relativePath"] if len(files) == 1 else f"{len(files)} files"
        output = "\n".join(("The patch was applied. Changed files:", *names)) + formatting_note(metadata)
        for file in (file for file in files if file["type"] != "delete"):
            output += note_on_file(made.errors, file.get("movePath", file["filePath"]), file["relativePath"])
        return ToolResult(title=title, output=output, metadata={**metadata, "truncated": False})

    async def clean_up(self, part: ToolPart) -> None:
        await self._edits.clean_up(part)


class _Step(NamedTuple):
    """A section with its paths resolved."""

    section: Section
    path: Path
    target: Path


def _planner(input: dict[str, Any], context: ToolContext) -> tuple[list[str], Planner]:
    steps = [_step(section, context) for section in patch_text.parse(input["patchText"])]
    paths = [path for step in steps for path in dict.fromkeys((step.path, step.target))]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise ToolFailure(
            f"{twice} is in two sections of the patch. Put all changes of a file into one. Nothing was changed."
        )
    return [str(path) for path in paths], partial(_plan, steps, {path: shown(context, path) for path in paths})


def _step(section: Section, context: ToolContext) -> _Step:
    path = resolved(context, section.path)
    target = resolved(context, section.move_to) if isinstance(section, UpdateFile) and section.move_to else path
    return _Step(section, path, target)


def _plan(steps: Iterable[_Step], names: dict[Path, str], contents: Contents) -> Plan:
    edits: list[FileEdit] = []
    files: list[dict[str, Any]] = []
    for step in steps:
        kind, changed = _edits(step, contents)
        edits += changed
        before, after = contents[step.path], changed[0].after
        diff = difference(str(step.path), before, after)
        file = {
            "filePath": str(step.path),
            "relativePath": names[step.target],
            "type": kind,
            "patch": diff.patch,
            "additions": diff.additions,
            "deletions": diff.deletions,
        }
        files.append({**file, "movePath": str(step.target)} if kind == "move" else file)
    diffs = "\n".join(file["patch"] for file in files)
    if len(diffs.encode()) > PATCH_BYTES_MAX:
        diffs = ""
        files = [{**file, "patch": ""} for file in files]
    return Plan(tuple(edits), {"diagnostics": {}, "diff": diffs, "files": files})


def _edits(step: _Step, contents: Contents) -> tuple[Literal["add", "update", "move", "delete"], list[FileEdit]]:
    """The first of them is the one that gives the new content."""
    path, target = step.path, step.target
    before = contents[path]
    if isinstance(step.section, AddFile):
        if before:
            raise ToolFailure(f"{path} exists already. Update it, or choose another name. Nothing was changed.")
        return "add", [FileEdit(path, before, encoded(step.section.content))]
    if before is None:
        raise ToolFailure(f"There is no {path}. Nothing was changed.")
    if isinstance(step.section, DeleteFile):
        return "delete", [FileEdit(path, before, None)]
    after = before
    if step.section.hunks:
        source = SourceText.decode(before, str(path))
        after = source.replaced(patch_text.replacements(source.text, step.section.hunks, str(path)))
    if target == path:
        return "update", [FileEdit(path, before, after)]
    if contents[target] is not None:
        raise ToolFailure(f"{path} cannot be moved to {target}, which exists. Nothing was changed.")
    return "move", [FileEdit(target, None, after, attributes_of=path), FileEdit(path, before, None)]
