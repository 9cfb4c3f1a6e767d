"""Where in a text the piece is that an LLM wants to replace. Pure.

The piece must be there exactly, once. LLMs miss white space, so whole lines are also found when they differ only

 - in white space at their ends, or
 - in their indentation, by the same amount in every line; the new lines are then shifted like the old ones.

Everything else is refused with what helps to do it right: a guess would change the wrong place.
"""

import difflib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from holdfast.agent.tools.base import ToolFailure
from holdfast.agent.tools.source_text import Replacement, without_crlf

_PLACES_NAMED_MAX: Final = 10
_LINES_QUOTED_MAX: Final = 30
_LINE_CHARACTERS_QUOTED_MAX: Final = 200
_CLOSE: Final = 0.6
_LINES_COMPARED_MAX: Final = 20_000


def replacements(text: str, old: str, new: str, *, everywhere: bool, name: str) -> tuple[Replacement, ...]:
    """Raises ToolFailure. `name` is the file's; `old` is not empty."""
    old, new = without_crlf(old), without_crlf(new)
    step = len(old) if everywhere else 1  # one that begins in another is a second place
    exact = [Replacement(start, start + len(old), new) for start in _occurrences(text, old, step)]
    if everywhere and exact:
        return tuple(exact)
    found = exact or _whole_lines(text, old, new, same_but_ends) or _whole_lines(text, old, new, shifted)
    if not found:
        raise ToolFailure(_not_found(text, old, name))
    if len(found) > 1:
        raise ToolFailure(_ambiguous(text, found, name))
    return tuple(found)


def _occurrences(text: str, old: str, step: int) -> Iterator[int]:
    at = text.find(old)
    while at >= 0:
        yield at
        at = text.find(old, at + step)


# --- whole lines ------------------------------------------------------------------------------------------------

Alike = Callable[[Sequence[str], Sequence[str], Sequence[str]], list[str] | None]
"""(lines in the file, old lines, new lines) → the new lines as they fit there; None if those are not the old lines."""


def _whole_lines(text: str, old: str, new: str, alike: Alike) -> list[Replacement]:
    old_lines, new_lines = old.split("\n"), new.split("\n")
    if old_lines[-1] == "":  # the line break at the end is part of what is replaced
        old_lines.pop()
        if new_lines[-1] == "":
            new_lines.pop()
        else:
            return []  # it would join the next line to the new one: only exactly what was asked for
    if not any(line.strip() for line in old_lines):
        return []
    lines = text.split("\n")
    first = old_lines[0].strip()
    found: list[Replacement] = []
    start = 0
    for number, line in enumerate(lines[: max(0, len(lines) - len(old_lines) + 1)]):
        if line.strip() == first:
            there = lines[number : number + len(old_lines)]
            fitting = alike(there, old_lines, new_lines)
            if fitting is not None:
                end = start + sum(map(len, there)) + len(there) - 1
                if new or end == len(text):
                    found.append(Replacement(start, end, "\n".join(fitting)))
                else:  # nothing is to be left of these lines
                    found.append(Replacement(start, end + 1, ""))
        start += len(line) + 1
    return found


def same_but_ends(there: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str] | None:
    same = all(line.rstrip() == other.rstrip() for line, other in zip(there, old, strict=True))
    return list(new) if same else None


def shifted(there: Sequence[str], old: Sequence[str], new: Sequence[str]) -> list[str] | None:
    pairs = [(line.rstrip(), other.rstrip()) for line, other in zip(there, old, strict=True)]
    if any(bool(line) != bool(other) for line, other in pairs):
        return None
    line, other = next((line, other) for line, other in pairs if line)
    if line.endswith(other) and not (shift := line[: len(line) - len(other)]).strip():
        fits = all(not line or line == shift + other for line, other in pairs)
        return [shift + added if added.strip() else added for added in new] if fits else None
    if other.endswith(line) and not (shift := other[: len(other) - len(line)]).strip():
        fits = all(not line or shift + line == other for line, other in pairs)
        fits = fits and all(added.startswith(shift) for added in new if added.strip())
        return [added.removeprefix(shift) for added in new] if fits else None
    return None


# --- what helps -------------------------------------------------------------------------------------------------


def _ambiguous(text: str, found: Sequence[Replacement], name: str) -> str:
    lines = [str(text.count("\n", 0, place.start) + 1) for place in found[:_PLACES_NAMED_MAX]]
    more = ", …" if len(found) > len(lines) else ""
    return (
        f"oldString is in {name} {len(found)} times, at lines {', '.join(lines)}{more}. Add lines before or after it that are "
        "only at the place you mean, or set replaceAll to change every one of them."
    )


def _not_found(text: str, old: str, name: str) -> str:
    said = f"oldString is not in {name}."
    nearest = _nearest(text, old)
    if nearest is None:
        return f"{said} Read the file again and copy the text from there, without the line numbers."
    return f"{said} Closest to it is this:\n{nearest}\nCopy the text from there, without the line numbers."


def _nearest(text: str, old: str) -> str | None:
    """The lines around the one that is most like the most telling line of `old`."""
    old_lines = old.strip("\n").split("\n")
    telling = max(range(len(old_lines)), key=lambda number: len(old_lines[number].strip()))
    wanted = old_lines[telling].strip()[:_LINE_CHARACTERS_QUOTED_MAX]
    lines = text.split("\n")
    stripped = [line.strip()[:_LINE_CHARACTERS_QUOTED_MAX] for line in lines[:_LINES_COMPARED_MAX]]
    if not wanted:
        return None
    if wanted in stripped:
        at = stripped.index(wanted)
    else:
        # Only lines of about that length can be close; to compare with all of a large file would take too long.
        near = dict.fromkeys(line for line in stripped if abs(len(line) - len(wanted)) <= len(wanted) // 2)
        close = difflib.get_close_matches(wanted, list(near)[:2000], n=1, cutoff=_CLOSE)
        if not close:
            return None
        at = stripped.index(close[0])
    first = max(0, at - telling - 1)
    last = min(len(lines), first + min(len(old_lines) + 2, _LINES_QUOTED_MAX))
    return "\n".join(f"{number + 1}: {lines[number][:_LINE_CHARACTERS_QUOTED_MAX]}" for number in range(first, last))
