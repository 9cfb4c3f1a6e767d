"""What is wrong in the code of files that tools read or changed, as language servers see it, and how the LLM is told.

The words and tags are those of OpenCode, which LLMs and clients may know. Only errors are told.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import msgspec

from holdfast.agent.tools.base import FileChange
from holdfast.core.wire import Wire
from holdfast.core.workspace import SymbolRange

ERRORS_MAX: Final = 20
"""Told of one file."""
OTHER_FILES_MAX: Final = 5


class CodeError(Wire):
    """In the form of the language server protocol: lines and characters count from 0, severity 1 is an error."""

    range: SymbolRange
    severity: Literal[1]
    message: str
    source: str | None = None
    code: int | str | None = None


class FileErrors(msgspec.Struct, frozen=True):
    """`more` is how many there are beside these."""

    errors: tuple[CodeError, ...] = ()
    more: int = 0


class CodeChecks(Protocol):
    """Who looks at files of a directory. Paths are absolute, without links in them. None of these raises."""

    def take(self, directory: Path, path: str) -> bool:
        """Whether anybody looks at this one. Costs next to nothing."""
        ...

    def read(self, directory: Path, path: str) -> None:
        """A tool read this file. Returns at once."""
        ...

    async def changed(self, directory: Path, changes: Sequence[FileChange]) -> Mapping[str, FileErrors]:
        """A tool made these changes. The errors in all files that are known to have some, after a bounded time at most."""
        ...


def joined(all_found: Iterable[Mapping[str, FileErrors]]) -> dict[str, FileErrors]:
    """What several found, each error once."""
    joined: dict[str, FileErrors] = {}
    for found in all_found:
        for path, new in found.items():
            old = joined.get(path, FileErrors())
            errors = tuple(dict.fromkeys((*old.errors, *new.errors)))
            left_out = max(0, len(errors) - ERRORS_MAX)
            joined[path] = FileErrors(errors[:ERRORS_MAX], old.more + new.more + left_out)
    return joined


def note_on_file(found: Mapping[str, FileErrors], path: str, name: str = "this file") -> str:
    """For the end of an output; "" if all is well. `name` is what the file is called in the sentence."""
    errors = found.get(path)
    return f"\n\nLSP errors detected in {name}, please fix:\n{_report(path, errors)}" if errors is not None else ""


def note_on_others(found: Mapping[str, FileErrors], path: str) -> str:
    """The same of all other files."""
    others = ((other, errors) for other, errors in found.items() if other != path)
    return "".join(f"\n\nLSP errors detected in other files:\n{_report(other, errors)}" for other, errors in others)


def worth_telling(found: Mapping[str, FileErrors], changed: Iterable[str]) -> dict[str, FileErrors]:
    """Of the changed files, and of some others."""
    own = {path: found[path] for path in changed if path in found}
    others = [path for path in found if path not in own][:OTHER_FILES_MAX]
    return {**own, **{path: found[path] for path in others}}


def wire(found: Mapping[str, FileErrors]) -> dict[str, Any]:
    """For the metadata of a call, as clients know them."""
    return {path: msgspec.to_builtins(errors.errors) for path, errors in found.items()}


def _report(path: str, found: FileErrors) -> str:
    lines = [
        f"ERROR [{error.range.start.line + 1}:{error.range.start.character + 1}] {error.message}"
        for error in found.errors
    ]
    if found.more:
        lines.append(f"... and {found.more} more")
    return "\n".join((f'<diagnostics file="{path}">', *lines, "</diagnostics>"))
