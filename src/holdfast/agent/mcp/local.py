"""A server that is a program of ours: its processes, and its lines as messages of the `mcp` library.

The processes are owned like those of tools (`agent.tools.processes`): they die with Holdfast, however it dies. What the program
writes to stderr goes to our log, so many lines and no more (`log_line` is given what is left of it).
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import structlog
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from holdfast.agent.mcp.base import MESSAGE_BYTES_MAX, ServerFailed
from holdfast.agent.tools.conversations import LastWords, end, how_it_ended, listen, path_of, uninterrupted
from holdfast.agent.tools.processes import Conversation, Processes

_UNREADABLE_LOGGED_MAX: Final = 5

Streams = tuple[Any, Any]
"""From the server, to the server: the library's word for a transport, which it does not export."""

log = structlog.get_logger()


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
    program = path_of(command[0], directory, variables)
    if program is None:
        raise ServerFailed(f"There is no program {command[0][:200]!r}.")
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
            ended(why if why is not None else await how_it_ended(talk, listening, words))

    async def write() -> None:
        async with outgoing:
            with contextlib.suppress(OSError):  # the reader says why
                async for message in outgoing:
                    json = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    talk.stdin.write(json.encode() + b"\n")
                    await talk.stdin.drain()

    listening = asyncio.create_task(listen(talk, words))
    tasks = [asyncio.create_task(read()), asyncio.create_task(write()), listening]
    try:
        yield read_stream, write_stream
    finally:
        await uninterrupted(end(talk, tasks))
        read_stream.close()
        write_stream.close()


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
