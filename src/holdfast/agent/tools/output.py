"""What a command wrote: a bounded view of it in memory, and all of it in a file once it is too long to show.

The views depend only on the bytes, never on how they were cut when they were read. Bytes that are not UTF-8 are shown as
U+FFFD; everything else (carriage returns, colours) passes through. Limits count bytes as they were written.
"""

import asyncio
import codecs
import os
from pathlib import Path
from typing import Final

LINES_MAX: Final = 2000
BYTES_MAX: Final = 50 * 1024
"""The longest output that is given to the LLM whole."""

PREVIEW_BYTES_MAX: Final = 30 * 1024
"""The longest that clients are shown while the command runs, ten times a second."""

FILE_BYTES_MAX: Final = 256 * 1024 * 1024
"""Where the file ends: a runaway command must not fill the disk."""


class OutputWindow:
    """The first and the last BYTES_MAX bytes of an output, and how much it was in all."""

    def __init__(self) -> None:
        self.bytes_total = 0
        self.newlines_total = 0
        self._start = bytearray()
        self._end = bytearray()

    def add(self, data: bytes) -> None:
        self.bytes_total += len(data)
        self.newlines_total += data.count(b"\n")
        self._start += data[: BYTES_MAX - len(self._start)]
        self._end += data
        if len(self._end) > 2 * BYTES_MAX:
            del self._end[:-BYTES_MAX]

    @property
    def lines_total(self) -> int:
        return self.newlines_total + (self.bytes_total > 0 and not self._end.endswith(b"\n"))

    def exceeds(self, bytes_max: int, lines_max: int) -> bool:
        return self.bytes_total > bytes_max or self.lines_total > lines_max

    def first(self, count: int) -> bytes:
        """The first bytes, at most BYTES_MAX."""
        return bytes(self._start[:count])

    def text(
        self, *, bytes_max: int = BYTES_MAX, lines_max: int = LINES_MAX, omitted: str = "", growing: bool = False
    ) -> str:
        """The output, or its first and last part if it exceeds the limits, with a line between them that says how much was left
        out, followed by `omitted`. While it is `growing`, a character whose last bytes are missing is not shown yet."""
        if not self.exceeds(bytes_max, lines_max):
            return _decode(self._start, growing=growing)
        head = _first_lines(bytes(self._start[: bytes_max // 2]), lines_max // 2)
        tail = _last_lines(bytes(self._end[-(bytes_max // 2) :]), lines_max // 2)
        bytes_omitted = self.bytes_total - len(head) - len(tail)
        lines_omitted = self.newlines_total - head.count(b"\n") - tail.count(b"\n")
        before = _decode(head, growing=True)
        after = _decode(_from_character(tail), growing=growing)
        gap = "\n" if before.endswith("\n") else "\n\n"
        return f"{before}{gap}[{bytes_omitted} bytes, {lines_omitted} lines left out{omitted}]\n\n{after}"


class CommandOutput:
    """Takes the bytes of a command as they come. Over the limit, all of them go to the file `path` as well; `failure` says why
    it is not whole, if it is not."""

    def __init__(self, path: Path) -> None:
        self.window = OutputWindow()
        self.path = path
        self.failure: str | None = None
        self.grown = asyncio.Event()
        self._file: int | None = None
        self._written = 0

    @property
    def is_truncated(self) -> bool:
        return self.window.exceeds(BYTES_MAX, LINES_MAX)

    @property
    def kept(self) -> Path | None:
        """The file, if there is one."""
        return self.path if self._written else None

    async def take(self, data: bytes) -> None:
        unsaved = 0 if self.is_truncated else self.window.bytes_total
        self.window.add(data)
        self.grown.set()
        if self.is_truncated and self.failure is None:
            await asyncio.to_thread(self._save, self.window.first(unsaved) + data)

    def _save(self, data: bytes) -> None:
        room = FILE_BYTES_MAX - self._written
        if len(data) > room:
            data, self.failure = data[:room], f"only the first {FILE_BYTES_MAX} bytes are kept"
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            while data:
                written = os.write(self._file, data)
                self._written += written
                data = data[written:]
        except OSError as error:
            self.failure = error.strerror

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def preview(self, *, growing: bool) -> str:
        """For those who watch."""
        return self.window.text(bytes_max=PREVIEW_BYTES_MAX, growing=growing)

    def result(self) -> str:
        """For the LLM."""
        if self.kept is None:
            return self.window.text(omitted=f", and not kept: {self.failure}")
        but = f", but it is not whole: {self.failure}" if self.failure else ""
        omitted = f"; the output is in {self.kept}{but}. Use the read tool with offset and limit, or grep, to see more"
        return self.window.text(omitted=omitted)


def _decode(data: bytes | bytearray, *, growing: bool) -> str:
    return codecs.getincrementaldecoder("utf-8")("replace").decode(bytes(data), final=not growing)


def _from_character(data: bytes) -> bytes:
    """Without the rest of a character whose beginning was cut off."""
    cut = 0
    while cut < min(3, len(data)) and data[cut] & 0b1100_0000 == 0b1000_0000:
        cut += 1
    return data[cut:]


def _first_lines(data: bytes, count: int) -> bytes:
    end = 0
    for _ in range(count):
        end = data.find(b"\n", end) + 1
        if not end:
            return data
    return data[:end]


def _last_lines(data: bytes, count: int) -> bytes:
    start = len(data) - data.endswith(b"\n")
    for _ in range(count):
        start = data.rfind(b"\n", 0, start)
        if start < 0:
            return data
    return data[start + 1 :]
