"""The git program: how it is run, and what its diffs say.

Rules: git never asks, never fetches, never waits for an editor or a pager; a name is a name and never a pattern or an
option; nothing of the user's configuration changes the form of what we parse; a repository is only read unless the
caller means to write.
"""

import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from holdfast.agent.programs import Ended, run
from holdfast.core.errors import Unavailable

SECONDS_MAX: Final = 30.0
OUTPUT_BYTES_MAX: Final = 64 * 1024 * 1024
FULL_CONTEXT: Final = 2**31 - 1
_NAMES_BYTES_MAX: Final = 256 * 1024

_NOT_FOR_GIT: Final = ("GIT_", "HOLDFAST_", "OPENCODE_")
_MANNERS: Final = {
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
_SETTINGS: Final = (
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.quotePath=false"),
    *("-c", "diff.interHunkContext=0"),
    *("-c", "diff.relative=false"),
    *("-c", "diff.suppressBlankEmpty=false"),
)
_DIFF: Final = (
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--ignore-submodules=dirty",
    "--submodule=short",
    "--src-prefix=a/",
    "--dst-prefix=b/",
    f"-O{os.devnull}",
)

_HUNK: Final = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")

GITLINK: Final = 0o160000
SYMLINK: Final = 0o120000


class GitFailed(Unavailable):
    """git ended with a status that the caller did not expect; `said` is what it wrote to stderr."""

    def __init__(self, command: str, status: int, said: str) -> None:
        reason = said.splitlines()[-1][:300] if said else f"exit status {status}"
        super().__init__(f"git {command} failed: {reason}", hint="Try again; if it stays, run git there by hand.")
        self.status = status
        self.said = said


class GitSlow(Unavailable):
    """git took longer than it may, and was stopped."""


def is_installed() -> bool:
    return shutil.which("git") is not None


class Git(msgspec.Struct, frozen=True, kw_only=True):
    """git as it is run in one directory. `variables` (GIT_DIR and the like) are added to its environment."""

    directory: str
    variables: Mapping[str, str] = {}

    def having(self, **variables: str) -> "Git":
        return Git(directory=self.directory, variables={**self.variables, **variables})

    async def run(
        self,
        *arguments: str,
        input: bytes | None = None,
        accept: Sequence[int] = (0,),
        seconds_max: float = SECONDS_MAX,
        output_bytes_max: int = OUTPUT_BYTES_MAX,
    ) -> Ended:
        """Raises GitFailed for an exit status other than those in `accept` (unless the output was cut), Unavailable when
        there is no git or it takes too long."""
        command = arguments[0]
        try:
            ended = await run(
                *("git", "--no-pager", *_SETTINGS, *arguments),
                directory=self.directory,
                environment=self.environment(),
                seconds_max=seconds_max,
                output_bytes_max=output_bytes_max,
                input=input,
            )
        except TimeoutError:
            raise GitSlow(f"git {command} took longer than {seconds_max:.0f} s and was stopped.") from None
        except FileNotFoundError as error:
            if not os.path.isdir(self.directory):
                raise Unavailable(f"The directory {self.directory} is gone.") from error
            raise Unavailable("The git program is not installed.", hint="Install git.") from error
        if ended.status not in accept and not ended.is_cut:
            raise GitFailed(command, ended.status, ended.errors)
        return ended

    async def line(self, *arguments: str) -> str | None:
        """The one line a command answers with; None if it answers nothing or fails."""
        ended = await self.run(*arguments, accept=range(256))
        text = ended.output.decode(errors="replace").strip()
        return text if ended.status == 0 and text else None

    async def names(self, *arguments: str, accept: Sequence[int] = (0,)) -> list[bytes]:
        """File names of a command that separates them by NUL."""
        return split((await self.run(*arguments, accept=accept)).output)

    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_GIT)}
        return {**inherited, **_MANNERS, **self.variables}


def split(output: bytes) -> list[bytes]:
    return [name for name in output.split(b"\0") if name]


