"""The stock TUI (`opencode attach`) in a terminal of its own: types as a person does, sees what a person would see."""

import contextlib
import fcntl
import os
import pty
import selectors
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import pyte

COLUMNS, ROWS = 120, 36


class ScreenNeverShowed(AssertionError):
    """The message carries what the screen shows instead."""


class Tui:
    """`with Tui(command, ...) as tui:` runs it; the process is killed at the end. Its group is its own, and is killed with
    it."""

    def __init__(self, command: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        self._command = list(command)
        self._cwd = cwd
        self._env = {**env, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)

    def __enter__(self) -> Self:
        self._terminal, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        try:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._cwd,
                env=self._env,
                stdin=inside,
                stdout=inside,
                stderr=inside,
                start_new_session=True,
            )
        finally:
            os.close(inside)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._terminal)

    @property
    def screen(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display).strip()

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, *what: str | Callable[[str], bool], timeout: float = 90) -> str:
        """The screen, once it shows all texts and satisfies all conditions. Raises ScreenNeverShowed."""

        def shows(screen: str) -> bool:
            return all(one(screen) if callable(one) else one in screen for one in what)

        deadline = time.monotonic() + timeout
        with selectors.DefaultSelector() as selector:
            selector.register(self._terminal, selectors.EVENT_READ)
            while not shows(self.screen):
                if not selector.select(max(0.0, deadline - time.monotonic())) or not self._read():
                    raise ScreenNeverShowed(f"waited for {what!r}; the screen shows\n{self.screen}")
        return self.screen

    def _read(self) -> bool:
        """False when the program has ended."""
        try:
            data = os.read(self._terminal, 1 << 16)
        except OSError:  # what Linux says when the other side of a terminal is gone
            return False
        self._stream.feed(data)
        return bool(data)
