"""The reading end of the pipe that a command and its children write their output to."""

import array
import asyncio
import contextlib
import fcntl
import os
import termios
from typing import Final

READ_BYTES_MAX: Final = 65536

_STRAY_PAUSE_SECONDS: Final = 0.01


class OutputPipe:
    """Reads until nobody can write any more or, once `finish` was called, until all is read that the command can have
    written, though processes it left behind still hold the pipe. Reads only when asked: a chatty command waits."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._readable: asyncio.Future[None] | None = None
        self._bytes_left: int | None = None
        self._quiet_seconds = 0.0

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. One reader at a time."""
        if self.is_closed or self._bytes_left == 0:
            return b""
        await self._until_readable()
        try:
            data = os.read(self._descriptor, READ_BYTES_MAX)
        except BlockingIOError:
            return b""  # it was quiet for long enough
        if self._bytes_left is not None:
            self._bytes_left = max(0, self._bytes_left - len(data))
        if not data:
            self.close()
        return data

    def finish(self, quiet_seconds: float) -> None:
        """The command has ended. What it wrote and we did not read is in the pipe now: read that much, and then, for those
        who pass on its last lines (`> >(tee log)`), until nothing came for `quiet_seconds`, at most one pipe full."""
        if self.is_closed or self._bytes_left is not None:
            return
        self._bytes_left = self._bytes_waiting() + READ_BYTES_MAX
        self._quiet_seconds = quiet_seconds
        if self._readable is not None:
            self._loop.call_later(quiet_seconds, _wake, self._readable)

    def drop(self) -> None:
        """Nobody reads on, but whoever still writes must not die of it (a web server started with `&` writes a log): take
        what comes, in small sips, and throw it away, until nobody writes any more or `close`."""
        if not self.is_closed:
            self._loop.add_reader(self._descriptor, self._sip)

    def close(self) -> None:
        if not self.is_closed:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def is_closed(self) -> bool:
        """True at the end, too: a pipe that was read to its end closes itself."""
        return self._descriptor < 0

    async def _until_readable(self) -> None:
        self._readable = readable = self._loop.create_future()
        self._loop.add_reader(self._descriptor, _wake, readable)
        if self._bytes_left is not None:
            self._loop.call_later(self._quiet_seconds, _wake, readable)
        try:
            await readable
        finally:
            self._readable = None
            if not self.is_closed:
                self._loop.remove_reader(self._descriptor)

    def _bytes_waiting(self) -> int:
        count = array.array("i", [0])
        fcntl.ioctl(self._descriptor, termios.FIONREAD, count)
        return count[0]

    def _sip(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(self._descriptor, READ_BYTES_MAX):
                self.close()
                return
        # A writer without end must not keep the loop busy.
        self._loop.remove_reader(self._descriptor)
        self._loop.call_later(_STRAY_PAUSE_SECONDS, self.drop)


def _wake(readable: asyncio.Future[None]) -> None:
    if not readable.done():
        readable.set_result(None)
