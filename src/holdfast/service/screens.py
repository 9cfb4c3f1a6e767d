"""What a terminal has shown: the newest of it, with a cursor that counts all of it.

The cursor counts UTF-16 code units, because clients add the `length` of JavaScript strings to it. Kept in that form, so
that a cursor is a place. A reader is a cursor: one that is slow, or comes back, goes on where it was, or at the oldest
that is kept.
"""

import asyncio
import codecs
from typing import Final

UNITS_MAX: Final = 2 * 1024 * 1024

_ENCODING: Final = "utf-16-le"


class Screen:
    """Grows by bytes, is read as text."""

    def __init__(self, units_max: int = UNITS_MAX) -> None:
        self._units_max = units_max
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._kept = bytearray()
        self._grown = asyncio.Event()
        self.start = 0
        self.is_over = False

    @property
    def end(self) -> int:
        return self.start + len(self._kept) // 2

    def show(self, data: bytes) -> None:
        """Bytes that end inside a character wait for its rest."""
        self._add(self._decoder.decode(data))

    def finish(self) -> None:
        """Nothing more comes."""
        self._add(self._decoder.decode(b"", final=True))
        self.is_over = True
        self._wake()

    def read(self, cursor: int, units_max: int) -> tuple[str, int]:
        """The text after a cursor, whole characters of it, and the cursor after that. What is not kept any more is skipped;
        a cursor behind the end is at the end."""
        first = min(max(cursor, self.start), self.end)
        last = min(first + units_max, self.end)
        if last < self.end and self._is_second_half(last):
            last += 1
        if first > self.start and self._is_second_half(first):
            first += 1
        text = self._kept[2 * (first - self.start) : 2 * (last - self.start)].decode(_ENCODING, errors="replace")
        return text, last

    async def grown(self, cursor: int) -> None:
        """Until there is something after the cursor, or nothing more comes."""
        while cursor >= self.end and not self.is_over:
            await self._grown.wait()

    def _add(self, text: str) -> None:
        if not text:
            return
        self._kept += text.encode(_ENCODING)
        excess = len(self._kept) // 2 - self._units_max
        if excess > 0:
            if self._is_second_half(self.start + excess):
                excess += 1
            del self._kept[: 2 * excess]
            self.start += excess
        self._wake()

    def _is_second_half(self, place: int) -> bool:
        index = 2 * (place - self.start) + 1
        return index < len(self._kept) and 0xDC <= self._kept[index] <= 0xDF

    def _wake(self) -> None:
        self._grown.set()
        self._grown = asyncio.Event()
