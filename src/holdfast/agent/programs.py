"""Runs a program to its end: bounded in time and output, off the event loop, and dead when nobody waits for it any more.

For helpers of ours that only compute (git, a search). What a model or a user wants to run goes through `agent.tools`.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine, Mapping
from typing import Any, Final

import msgspec

_READ_BYTES: Final = 1 << 16
_ERRORS_BYTES_MAX: Final = 1 << 14
_FAREWELL_SECONDS_MAX: Final = 2.0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is the exit status (negative: the signal that ended it). `is_cut`: there was more output than was asked for,
    so the program was ended."""

    status: int
    output: bytes
    errors: str
    is_cut: bool = False


async def run(
    *argv: str,
    directory: str,
    environment: Mapping[str, str],
    seconds_max: float,
    output_bytes_max: int,
    input: bytes | None = None,
) -> Ended:
    """Raises OSError if it cannot be started, TimeoutError if it took too long. Whatever happens, and on cancellation too,
    the program has ended and what it started was killed when this returns."""
    process = await _started(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if input is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=directory,
            env=environment,
            start_new_session=True,
        )
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(seconds_max), asyncio.TaskGroup() as group:
            if input is not None and process.stdin is not None:
                group.create_task(_feed(process.stdin, input))
            errors = group.create_task(_first(process.stderr, _ERRORS_BYTES_MAX))
            output, is_cut = await _bounded(process.stdout, output_bytes_max)
            if is_cut:
                _kill(process)
                await _discard(process.stdout)
            await process.wait()
    finally:
        await _end(process)
    assert process.returncode is not None
    said = errors.result().decode(errors="replace").strip()
    return Ended(status=process.returncode, output=output, errors=said, is_cut=is_cut)


async def _started(starting: Coroutine[Any, Any, asyncio.subprocess.Process]) -> asyncio.subprocess.Process:
    """asyncio loses a process whose start is cancelled, and may wait for it for ever: so let it start, then end it."""
    task = asyncio.create_task(starting)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled() and task.exception() is None:
            await _end(task.result())
        raise


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it, if it still runs, and see it off: asyncio takes it for ended only when its pipes have been read to theirs.
    Gives up on a pipe that somebody else holds open."""
    if process.returncode is None:
        _kill(process)
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_FAREWELL_SECONDS_MAX):
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    await _discard(stream)
            await process.wait()


async def _discard(stream: asyncio.StreamReader) -> None:
    while await stream.read(_READ_BYTES):
        pass


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    if stdin.is_closing():  # it has ended before it was told anything: uvloop's pipe then raises a RuntimeError
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has read enough
        stdin.write(data)
        await stdin.drain()
    stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await stdin.wait_closed()


async def _bounded(stream: asyncio.StreamReader, bytes_max: int) -> tuple[bytes, bool]:
    pieces: list[bytes] = []
    left = bytes_max
    while data := await stream.read(_READ_BYTES):
        pieces.append(data[:left])
        left -= len(data)
        if left < 0:
            return b"".join(pieces), True
    return b"".join(pieces), False


async def _first(stream: asyncio.StreamReader, bytes_max: int) -> bytes:
    """The beginning of what is written; the rest is read too, so that nobody waits for us."""
    kept = b""
    while data := await stream.read(_READ_BYTES):
        kept += data[: bytes_max - len(kept)]
    return kept


def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
