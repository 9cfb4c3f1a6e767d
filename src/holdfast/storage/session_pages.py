"""Where a page of sessions ends, newest update first, and the cursor of the next one. Pure.

A cursor is a time in milliseconds: the next page begins with what was updated before it. Sessions of one millisecond are told
apart by its fraction, which has room for the lowest bits of their number in the store (decision 0135).
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

FRACTIONS: Final = 1 << 11
"""A double, which is what numbers of JavaScript are, holds milliseconds with so many fractions until the year 2109."""


class Listed(NamedTuple):
    """A session in a list. No other session of the store has its `number`."""

    data: bytes
    updated: int
    number: int

    @property
    def place(self) -> float:
        return place_of(self.updated, self.number)


def place_of(updated: int, number: int) -> float:
    """What a cursor is compared with."""
    return updated + number % FRACTIONS / FRACTIONS


def page_of(
    found: Sequence[Listed], limit: int, updated_at: Callable[[int], Sequence[Listed]]
) -> tuple[Sequence[Listed], int | float | None]:
    """The page, and the cursor of the next one if there is one. `found` are the newest, one more than the limit if there are
    more; `updated_at` gives all of one millisecond."""
    if len(found) <= limit or not limit:
        return found[:limit], None
    last = found[limit - 1].updated
    if found[limit].updated < last:
        return found[:limit], last
    newer = [one for one in found if one.updated > last]
    same = sorted(updated_at(last), key=lambda one: (one.place, one.number), reverse=True)
    size = limit - len(newer)
    while size and same[size - 1].place == same[size].place:
        size -= 1
    if not size and newer:
        return newer, last + 1
    if not size:  # more of them share a place than fit on a page
        size = sum(one.place == same[0].place for one in same)
    return [*newer, *same[:size]], same[size - 1].place
