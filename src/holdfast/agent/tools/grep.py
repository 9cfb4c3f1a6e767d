"""The tool `grep`: lines of files by a regular expression. Files that hold secrets are not searched."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from holdfast.agent.permissions import Ask
from holdfast.agent.search import find_text
from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.agent.tools.places import resolved
from holdfast.agent.tools.results import result
from holdfast.agent.tools.searching import asks, directory_of, failures_told
from holdfast.core.messages import ToolPart
from holdfast.core.workspace import TextMatch

MATCHES_MAX: Final = 100
LINE_CHARACTERS_MAX: Final = 500


class Grep:
    id = "grep"
    repeatable = True
    description = f"""\
Searches the contents of files for a regular expression, such as `def \\w+_error` or `TODO`.

- Answers the matching lines with file and line number, at most {MATCHES_MAX}; long lines are cut.
- `include` limits the search to files by a pattern of their names: `*.py`, `src/**/*.{{ts,tsx}}`.
- What git ignores, binary files and `.env` files are not searched; read a `.env` file with the read tool.
- To find files by name, use the glob tool; to count or replace, a program with the bash tool."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "pattern": {"type": "string", "minLength": 1, "description": "The regular expression"},
            "path": {
                "type": "string",
                "description": "The directory to search, absolute or relative; leave it out for the project directory",
            },
            "include": {"type": "string", "minLength": 1, "description": "The pattern of file names to search in"},
        },
        "required": ["pattern"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return asks(context, resolved(context, input.get("path", "")), "grep", input["pattern"], input)

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        directory = await directory_of(context, input.get("path", ""))
        with failures_told():
            matches = await find_text(
                str(directory), input["pattern"], matches_max=MATCHES_MAX + 1, include=input.get("include")
            )
        is_cut = len(matches) > MATCHES_MAX
        open_matches = sorted(
            (match for match in matches[:MATCHES_MAX] if not _is_secret(match.path.text)),
            key=lambda match: (match.path.text, match.line_number),
        )
        lines = [f"Found {len(open_matches)} matching lines."] if open_matches else ["Nothing found."]
        for path, in_file in groupby(open_matches, key=lambda match: match.path.text):
            lines += ["", f"{directory / path}:", *map(_line, in_file)]
        if is_cut:
            lines += ["", f"(There are more than {MATCHES_MAX}. Use a narrower pattern, path or include.)"]
        return await result(
            context,
            title=input["pattern"],
            output="\n".join(lines),
            metadata={"matches": len(open_matches)},
            truncated=is_cut,
        )

    async def clean_up(self, part: ToolPart) -> None:
        """It only read."""


def _line(match: TextMatch) -> str:
    text = match.lines.text.rstrip("\r\n")
    if len(text) > LINE_CHARACTERS_MAX:
        text = f"{text[:LINE_CHARACTERS_MAX]} … (cut)"
    return f"  {match.line_number}: {text}"


def _is_secret(path: str) -> bool:
    """Those that reading asks the user for, by default."""
    name = Path(path).name
    return (name.endswith(".env") or ".env." in name) and not name.endswith(".env.example")
