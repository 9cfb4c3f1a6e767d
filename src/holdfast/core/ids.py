"""Identifiers in OpenCode's format: `<prefix>_` + 12 hex digits of time + 14 random base-62 characters.

The hex digits are the low 48 bits of `milliseconds * 4096 + counter`, inverted for sessions so that the newest sorts
first. 48 bits of that wrap every 2^36 ms (2.18 years): ids are names that *usually* sort; order never relies on them.
"""

from collections.abc import Callable
from typing import Final, Literal

from holdfast.core.errors import Invalid

Prefix = Literal["ses", "msg", "prt", "evt", "per", "que"]

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHARACTERS: Final = bytes(ord(_ALPHABET[byte % 62]) for byte in range(256))
"""For each random byte. 256 is no multiple of 62: eight come up a little more often, which costs the 83 bits of an id one."""
_MASK: Final = (1 << 48) - 1


class IdGenerator:
    """Ascending ids grow, and session ids fall, within a process; `not_before_ms` (the newest time a store knows)
    carries that over a restart, even when the clock was set back."""

    def __init__(self, now_ms: Callable[[], int], entropy: Callable[[int], bytes], *, not_before_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._entropy = entropy
        self._last = (not_before_ms + 1) << 12 if not_before_ms else 0

    def new(self, prefix: Prefix) -> str:
        stamp = max(self._now_ms() << 12, self._last) + 1
        self._last = stamp
        if prefix == "ses":
            stamp = ~stamp
        return f"{prefix}_{stamp & _MASK:012x}{self._entropy(14).translate(_CHARACTERS).decode()}"


def check_id(prefix: Prefix, value: str, field: str) -> str:
    """Clients may bring their own ids: anything short and printable with the right prefix, without slashes, because files and
    addresses are named by ids."""
    if (
        not value.startswith(prefix + "_")
        or not 5 <= len(value) <= 128
        or not value.isascii()
        or not value.isprintable()
        or "/" in value
        or "\\" in value
    ):
        raise Invalid(f'Expected a string starting with "{prefix}_", got {value[:64]!r}', field=field)
    return value
