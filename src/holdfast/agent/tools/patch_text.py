"""The patch format of `apply_patch`: what it says, and where its lines are in a file. Pure.

    *** Begin Patch
    *** Add File: PATH                 then every line of it, after a `+`
    *** Delete File: PATH
    *** Update File: PATH
    *** Move to: PATH                  optional
    @@ LINE                            optional: what follows comes after this line of the file
     a line that stays
    -a line that goes
    +a line that comes
    *** End of File                    optional: the lines before are the last ones
    *** End Patch

Lines are found exactly, or with other white space as in `replacing`. Lines that stay are never written. Without `@@`, the
lines of a change must be at one place only. There is no way to write that a file ends without a newline: it ends as before.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal, NoReturn

import msgspec

from holdfast.agent.tools.base import ToolFailure
from holdfast.agent.tools.replacing import Alike, same_but_ends, shifted
from holdfast.agent.tools.source_text import Replacement

_BEGIN: Final = "*** Begin Patch"
_END: Final = "*** End Patch"
_ADD: Final = "*** Add File:"
_DELETE: Final = "*** Delete File:"
_UPDATE: Final = "*** Update File:"
_MOVE: Final = "*** Move to:"
_END_OF_FILE: Final = "*** End of File"

_PLACES_NAMED_MAX: Final = 10


class Line(msgspec.Struct, frozen=True):
    kind: Literal[" ", "-", "+"]
    text: str


class Hunk(msgspec.Struct, frozen=True, kw_only=True):
    """`after` are the lines of the file behind which to look for it, one after the other."""

    after: tuple[str, ...] = ()
    lines: tuple[Line, ...]
    at_end: bool = False

    @property
    def old(self) -> list[str]:
        return [line.text for line in self.lines if line.kind != "+"]

    @property
    def new(self) -> list[str]:
        return [line.text for line in self.lines if line.kind == "+"]


class AddFile(msgspec.Struct, frozen=True):
    path: str
    content: str


class DeleteFile(msgspec.Struct, frozen=True):
    path: str


class UpdateFile(msgspec.Struct, frozen=True):
    path: str
    move_to: str | None
    hunks: tuple[Hunk, ...]


Section = AddFile | DeleteFile | UpdateFile


# --- reading it -------------------------------------------------------------------------------------------------


def parse(patch: str) -> tuple[Section, ...]:
    """Raises ToolFailure, with the line of the patch that is wrong."""
    reader = _Reader(patch)
    sections = tuple(reader.sections())
    if not sections:
        raise ToolFailure("The patch is empty: put at least one file section between its first and its last line.")
    return sections


class _Reader:
    def __init__(self, patch: str) -> None:
        self._lines = patch.replace("\r\n", "\n").split("\n")
        marks = [line.strip() for line in self._lines]
        if _BEGIN not in marks or _END not in marks[marks.index(_BEGIN) :]:
            raise ToolFailure(f"A patch begins with the line `{_BEGIN}` and ends with the line `{_END}`.")
        self._at = marks.index(_BEGIN) + 1
        self._end = len(marks) - 1 - marks[::-1].index(_END)

    def sections(self) -> Iterator[Section]:
        while (line := self._next()) is not None:
            if line.startswith(_ADD):
                yield AddFile(self._path(line, _ADD), self._content())
            elif line.startswith(_DELETE):
                yield DeleteFile(self._path(line, _DELETE))
            elif line.startswith(_UPDATE):
                path = self._path(line, _UPDATE)
                following = self._peek()
                move_to = None
                if following is not None and following.startswith(_MOVE):
                    self._at += 1
                    move_to = self._path(following, _MOVE)
                hunks = tuple(self._hunks())
                if not hunks and move_to is None:
                    self._wrong(f"there are no changes for {path}")
                yield UpdateFile(path, move_to, hunks)
            elif line.strip():
                self._wrong(f"expected `{_ADD}`, `{_DELETE}` or `{_UPDATE}` and a path, not {line[:100]!r}")

    def _content(self) -> str:
        lines: list[str] = []
        while (line := self._peek()) is not None and not line.startswith("*** "):
            self._at += 1
            if not line.startswith("+"):
                if not line.strip() and self._only_blank_until_section():
                    continue
                self._wrong("each line of a new file begins with `+`")
            lines.append(f"{line[1:]}\n")
        return "".join(lines)

    def _hunks(self) -> Iterator[Hunk]:
        after: list[str] = []
        lines: list[Line] = []
        begun = at_end = False
        while (line := self._peek()) is not None and (line.startswith(_END_OF_FILE) or not line.startswith("*** ")):
            self._at += 1
            if line.startswith("@@"):
                if lines:
                    yield Hunk(after=tuple(after), lines=tuple(lines), at_end=at_end)
                    after, lines, at_end = [], [], False
                begun = True
                anchor = line[2:].removeprefix(" ").removesuffix(" @@") if line != "@@ @@" else ""
                if anchor.strip() and not _is_range(line):
                    after.append(anchor)
            elif line.startswith(_END_OF_FILE):
                at_end = True
            elif at_end:
                if line.strip():
                    self._wrong(f"after `{_END_OF_FILE}` there can be no more lines of this change")
            elif not line:
                if not self._only_blank_until_section():
                    lines.append(Line(" ", ""))
            elif line[0] in " -+":
                lines.append(Line("+" if line[0] == "+" else "-" if line[0] == "-" else " ", line[1:]))
            else:
                self._wrong("each line of a change begins with a space, `-`, `+` or `@@`")
        if lines:
            yield Hunk(after=tuple(after), lines=tuple(lines), at_end=at_end)
        elif begun:
            self._wrong("there are no lines after `@@`")

    def _only_blank_until_section(self) -> bool:
        """Blank lines between two sections belong to neither."""
        for line in self._lines[self._at : self._end]:
            if line.strip():
                return line.startswith("*** ") and not line.startswith(_END_OF_FILE)
        return True

    def _path(self, line: str, mark: str) -> str:
        path = line.removeprefix(mark).strip()
        if not path:
            self._wrong(f"there is no path after `{mark}`")
        return path

    def _peek(self) -> str | None:
        return self._lines[self._at] if self._at < self._end else None

    def _next(self) -> str | None:
        line = self._peek()
        self._at += 1
        return line

    def _wrong(self, what: str) -> NoReturn:
        raise ToolFailure(f"Line {self._at} of the patch is wrong: {what}. Nothing was changed.")


def _is_range(line: str) -> bool:
    """`@@ -1,2 +1,3 @@`, as in other diffs: not a line of the file, and its numbers are often wrong."""
    words = line.split()
    return len(words) >= 4 and words[1][:1] == "-" and words[2][:1] == "+" and words[3] == "@@"


# --- finding the place ------------------------------------------------------------------------------------------


class _Place(msgspec.Struct, frozen=True):
    """The line where a hunk begins, and its new lines as they fit there."""

    at: int
    new: list[str]


def replacements(text: str, hunks: Sequence[Hunk], name: str) -> tuple[Replacement, ...]:
    """What the hunks change in a text, in its order. Raises ToolFailure; `name` is the file's."""
    file = _File(text)
    changes: list[Replacement] = []
    cursor = 0
    for number, hunk in enumerate(hunks, start=1):
        place = _find(file.lines, hunk, cursor, f"Change {number} of {len(hunks)} for {name}")
        at, new = place.at, iter(place.new)
        for run in _runs(hunk.lines):
            gone = sum(line.kind == "-" for line in run)
            come = [next(new) for line in run if line.kind == "+"]
            if run[0].kind != " ":
                changes.append(file.replaced(at, at + gone, come))
            at += sum(line.kind != "+" for line in run)
        cursor = at
    return tuple(changes)


