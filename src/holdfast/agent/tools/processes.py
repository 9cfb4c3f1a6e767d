"""Starts the processes of tools and owns them until they are gone. What ends them is in `guardian`, why in decision 0020.

Rules
 1. A command is spawned behind a *gate*, a shell that waits for a line before it turns into the command. Its process group
    is recorded, then the gate is opened. When the server dies in between, the gate reads the end of its pipe and the
    command never runs.
 2. The guardian knows the group, and the process carries its markers, before the gate can be opened.
 3. A process ends by itself, by `Process.end`, or with the server. Nothing here keeps one alive or forgets one.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from holdfast.agent.tools import guardian
from holdfast.agent.tools.pipes import OutputPipe
from holdfast.core.known_providers import KEY_VARIABLES

_GATE: Final = 'read -r _ || exit 125; exec "$0" -c -- "$1" </dev/null'
_GATE_OF_SERVER: Final = 'read -r _ || exit 125; exec "$@"'  # `read` takes no byte after the line
_REAP_SECONDS_MAX: Final = 2.0
_FAREWELL_SECONDS_MAX: Final = 4.0
_PROBE_SECONDS_MAX: Final = 10.0

_PART: Final = "HOLDFAST_PART"
_GUARDIAN: Final = "HOLDFAST_GUARDIAN"
_OURS: Final = "HOLDFAST_"
_SECRETS: Final = frozenset({"OPENCODE_SERVER_PASSWORD", "OPENCODE_SERVER_USERNAME", "OPENCODE_AUTH_CONTENT"})


def environment(server: Mapping[str, str], *, with_keys: bool = False) -> dict[str, str]:
    """The server's environment without what is meant for the server alone: its secrets, the keys of LLMs (an LLM that prints
    its environment would write them into the log), and markers if the server itself was started by a tool."""
    hidden = _SECRETS if with_keys else _SECRETS | KEY_VARIABLES
    return {name: value for name, value in server.items() if not name.startswith(_OURS) and name not in hidden}


class Process:
    """A command behind its gate, later running. `group` is its process group; `started` tells it from a later one of the same
    number. The reader of `output` sees stdout and stderr in the order in which they were written."""

    def __init__(
        self, child: asyncio.subprocess.Process, *, started: str, marker: str, gate: int, output: OutputPipe
    ) -> None:
        self.group = child.pid
        self.started = started
        self.output = output
        self._child = child
        self._marker = marker
        self._gate = gate

    def open_gate(self) -> None:
        """Let the command run. Whatever must be known about it after a crash is durable now."""
        with contextlib.suppress(BrokenPipeError):  # somebody killed the gate: then `wait` says so
            os.write(self._gate, b"\n")
        self.close_gate()

    def close_gate(self) -> None:
        """A gate that was not opened never will be."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    async def wait(self) -> None:
        """Until the command has ended. Processes it left in the background may go on."""
        await self._child.wait()

    @property
    def status(self) -> int | None:
        """Its exit status, 128 + N if signal N ended it; None before it has ended, or when not even SIGKILL could end it."""
        status = self._child.returncode
        return status if status is None or status >= 0 else 128 - status

    async def end(self) -> None:
        """End the command and everything it started; returns when all of it is dead (or cannot be killed)."""
        self.close_gate()
        await asyncio.to_thread(guardian.end, {self.group}, self._marker)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._child.wait(), _REAP_SECONDS_MAX)

    async def has_background(self) -> bool:
        """True while members of the group live on after the command has ended."""
        return guardian.exists(self.group) and await asyncio.to_thread(guardian.is_alive, self.group)


class Conversation(NamedTuple):
    """A program that is talked to through its standard streams; `process.output` is its stderr."""

    process: Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader


