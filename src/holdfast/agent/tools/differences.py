"""What an edit changes, as people read it: a unified diff and two counts. Pure.

Lines end at `\\n` and nowhere else. The time it takes is bounded: where two long texts have nothing to do with each other,
the diff says that everything in between was replaced.
"""

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import takewhile
from typing import Any, Final, NamedTuple

import msgspec

PATCH_BYTES_MAX: Final = 256 * 1024
"""A longer diff is left out: it is recorded several times."""

_CONTEXT: Final = 3
_COMPARISONS_MAX: Final = 4_000_000
_RULE: Final = "=" * 67


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """`patch` is "" if it would be too long, and if there is no difference."""

    file: str
    patch: str
    additions: int
    deletions: int

    @property
    def wire(self) -> dict[str, Any]:
        """`FileDiff` in metadata."""
        return {"file": self.file, "patch": self.patch, "additions": self.additions, "deletions": self.deletions}


class _Block(NamedTuple):
    """Lines `old_start` to `old_end` (not included) became `new_start` to `new_end`."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


def difference(file: str, before: bytes | None, after: bytes | None) -> Difference:
    """Of the contents of a file; None is no file."""
    old, new = _lines(before), _lines(after)
    blocks = _blocks(old, new)
    patch = "".join(_patch(file, old, new, blocks)) if blocks else ""
    return Difference(
        file=file,
        patch=patch if len(patch.encode()) <= PATCH_BYTES_MAX else "",
        additions=sum(block.new_end - block.new_start for block in blocks),
        deletions=sum(block.old_end - block.old_start for block in blocks),
    )


def _lines(data: bytes | None) -> list[str]:
    lines = (data or b"").decode(errors="replace").split("\n")
    last = lines.pop()
    return [f"{line}\n" for line in lines] + ([last] if last else [])


def _blocks(old: list[str], new: list[str]) -> list[_Block]:
    before = _alike(old, new)
    after = min(_alike(old[::-1], new[::-1]), len(old) - before, len(new) - before)
    old_middle, new_middle = old[before : len(old) - after], new[before : len(new) - after]
    if not old_middle and not new_middle:
        return []
    if len(old_middle) * len(new_middle) > _COMPARISONS_MAX:
        return [_Block(before, len(old) - after, before, len(new) - after)]
    return [
        _Block(before + old_start, before + old_end, before + new_start, before + new_end)
        for tag, old_start, old_end, new_start, new_end in SequenceMatcher(None, old_middle, new_middle).get_opcodes()
        if tag != "equal"
    ]


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _patch(file: str, old: list[str], new: list[str], blocks: list[_Block]) -> Iterator[str]:
    yield f"Index: {file}\n{_RULE}\n--- {file}\n+++ {file}\n"
    for hunk in _hunks(blocks):
        old_start = max(0, hunk[0].old_start - _CONTEXT)
        new_start = hunk[0].new_start - (hunk[0].old_start - old_start)
        old_end = min(len(old), hunk[-1].old_end + _CONTEXT)
        new_end = hunk[-1].new_end + (old_end - hunk[-1].old_end)
        yield f"@@ -{_range(old_start, old_end)} +{_range(new_start, new_end)} @@\n"
        at = old_start
        for block in hunk:
            yield from _marked(" ", old[at : block.old_start])
            yield from _marked("-", old[block.old_start : block.old_end])
            yield from _marked("+", new[block.new_start : block.new_end])
            at = block.old_end
        yield from _marked(" ", old[at:old_end])


def _hunks(blocks: list[_Block]) -> Iterator[list[_Block]]:
    hunk: list[_Block] = []
    for block in blocks:
        if hunk and block.old_start - hunk[-1].old_end > 2 * _CONTEXT:
            yield hunk
            hunk = []
        hunk.append(block)
    yield hunk


def _range(start: int, end: int) -> str:
    """Lines count from 1; an empty range names the line before it."""
    return f"{start + (end > start)},{end - start}"


def _marked(mark: str, lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield mark + line if line.endswith("\n") else f"{mark}{line}\n\\ No newline at end of file\n"