def _runs(lines: Sequence[Line]) -> Iterator[Sequence[Line]]:
    """Lines that stay, then lines that change, and so on."""
    borders = [
        0,
        *(n for n in range(1, len(lines)) if (lines[n].kind == " ") != (lines[n - 1].kind == " ")),
        len(lines),
    ]
    for start, end in pairwise(borders):
        yield lines[start:end]


class _File:
    def __init__(self, text: str) -> None:
        self._text = text
        self.lines = text.split("\n")
        self._ends_with_newline = text.endswith("\n")
        if not self.lines[-1]:
            self.lines.pop()
        self._starts = [0]
        for line in self.lines:
            self._starts.append(min(self._starts[-1] + len(line) + 1, len(text)))

    def replaced(self, first: int, last: int, new: Sequence[str]) -> Replacement:
        """Lines `first` to `last` (not included) by others."""
        start, end = self._starts[first], self._starts[last]
        if last < len(self.lines) or self._ends_with_newline or not self._text:
            return Replacement(start, end, "".join(f"{line}\n" for line in new))
        if first == len(self.lines):
            return Replacement(end, end, "".join(f"\n{line}" for line in new))
        if not new and first:
            start -= 1
        return Replacement(start, end, "\n".join(new))


def _find(lines: Sequence[str], hunk: Hunk, cursor: int, name: str) -> _Place:
    for anchor in hunk.after:
        cursor = _after(lines, anchor, cursor, name)
    old, new = hunk.old, hunk.new
    if not old:  # only new lines: behind the line named, or at the end
        return _Place(cursor if hunk.after and not hunk.at_end else len(lines), new)
    for alike in (_exactly, same_but_ends, shifted):
        found = list(_places(lines, old, new, cursor, alike, hunk.at_end))
        if len(found) == 1 or (found and hunk.after):
            return found[0]
        if found:
            numbers = ", ".join(str(place.at + 1) for place in found[:_PLACES_NAMED_MAX])
            raise ToolFailure(
                f"{name} fits at {len(found)} places (lines {numbers}). Nothing was changed. Add lines around it, or name a "
                "line before it with `@@`."
            )
    quoted = "\n".join(old[:20])
    raise ToolFailure(
        f"{name} does not fit: these lines are not in the file{_behind(cursor)}. Nothing was changed. Read the file again and "
        f"write the patch for what is there.\n{quoted}"
    )


def _places(
    lines: Sequence[str], old: Sequence[str], new: Sequence[str], cursor: int, alike: Alike, at_end: bool
) -> Iterator[_Place]:
    last = len(lines) - len(old)
    first = old[0].strip()
    for at in range(max(cursor, last) if at_end else cursor, last + 1):
        if lines[at].strip() == first:
            fitting = alike(lines[at : at + len(old)], old, new)
            if fitting is not None:
                yield _Place(at, fitting)


def _after(lines: Sequence[str], anchor: str, cursor: int, name: str) -> int:
    for same in (str, str.strip):
        for at in range(cursor, len(lines)):
            if same(lines[at]) == same(anchor):
                return at + 1
    raise ToolFailure(
        f"{name} is to come after the line {anchor[:200]!r}, which is not in the file{_behind(cursor)}. Nothing was changed."
    )


def _behind(cursor: int) -> str:
    return f" behind line {cursor}, up to which earlier changes go" if cursor else ""


def _exactly(there: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str] | None:
    return list(new) if list(there) == list(old) else None