class Processes:
    """All processes that the tools of this server started. One per server; close it last."""

    def __init__(self) -> None:
        self._id = secrets.token_hex(8)
        self._living: list[Process] = []
        self._guardian: subprocess.Popen[bytes] | None = None
        self._reports = -1
        self._parent_death: tuple[str, ...] | None = None

    async def start(self, shell: str, command: str, *, directory: Path, part_id: str) -> Process:
        """Spawn `shell -c command` in a session of its own, behind its gate, with no input. Raises OSError when the system
        refuses, ValueError when `command` cannot be encoded; the caller has seen to it that there is no NUL in it."""
        if self._parent_death is None:
            self._parent_death = await asyncio.to_thread(_parent_death_signal)
        gate_read, gate = os.pipe()
        read, output = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._parent_death,
                *("/bin/sh", "-c", _GATE, shell, command),
                stdin=gate_read,
                stdout=output,
                stderr=output,
                cwd=directory,
                env=environment(os.environ) | self.marks(part_id),
                start_new_session=True,
            )
        except BaseException:
            os.close(gate)
            os.close(read)
            raise
        finally:
            os.close(gate_read)
            os.close(output)
        process = Process(
            child,
            started=guardian.started(child.pid) or "",
            marker=self.marker(part_id),
            gate=gate,
            output=OutputPipe(read),
        )
        try:
            self.guard(process)
        except OSError:  # nobody would guard it
            process.close_gate()
            process.output.close()
            await process.wait()
            raise
        return process

    async def converse(
        self,
        program: str,
        arguments: Sequence[str],
        *,
        directory: Path,
        variables: Mapping[str, str],
        id: str,
        line_max: int,
    ) -> Conversation:
        """Run a program that reads requests and writes answers, with the server's environment (without its secrets) and these
        variables. `id` marks everything it starts; no line of more than `line_max` bytes can be read from it. Raises OSError
        when the system refuses, ValueError for text that no program can be given."""
        if any("\0" in text for text in (program, *arguments, *variables, *variables.values())):
            raise ValueError("A program is given no NUL character.")  # uvloop would cut the text there
        if self._parent_death is None:
            self._parent_death = await asyncio.to_thread(_parent_death_signal)
        read, errors = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._parent_death,
                *("/bin/sh", "-c", _GATE_OF_SERVER, "sh", program, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                cwd=directory,
                env={**environment(os.environ), **variables, **self.marks(id)},
                start_new_session=True,
                limit=line_max,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(errors)
        assert child.stdin is not None
        assert child.stdout is not None
        process = Process(
            child,
            started=guardian.started(child.pid) or "",
            marker=self.marker(id),
            gate=-1,
            output=OutputPipe(read),
        )
        try:
            self.guard(process)
        except OSError:  # nobody would guard it
            child.stdin.close()
            process.output.close()
            await process.wait()
            raise
        child.stdin.write(b"\n")  # the gate opens
        return Conversation(process, child.stdin, child.stdout)

    def guard(self, process: Process) -> None:
        """Own a process, so that it dies with the server. To be done before its gate is opened; raises OSError if nobody
        would guard it."""
        self._living = [old for old in self._living if guardian.exists(old.group) or not old.output.is_closed]
        self._living.append(process)
        self._report(process.group)

    def marks(self, part_id: str) -> dict[str, str]:
        """What a process of ours has in its environment."""
        return {_PART: part_id, _GUARDIAN: self._id}

    @staticmethod
    def marker(part_id: str) -> str:
        """By which what a process started is found."""
        return f"{_PART}={part_id}"

    @staticmethod
    async def clean_up(part_id: str, group: int, started: str) -> None:
        """End what is left of a tool call of a server that died: the group, if it is still the recorded one, and everything
        that carries the call's marker."""
        await asyncio.to_thread(_clean_up, part_id, group, started)

    @property
    def guardian_pid(self) -> int | None:
        """None before the first command."""
        return self._guardian.pid if self._guardian else None

    async def close(self) -> None:
        """The server stops: end whatever still runs. Returns when it is dead, after at most four seconds."""
        if self._guardian is not None:
            os.close(self._reports)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(self._guardian.wait, _FAREWELL_SECONDS_MAX)
            self._guardian = None
        for process in self._living:
            process.output.close()
        self._living.clear()

    def _report(self, group: int) -> None:
        """Tell the guardian of a group: the pipe keeps it even if we die at the next instruction. Starts a guardian if there is
        none, or if somebody killed it; a new one is told of all that lives."""
        if self._guardian is not None and self._guardian.poll() is None:
            try:
                os.write(self._reports, f"{group}\n".encode())
                return
            except (BrokenPipeError, BlockingIOError):  # dying, or stopped and of no use
                self._guardian.kill()
        if self._guardian is not None:
            os.close(self._reports)
            self._guardian = None
        stdin, self._reports = os.pipe()
        try:
            # Not asyncio's: its transport kills the process when the event loop goes away, and ours must see the server out.
            self._guardian = subprocess.Popen(
                [sys.executable, "-I", "-S", guardian.__file__, f"{_GUARDIAN}={self._id}"],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment(os.environ),
                start_new_session=True,
            )
        except BaseException:
            os.close(self._reports)
            raise
        finally:
            os.close(stdin)
        os.set_blocking(self._reports, False)
        os.write(
            self._reports,
            b"".join(b"%d\n" % process.group for process in self._living if guardian.exists(process.group)),
        )


def _clean_up(part_id: str, group: int, started: str) -> None:
    ours = group > 1 and started != "" and guardian.started(group) == started
    guardian.end({group} if ours else set(), f"{_PART}={part_id}")


def _parent_death_signal() -> tuple[str, ...]:
    """The command prefix with which the kernel kills the process when we die; empty where there is none. `setpriv` (util-linux)
    asks the kernel after the fork, in a process of its own: no Python runs between fork and exec, where threads make it
    unsafe. That we may die before it asked is harmless: then the gate stays shut."""
    setpriv = shutil.which("setpriv") if sys.platform == "linux" else None
    if setpriv is None:
        return ()
    prefix = (setpriv, "--pdeathsig", "KILL", "--")
    try:
        probe = subprocess.run(
            [*prefix, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=_PROBE_SECONDS_MAX,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return prefix if probe.returncode == 0 else ()
