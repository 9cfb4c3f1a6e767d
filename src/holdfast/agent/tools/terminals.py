"""Programs in a terminal of their own (a pty), owned and guarded like every other process of the server (`processes`)."""

import asyncio
import errno
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Mapping, Sequence
from typing import Final

from holdfast.agent.tools import guardian, terminal_launcher
from holdfast.agent.tools.pipes import OutputPipe
from holdfast.agent.tools.processes import Process, Processes, environment

_WRITE_BYTES_MAX: Final = 1 << 20


class Terminal:
    """A terminal and the program in it. `process` is for knowing about it."""

    def __init__(self, process: Process, keyboard: int) -> None:
        self.process = process
        self._keyboard = keyboard
        self._typed = bytearray()

    async def read(self) -> bytes:
        """What the program shows next, b"" at the end. One reader at a time."""
        try:
            return await self.process.output.read()
        except OSError as error:
            if error.errno != errno.EIO:  # Linux says so when nobody has the terminal open any more
                raise
            self.process.output.close()
            self._drop()
            return b""

    def write(self, data: bytes) -> None:
        """Type. What the program does not read waits; more than a megabyte of that is dropped. So is everything once nobody has
        the terminal open any more."""
        if self._keyboard < 0 or self.process.output.is_closed:
            return
        is_waiting = bool(self._typed)
        self._typed += data[: _WRITE_BYTES_MAX - len(self._typed)]
        if not is_waiting:
            self._flush()

    def resize(self, rows: int, columns: int) -> None:
        """The program is told (SIGWINCH)."""
        if self._keyboard >= 0:
            _set_size(self._keyboard, rows, columns)

    async def end(self) -> None:
        """End the program and everything it started."""
        await self.process.end()

    def close(self) -> None:
        """Give the terminal back, once all was read. Programs that still have it are hung up on."""
        self.process.output.close()
        if self._keyboard >= 0:
            asyncio.get_running_loop().remove_writer(self._keyboard)
            os.close(self._keyboard)
            self._keyboard = -1

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            del self._typed[: os.write(self._keyboard, self._typed)]
        except BlockingIOError:
            pass
        except OSError:  # nobody has the terminal open any more, though the program may go on
            self._drop()
        if self._typed:
            loop.add_writer(self._keyboard, self._flush)
        else:
            loop.remove_writer(self._keyboard)

    def _drop(self) -> None:
        """Such a terminal always counts as ready to be written to: trying again would never pause."""
        self._typed.clear()
        if self._keyboard >= 0:
            asyncio.get_running_loop().remove_writer(self._keyboard)


async def open_terminal(
    processes: Processes,
    program: str,
    arguments: Sequence[str],
    *,
    directory: str,
    variables: Mapping[str, str],
    id: str,
    rows: int,
    columns: int,
) -> Terminal:
    """Run a program in a new terminal, with the server's environment (without its secrets) and these variables. `id` marks
    everything it starts. Raises OSError when the system refuses, ValueError for text that no program can be given."""
    screen, side_of_program = pty.openpty()
    gate_read, gate = os.pipe()
    keyboard = -1
    try:
        _set_size(screen, rows, columns)
        os.set_blocking(screen, False)
        keyboard = os.dup(screen)
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", terminal_launcher.__file__, str(gate_read), program, *arguments),
            stdin=side_of_program,
            stdout=side_of_program,
            stderr=side_of_program,
            cwd=directory,
            env={
                **environment(os.environ, with_keys=True),
                "TERM": "xterm-256color",
                **variables,
                **processes.marks(id),
            },
            pass_fds=(gate_read,),
            start_new_session=True,
        )
    except BaseException:
        for descriptor in (gate, screen, keyboard):
            if descriptor >= 0:
                os.close(descriptor)
        raise
    finally:
        os.close(gate_read)
        os.close(side_of_program)
    process = Process(
        child,
        started=guardian.started(child.pid) or "",
        marker=processes.marker(id),
        gate=gate,
        output=OutputPipe(screen),
    )
    terminal = Terminal(process, keyboard)
    try:
        processes.guard(process)
    except OSError:  # nobody would guard it
        process.close_gate()
        await process.wait()
        terminal.close()
        raise
    process.open_gate()
    return terminal


def _set_size(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
