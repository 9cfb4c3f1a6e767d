"""A text file as an LLM edits it: with `\\n` for every line break, while the file keeps its own. Pure.

Untouched text keeps its bytes: each line break (LF or CRLF, also mixed), a byte order mark, a missing newline at the end.
New text takes the line break of the line it is put into.
"""

from bisect import bisect_left
from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.agent.tools.base import ToolFailure

_BYTE_ORDER_MARK: Final = BOM_UTF8.decode()


class Replacement(msgspec.Struct, frozen=True):
    """`new` for what is between two offsets of `SourceText.text`."""

    start: int
    end: int
    new: str


class SourceText(msgspec.Struct, frozen=True):
    """`text` is what the LLM sees and names; `crlf` the offsets in it of the line breaks that are CRLF in the file."""

    text: str
    crlf: tuple[int, ...] = ()
    has_mark: bool = False

    @classmethod
    def decode(cls, data: bytes, name: str) -> "SourceText":
        """Raises ToolFailure for what is not UTF-8 text; `name` is the file's."""
        try:
            raw = data.decode()
        except UnicodeDecodeError:
            raw = "\0"
        if "\0" in raw:
            raise ToolFailure(
                f"{name} is not UTF-8 text. To change it, run a program for its format with the bash tool."
            )
        has_mark = raw.startswith(_BYTE_ORDER_MARK)
        raw = raw.removeprefix(_BYTE_ORDER_MARK)
        crlf: list[int] = []
        at = raw.find("\r\n")
        while at >= 0:
            crlf.append(at - len(crlf))
            at = raw.find("\r\n", at + 2)
        return cls(raw.replace("\r\n", "\n"), tuple(crlf), has_mark)

    def encode(self) -> bytes:
        return self.replaced(())

    def replaced(self, replacements: Sequence[Replacement]) -> bytes:
        """The file with those replacements, which are in order and do not overlap."""
        pieces: list[str] = [_BYTE_ORDER_MARK] if self.has_mark else []
        at = 0
        for replacement in replacements:
            assert at <= replacement.start <= replacement.end <= len(self.text)
            start, end, new = self._smallest(replacement)
            pieces += (self._raw(at, start), new.replace("\n", self._line_break(start)))
            at = end
        pieces.append(self._raw(at, len(self.text)))
        return encoded("".join(pieces))

    def rewritten(self, content: str) -> bytes:
        """The file with a new content: with the same byte order mark and, unless `content` brings its own, line breaks."""
        if "\r" not in content and 2 * len(self.crlf) > self.text.count("\n"):
            content = content.replace("\n", "\r\n")
        if self.has_mark and not content.startswith(_BYTE_ORDER_MARK):
            content = _BYTE_ORDER_MARK + content
        return encoded(content)

    def _smallest(self, replacement: Replacement) -> tuple[int, int, str]:
        """Without what stays as it is at both ends: those lines keep their line breaks."""
        old, new = self.text[replacement.start : replacement.end], without_crlf(replacement.new)
        most = min(len(old), len(new))
        before = _common(old, new, most)
        after = _common(old[::-1], new[::-1], most - before)
        return replacement.start + before, replacement.end - after, new[before : len(new) - after]

    def _raw(self, start: int, end: int) -> str:
        pieces: list[str] = []
        at = start
        for break_at in self.crlf[bisect_left(self.crlf, start) : bisect_left(self.crlf, end)]:
            pieces.append(self.text[at:break_at])
            at = break_at
        pieces.append(self.text[at:end])
        return "\r".join(pieces)

    def _line_break(self, at: int) -> str:
        """That of the line at an offset; the last line has that of the line before."""
        found = self.text.find("\n", at)
        if found < 0:
            found = self.text.rfind("\n", 0, at)
        place = bisect_left(self.crlf, found)
        return "\r\n" if self.crlf[place : place + 1] == (found,) else "\n"


def encoded(text: str) -> bytes:
    """Raises ToolFailure for what has no bytes: an LLM can write half of a surrogate pair in JSON."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ToolFailure("The new text holds a lone surrogate (\\ud800 to \\udfff), which is no character.") from error


def without_crlf(text: str) -> str:
    return text.replace("\r\n", "\n")


def _common(one: str, other: str, most: int) -> int:
    """How many characters both begin with, at most `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
