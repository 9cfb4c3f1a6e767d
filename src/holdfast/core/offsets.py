"""Offsets: opaque places in the log that sort as text, never run backwards and never repeat within a store.

A *position* is the store's own integer (order over all streams); outside the store only its text form, the *offset*,
is seen. The shape `0000000000000042_0000000000000000` is the one Durable Streams clients expect; the second half is for
places inside a record, which only streams made of other streams have (`to_place`); it is zero elsewhere.
"""

import re
from typing import Final, NewType

from holdfast.core.errors import Invalid

Offset = NewType("Offset", str)

_SHAPE = re.compile(r"[0-9]{16}_[0-9]{16}")

BEGINNING = Offset("0000000000000000_0000000000000000")


INNER_SPAN: Final = 10**16

POSITION_MAX: Final = INNER_SPAN - 10**12
"""A clock beyond this is not believed: it would use up the 16 digits of an offset."""


def position_of(now_ms: int) -> int:
    """The position that a record of this time has, if that is greater than the last one: the time in microseconds. 0 for a time
    that is not believed."""
    position = now_ms * 1000
    return position if position < POSITION_MAX else 0


def to_offset(place: int) -> Offset:
    """Of a position, or of a place inside a record (`to_place`)."""
    if place < INNER_SPAN:
        return Offset(f"{place:016d}_0000000000000000")
    position, inner = divmod(place, INNER_SPAN)
    return Offset(f"{position:016d}_{inner:016d}")


def to_position(offset: Offset) -> int:
    return int(offset[:16])


def to_place(offset: Offset) -> int:
    """Both halves in one number: the position itself where the second half is zero."""
    return join_place(int(offset[:16]), int(offset[17:]))


def join_place(position: int, inner: int) -> int:
    """At position 0 there is no record to be inside of."""
    return position * INNER_SPAN + inner if position and inner else position


def split_place(place: int) -> tuple[int, int]:
    """(position, place inside of its record)."""
    return (place, 0) if place < INNER_SPAN else divmod(place, INNER_SPAN)


def parse_offset(text: str) -> Offset:
    """Raises Invalid if a client made the offset up."""
    if not _SHAPE.fullmatch(text):
        raise Invalid(f"Not an offset of this server: {text[:64]!r}", hint="Use an id that this server sent, or none.")
    return Offset(text)
