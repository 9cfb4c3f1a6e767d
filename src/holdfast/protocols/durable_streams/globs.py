"""Patterns of subscriptions: `*` is one segment of a path, `**` any number of them (none, too)."""

import re
from typing import Final

from holdfast.protocols.durable_streams.errors import RemoteProtocolError

DEEP_MAX: Final = 4
"""More `**` than that in one pattern would make matching slow."""


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Matches (`fullmatch`) the paths that the pattern means. `%2A` is a literal `*`."""
    segments: list[str] = []
    for segment in pattern.split("/"):
        if segment and not (segment == "**" and segments[-1:] == ["**"]):
            segments.append(segment)
    if not segments or segments.count("**") > DEEP_MAX:
        raise RemoteProtocolError(f"A pattern has at least one segment, and at most {DEEP_MAX} times `**`.")
    # Every segment is written with the slash before it; the path is matched with one in front.
    return re.compile("".join(_expression(segment) for segment in segments))


def matches(glob: re.Pattern[str], path: str) -> bool:
    return glob.fullmatch("/" + path) is not None


def _expression(segment: str) -> str:
    if segment == "**":
        return "(?:/[^/]+)*"
    if segment == "*":
        return "/[^/]+"
    return "/" + re.escape(re.sub("%2[aA]", "*", segment))
