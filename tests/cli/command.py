"""The `holdfast` command as a process of its own, watched while it runs."""

import asyncio
import codecs
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from typer.testing import CliRunner

from holdfast.cli import app
from holdfast.testing.server_process import holdfast_command

SECONDS_MAX = 90


class Command:
    """`async with Command("run", …) as run:` starts it, and kills it at the end if it still runs. `out` and `err` are what
    it wrote so far. `launcher` is a command that starts it."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        launcher: Sequence[str] = (),
    ) -> None:
        self.out = ""
        self.err = ""
        self._command = [*launcher, *holdfast_command(*arguments)]
        self._cwd = cwd
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._stdin = stdin
        self._changed = asyncio.Condition()
        self._silent: set[str] = set()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._cwd,
            env=self._env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._process.stdin.write(self._stdin)
        self._process.stdin.close()
        self._reading = asyncio.gather(self._read("out", self._process.stdout), self._read("err", self._process.stderr))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self, name: str, stream: asyncio.StreamReader) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")()  # a piece may end in the middle of a character
        while piece := await stream.read(65536):
            async with self._changed:
                setattr(self, name, getattr(self, name) + decoder.decode(piece))
                self._changed.notify_all()
        async with self._changed:
            self._silent.add(name)
            self._changed.notify_all()

    async def until_out(self, text: str) -> None:
        """Return as soon as it has written the text to stdout."""
        await self._until(lambda: text in self.out)

    async def until_err(self, text: str) -> None:
        await self._until(lambda: text in self.err)

    async def _until(self, condition: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(SECONDS_MAX), self._changed:
                await self._changed.wait_for(lambda: condition() or len(self._silent) == 2)
        except TimeoutError:
            pass
        assert condition(), f"out: {self.out}\nerr: {self.err}"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def exit_code(self, seconds_max: float = SECONDS_MAX) -> int:
        async with asyncio.timeout(seconds_max):
            code = await self._process.wait()
        await self._reading
        return code


async def holdfast(
    *arguments: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> tuple[int, str, str]:
    """Run it to its end: exit code, stdout, stderr."""
    async with Command(*arguments, cwd=cwd, env=env, stdin=stdin) as command:
        code = await command.exit_code()
    return code, command.out, command.err


async def invoke(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """The same inside of this process, which is quicker: for commands that end by themselves."""
    invoked = await asyncio.to_thread(CliRunner().invoke, app, [str(argument) for argument in arguments], input=stdin)
    if invoked.exception is not None and not isinstance(invoked.exception, SystemExit):
        raise invoked.exception
    return invoked.exit_code, invoked.stdout, invoked.stderr
