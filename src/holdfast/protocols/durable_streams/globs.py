"""Patterns of subscriptions: `*` is one segment of a path, `**` any number of them (none, too)."""

import re
from typing import Final

from holdfast.protocols.durable_streams.errors import RemoteProtocolError

DEEP_MAX: Final = 4
"""More `**` than that in one pattern nobody needs, and each costs a matching some steps more."""

_ONE: Final = None
_DEEP: Final = ""

Glob = tuple[str | None, ...]
"""A segment of the pattern each: `_ONE`, `_DEEP`, or the segment that is meant."""


def compile_glob(pattern: str) -> Glob:
    """`%2A` is a literal `*`."""
    glob: list[str | None] = []
    for segment in pattern.split("/"):
        if segment == "**":
            glob += [_DEEP] if glob[-1:] != [_DEEP] else []
        elif segment:
            glob.append(_ONE if segment == "*" else re.sub("%2[aA]", "*", segment))
    if not glob or glob.count(_DEEP) > DEEP_MAX:
        raise RemoteProtocolError(f"A pattern has at least one segment, and at most {DEEP_MAX} times `**`.")
    return tuple(glob)


def matches(glob: Glob, path: str) -> bool:
    """Only the last `**` is ever tried again, with one segment more: what comes before it matched as early as it could. So no
    path takes longer than its length times the pattern's, as it would with a regular expression."""
    segments = path.split("/")
    at = place = retry_place = 0
    deep = -1
    while place < len(segments):
        if at < len(glob) and glob[at] == _DEEP:
            deep, retry_place = at, place
            at += 1
        elif at < len(glob) and (glob[at] is _ONE or glob[at] == segments[place]):
            at += 1
            place += 1
        elif deep >= 0:
            retry_place += 1
            at, place = deep + 1, retry_place
        else:
            return False
    return all(rest == _DEEP for rest in glob[at:])