# --- diffs ------------------------------------------------------------------------------------------------------


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to one file. `name` is relative to the root of the work tree. Modes are git's, 0 where the file was or is
    not; `old_id` and `new_id` name the contents (`new_id` is all zeros for content that only the work tree has)."""

    name: bytes
    status: Literal["added", "deleted", "modified"]
    additions: int = 0
    deletions: int = 0
    is_binary: bool = False
    old_mode: int
    new_mode: int
    old_id: str
    new_id: str

    @property
    def file(self) -> str:
        """The name as text; a name may be any bytes."""
        return self.name.decode(errors="replace")


async def changes(git: Git, *between: str, names: Sequence[str] = ()) -> list[Change]:
    """The changed files, by name, or those of `names`. `between` is a diff command: `("diff-tree", "-r", old, new)` or
    `("diff", base)`."""
    command, *rest = between
    ended = await git.run(command, *_DIFF, "--raw", "--numstat", "--no-abbrev", "-z", *rest, "--", *names)
    return list(_parse_changes(ended.output))


def _parse_changes(output: bytes) -> Iterator[Change]:
    raw: dict[bytes, tuple[list[bytes], bytes]] = {}
    counts: dict[bytes, tuple[bytes, bytes]] = {}
    fields = iter(output.split(b"\0"))
    for field in fields:
        if field.startswith(b":"):
            *meta, status = field[1:].split(b" ")
            name = next(fields)
            if status != b"U" or name not in raw:
                raw[name] = (meta, status)
        elif field:
            added, deleted, name = field.split(b"\t", 2)
            counts[name] = (added, deleted)
    for name, ((old_mode, new_mode, old_id, new_id), status) in raw.items():
        added, deleted = counts.get(name, (b"0", b"0"))
        yield Change(
            name=name,
            status="added" if status == b"A" else "deleted" if status == b"D" else "modified",
            additions=int(added) if added != b"-" else 0,
            deletions=int(deleted) if deleted != b"-" else 0,
            is_binary=added == b"-",
            old_mode=int(old_mode, 8),
            new_mode=int(new_mode, 8),
            old_id=old_id.decode(),
            new_id=new_id.decode(),
        )


async def patches(
    git: Git,
    wanted: Sequence[Change],
    *between: str,
    context: int = 3,
    bytes_max: int,
) -> dict[bytes, str]:
    """The unified diff of each wanted file in git's form, by name. Files whose diff does not fit any more are missing."""
    if not wanted:
        return {}
    command, *rest = between
    asked = list(_that_fit_a_command_line(wanted))
    ended = await git.run(
        *(command, *_DIFF, "--patch", f"--unified={context}", *rest, "--"),
        *(os.fsdecode(change.name) for change in asked),
        output_bytes_max=bytes_max,
    )
    sections = list(_sections(ended.output))
    if ended.is_cut and sections:
        sections.pop()
    found: dict[bytes, str] = {}
    position = 0
    for change in asked:
        # A file that became a link (or the reverse) has two sections: it went away, and it came.
        count = 2 if change.old_mode and change.new_mode and (change.old_mode ^ change.new_mode) & 0o170000 else 1
        if position + count > len(sections):
            break
        found[change.name] = b"".join(sections[position : position + count]).decode(errors="replace")
        position += count
    return found


def _that_fit_a_command_line(wanted: Sequence[Change]) -> Iterator[Change]:
    left = _NAMES_BYTES_MAX
    for change in wanted:
        left -= len(change.name) + 1
        if left < 0:
            return
        yield change


def _sections(output: bytes) -> Iterator[bytes]:
    """One per `diff --git` line. A line inside a hunk never begins with a `d`."""
    lines: list[bytes] = []
    for line in io.BytesIO(output):  # ends a line at a newline only: carriage returns belong to files
        if line.startswith(b"diff --git ") and lines:
            yield b"".join(lines)
            lines = []
        if lines or line.startswith(b"diff --git "):
            lines.append(line)
    if lines:
        yield b"".join(lines)


class Hunk(msgspec.Struct, frozen=True):
    """`lines` begin with a space, `+`, `-` or `\\`, and have no line end."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: tuple[str, ...]


def hunks(patch: str) -> tuple[Hunk, ...]:
    """Of a unified diff of one file; what stands before the first hunk is left out."""
    found: list[Hunk] = []
    head: re.Match[str] | None = None
    lines: list[str] = []

    def close() -> None:
        if head is not None:
            old, old_lines, new, new_lines = head.groups()
            counts = (int(old), int(old_lines or 1), int(new), int(new_lines or 1))
            found.append(Hunk(*counts, tuple(lines)))

    for line in patch.removesuffix("\n").split("\n"):
        if (matched := _HUNK.match(line)) is not None:
            close()
            head, lines = matched, []
        elif line.startswith("diff --git "):
            close()
            head = None
        elif head is not None:
            lines.append(line)
    close()
    return tuple(found)


def indexed(file: str, patch: str) -> str:
    """A git patch in the form in which session diffs show it: `Index:` and the plain file name, every count written out."""
    head = f"Index: {file}\n{'=' * 67}\n--- {file}\t\n+++ {file}\t\n"
    return head + "".join(
        f"@@ -{hunk.old_start},{hunk.old_lines} +{hunk.new_start},{hunk.new_lines} @@\n"
        + "".join(f"{line}\n" for line in hunk.lines)
        for hunk in hunks(patch)
    )
