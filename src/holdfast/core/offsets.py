"""Offsets: opaque places in the log that sort as text, never run backwards and never repeat within a store.

A *position* is the store's own integer (order over all streams); outside the store only its text form, the *offset*,
is seen. The shape `0000000000000042_0000000000000000` is the one Durable Streams clients expect; the second half is
reserved for places inside a record and is zero here.
"""

import re
from typing import NewType

from holdfast.core.errors import Invalid

Offset = NewType("Offset", str)

_SHAPE = re.compile(r"[0-9]{16}_[0-9]{16}")

BEGINNING = Offset("0000000000000000_0000000000000000")


def to_offset(position: int) -> Offset:
    return Offset(f"{position:016d}_0000000000000000")


def to_position(offset: Offset) -> int:
    return int(offset[:16])


def parse_offset(text: str) -> Offset:
    """Raises Invalid if a client made the offset up."""
    if not _SHAPE.fullmatch(text):
        raise Invalid(f"Not an offset of this server: {text[:64]!r}", hint="Use an id that this server sent, or none.")
    return Offset(text)
