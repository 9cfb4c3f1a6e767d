"""File name patterns, as ripgrep and `.gitignore` take them. Pure, and quick for every pattern and name.

`*` any characters but `/`, `?` one of them, `**` any directories, `[a-z]` and `[!a-z]`, `{one,other}`, `\\` before a character
that is meant as it is. A pattern without `/` is about the name at the end of a path; one with `/` about the whole path.
"""

import fnmatch
import os
import re
from collections.abc import Sequence
from typing import Final

CHARACTERS_MAX: Final = 1000
ALTERNATIVES_MAX: Final = 200

_WILD: Final = "*?[{\\"
_ANY_DIRECTORIES: Final = "**"

_Part = re.Pattern[str] | None
"""One part of a path; None is `**`."""


class Glob:
    """Matches paths relative to a directory, in bytes, since file names are bytes. Raises ValueError for what is no pattern."""

    def __init__(self, pattern: str) -> None:
        if not pattern or len(pattern) > CHARACTERS_MAX or "\0" in pattern:
            raise ValueError(f"A pattern has 1 to {CHARACTERS_MAX} characters and no NUL.")
        self._alternatives = [_parts(alternative) for alternative in _expanded(pattern)]

    def matches(self, path: bytes) -> bool:
        names = os.fsdecode(path).split("/")
        return any(_match(parts, names) for parts in self._alternatives)


def literal_start(pattern: str) -> tuple[str, str]:
    """(the directories a pattern begins with, the rest of it as a path): `src/a/*.py` is `src/a` and `/*.py`. A pattern
    without `/` has none."""
    if "/" not in pattern:
        return "", pattern
    *directories, name = pattern.split("/")
    literal = 0
    while literal < len(directories) and not any(c in _WILD for c in directories[literal]):
        literal += 1
    if any("}" in directory for directory in directories[:literal]):
        literal = 0
    start = "/".join(directories[:literal])
    return start or ("/" if literal else ""), "/" + "/".join((*directories[literal:], name))


def _expanded(pattern: str) -> list[str]:
    """Without braces."""
    open_at = _place(pattern, "{", 0)
    if open_at is None:
        return [pattern]
    depth, pieces, start, at = 0, list[str](), open_at + 1, open_at + 1
    while True:
        found = _place(pattern, "{,}", at)
        if found is None:
            raise ValueError(f"There is a {{ without }} in the pattern {pattern!r}.")
        at = found + 1
        if pattern[found] == "{":
            depth += 1
        elif pattern[found] == "}" and depth:
            depth -= 1
        elif not depth:
            pieces.append(pattern[start:found])
            start = at
            if pattern[found] == "}":
                break
    alternatives: list[str] = []
    for piece in pieces:
        alternatives += _expanded(pattern[:open_at] + piece + pattern[at:])
        if len(alternatives) > ALTERNATIVES_MAX:
            raise ValueError(f"The pattern {pattern[:100]!r} has more than {ALTERNATIVES_MAX} alternatives.")
    return alternatives


def _place(pattern: str, wanted: str, at: int) -> int | None:
    """Of the next of some characters that is not behind a backslash."""
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] in wanted:
            return at
        at += 1
    return None


def _parts(pattern: str) -> list[_Part]:
    names = pattern.removeprefix("./").strip("/").split("/")
    if "/" not in pattern.rstrip("/"):
        names.insert(0, _ANY_DIRECTORIES)
    return [None if name == _ANY_DIRECTORIES else _compiled(name) for name in names]


def _compiled(name: str) -> re.Pattern[str]:
    """`fnmatch` takes care that no pattern takes long."""
    pieces: list[str] = []
    at = 0
    while at < len(name):
        c = name[at]
        at += 1
        if c == "\\" and at < len(name):
            pieces.append(f"[{name[at]}]" if name[at] in "*?[" else name[at])
            at += 1
        elif c == "[":
            end = name.find("]", at + (name[at : at + 1] in ("!", "^")) + 1)
            if end < 0:
                raise ValueError(f"There is a [ without ] in the pattern {name!r}.")
            inside = name[at:end]
            pieces.append(f"[!{inside[1:]}]" if inside[0] == "^" else f"[{inside}]")
            at = end + 1
        else:
            pieces.append(c)
    return re.compile(fnmatch.translate("".join(pieces)))


def _match(parts: Sequence[_Part], names: Sequence[str]) -> bool:
    """When it fails, only the last `**` before has to take one name more: never more than parts times names steps."""
    at = part = 0
    last: int | None = None
    last_at = 0
    while at < len(names):
        wanted = parts[part] if part < len(parts) else None
        if part < len(parts) and wanted is None:
            last, last_at = part, at
            part += 1
            if part == len(parts):  # at the end, `**` is something, not nothing
                return True
        elif wanted is not None and wanted.match(names[at]):
            at += 1
            part += 1
        elif last is not None:
            last_at += 1
            at, part = last_at, last + 1
        else:
            return False
    return part == len(parts)
