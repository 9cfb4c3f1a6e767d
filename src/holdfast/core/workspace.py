"""What a client sees of a project's directory: files, matches, version control, terminals. Shapes as in OpenCode's V1 API.

Paths are relative to the project directory, or to the root of the git work tree where version control is meant, with
`/` between their parts; a directory's path ends with `/`.
"""

from typing import Literal

import msgspec

from holdfast.core.wire import Wire

FileChangeStatus = Literal["added", "deleted", "modified"]

# --- files ------------------------------------------------------------------------------------------------------


class FileNode(Wire):
    """An entry of a directory. `ignored`: version control leaves it out."""

    name: str
    path: str
    absolute: str
    type: Literal["file", "directory"]
    ignored: bool


class PatchHunk(Wire):
    """`lines` begin with a space, `+`, `-` or `\\`."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: tuple[str, ...]


class FilePatch(Wire):
    old_file_name: str
    new_file_name: str
    old_header: str | None = None
    new_header: str | None = None
    hunks: tuple[PatchHunk, ...]
    index: str | None = None


class FileContent(Wire):
    """A file as it is: text, or anything else in base64 with its `mime_type`. `diff` and `patch` are what changed since the
    last commit, if anything did."""

    type: Literal["text", "binary"]
    content: str
    diff: str | None = None
    patch: FilePatch | None = None
    encoding: Literal["base64"] | None = None
    mime_type: str | None = None


class FileChange(Wire):
    """A file that differs from the last commit. (`File` in OpenCode's schema.)"""

    path: str
    added: int
    removed: int
    status: FileChangeStatus


# --- search -----------------------------------------------------------------------------------------------------


class Text(Wire):
    text: str


class Submatch(Wire):
    """`start` and `end` are byte offsets in the line."""

    match: Text
    start: int
    end: int


class TextMatch(Wire):
    """A line that a pattern matches. Lines count from 1; `absolute_offset` is where it begins in the file, in bytes."""

    path: Text
    lines: Text
    line_number: int = msgspec.field(name="line_number")
    absolute_offset: int = msgspec.field(name="absolute_offset")
    submatches: tuple[Submatch, ...]


class SymbolPosition(Wire):
    line: int
    character: int


class SymbolRange(Wire):
    start: SymbolPosition
    end: SymbolPosition


class SymbolLocation(Wire):
    uri: str
    range: SymbolRange


class Symbol(Wire):
    """A name in the code; `kind` is the number that the language server protocol gives it."""

    name: str
    kind: int
    location: SymbolLocation


class LanguageServerStatus(Wire):
    """`root` is relative to the directory, "" for the directory itself."""

    id: str
    name: str
    root: str
    status: Literal["connected", "error"]


class FormatterStatus(Wire):
    """`enabled`: its program is there. `extensions` are those of the files that it is for, as `.py`."""

    name: str
    extensions: tuple[str, ...]
    enabled: bool


# --- version control --------------------------------------------------------------------------------------------


class VcsInfo(Wire):
    """`branch` is None for a detached head and outside of git."""

    branch: str | None = None
    default_branch: str | None = msgspec.field(name="default_branch", default=None)


class VcsFileStatus(Wire):
    file: str
    additions: int
    deletions: int
    status: FileChangeStatus


class VcsFileDiff(Wire):
    """`patch` is a unified diff in git's form; None where it would be too large."""

    file: str
    patch: str | None = None
    additions: int
    deletions: int
    status: FileChangeStatus | None = None


# --- terminals --------------------------------------------------------------------------------------------------


class Pty(Wire):
    """A terminal and the program in it."""

    id: str
    title: str
    command: str
    args: tuple[str, ...]
    cwd: str
    status: Literal["running", "exited"]
    pid: int
    exit_code: int | None = None


class PtySize(Wire):
    rows: int
    cols: int


class PtyTicket(Wire):
    """Opens one connection to one terminal, once, within `expires_in` seconds."""

    ticket: str
    expires_in: int = msgspec.field(name="expires_in")


class Shell(Wire):
    """`acceptable`: commands can be given to it as to `sh`."""

    path: str
    name: str
    acceptable: bool
