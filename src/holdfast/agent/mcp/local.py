"""A server that is a program of ours: its processes, and its lines as messages of the `mcp` library.

The processes are owned like those of tools (`agent.tools.processes`): they die with Holdfast, however it dies. What the program
writes to stderr goes to our log, so many lines and no more (`log_line` is given what is left of it).
"""

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from holdfast.agent.mcp.base import MESSAGE_BYTES_MAX, ServerFailed
from holdfast.agent.tools.processes import Conversation, Processes

LINES_LOGGED_MAX: Final = 200
LINE_CHARACTERS_MAX: Final = 500
_UNREADABLE_LOGGED_MAX: Final = 5
_END_SECONDS: Final = 0.5

Streams = tuple[Any, Any]
"""From the server, to the server: the library's word for a transport, which it does not export."""

log = structlog.get_logger()


class LastWords:
    """What a program wrote to stderr: passed on to `log_line`, at most `LINES_LOGGED_MAX` lines of it; `last` is the newest."""

    def __init__(self, log_line: Callable[[str], None]) -> None:
        self.last = ""
        self._log_line = log_line
        self._lines = 0

    def add(self, line: bytes) -> None:
        text = line[: 4 * LINE_CHARACTERS_MAX].decode(errors="replace").strip()[:LINE_CHARACTERS_MAX]
        if not text:
            return
        self.last = text
        self._lines += 1
        if self._lines <= LINES_LOGGED_MAX:
            self._log_line(text)
        elif self._lines == LINES_LOGGED_MAX + 1:
            self._log_line("(what it writes from now on is not logged)")


@contextlib.asynccontextmanager
async def local_streams(
    processes: Processes,
    command: Sequence[str],
    *,
    directory: Path,
    variables: Mapping[str, str],
    words: LastWords,
    ended: Callable[[str], None],
) -> AsyncGenerator[Streams, None]:
    """A running program. `ended` is told why nothing more comes from it. Raises ServerFailed if it cannot be started."""
    program = _found(command[0], directory, variables)
    try:
        talk = await processes.converse(
            program,
            command[1:],
            directory=directory,
            variables=variables,
            id=f"mcp_{secrets.token_hex(8)}",
            line_max=MESSAGE_BYTES_MAX,
        )
    except ValueError:
        raise ServerFailed("Its command or its environment holds a NUL character.") from None
    except OSError as error:
        raise ServerFailed(f"It could not be started: {error.strerror}") from error
    incoming, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outgoing = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        async with incoming:
            why = await _read(talk, incoming.send)
            if why is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(talk.process.wait(), _END_SECONDS)
                await asyncio.wait({listening}, timeout=_END_SECONDS)
                why = f"It ended (exit status {talk.process.status}){f': {words.last}' if words.last else ''}"
            ended(why)

    async def write() -> None:
        async with outgoing:
            with contextlib.suppress(OSError):  # the reader says why
                async for message in outgoing:
                    json = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    talk.stdin.write(json.encode() + b"\n")
                    await talk.stdin.drain()

    listening = asyncio.create_task(_listen(talk, words))
    tasks = [asyncio.create_task(read()), asyncio.create_task(write()), listening]
    try:
        yield read_stream, write_stream
    finally:
        await _uninterrupted(_end(talk, tasks))
        read_stream.close()
        write_stream.close()


def _found(program: str, directory: Path, variables: Mapping[str, str]) -> str:
    """Its path. Said before anything is started, since a shell would say it less clearly."""
    path = variables.get("PATH") or os.environ.get("PATH")
    found = shutil.which(str(directory / program) if "/" in program else program, path=path)
    if found is None:
        raise ServerFailed(f"There is no program {program[:200]!r}.")
    return found


async def _read(talk: Conversation, send: Callable[[SessionMessage], Awaitable[None]]) -> str | None:
    """Pass messages on until the program has nothing more to say. Answers what it did wrong, if it did."""
    unreadable = 0
    while True:
        try:
            line = await talk.stdout.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError:
            return f"It sent a message of more than {MESSAGE_BYTES_MAX >> 20} MB."
        except OSError as error:
            return f"It cannot be read: {error.strerror}"
        try:
            message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            unreadable += 1
            if line.strip() and unreadable <= _UNREADABLE_LOGGED_MAX:  # what it says there may be anything
                log.warning("mcp.unreadable", bytes=len(line))
            await asyncio.sleep(0)  # lines that are here already are read without a pause, and there may be many
            continue
        try:
            await send(SessionMessage(message))
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            return None


async def _listen(talk: Conversation, words: LastWords) -> None:
    rest = b""
    while data := await talk.process.output.read():
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-4 * LINE_CHARACTERS_MAX :]
        for line in lines:
            words.add(line)
    words.add(rest)


async def _end(talk: Conversation, tasks: Sequence[asyncio.Task[None]]) -> None:
    """As the protocol wants it: no more input, some time to end by itself, then an end with all it started."""
    talk.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(talk.process.wait(), _END_SECONDS)
    await talk.process.end()
    talk.process.output.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do it to the end, even if we are cancelled meanwhile: else the program would live on."""
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
