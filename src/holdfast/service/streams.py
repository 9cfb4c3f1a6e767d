"""What a user can do with durable streams, whatever the face: those anybody writes, and those Holdfast itself writes.

`session/{id}`, `directory/{id}` and `all` are sessions' events (`service.session_streams`), and `session/{id}/chat/{messageID}`
is the answer to a prompt as a face has it (which one, `bootstrap` says). They can be read like any other stream, and not be
written, deleted or forked.
"""

import asyncio
from typing import Final

import structlog

from holdfast.core.errors import HoldfastError
from holdfast.core.offsets import split_place
from holdfast.core.streams import (
    Append,
    ByteStreamStore,
    Create,
    Created,
    Page,
    Stream,
    StreamAppended,
    StreamReader,
    StreamReadOnly,
    Watch,
)
from holdfast.service.session_streams import is_chat_path, is_session_path

log = structlog.get_logger()

UPKEEP_SECONDS: Final = 2.0


class StreamService:
    """The port again, over all kinds."""

    def __init__(
        self,
        store: ByteStreamStore,
        session_streams: StreamReader,
        chat_streams: StreamReader,
        *,
        upkeep_seconds: float = UPKEEP_SECONDS,
    ) -> None:
        self._store = store
        self._session_streams = session_streams
        self._chat_streams = chat_streams
        self._upkeep_seconds = upkeep_seconds
        self._upkeep: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._upkeep = asyncio.create_task(self._keep_up())

    async def stop(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(self._upkeep_seconds)
            try:
                await self._store.upkeep()
            except HoldfastError as error:
                log.error("streams.upkeep_failed", reason=error.message)
            except Exception:  # whatever it is, the next time may go better; without it nothing would go away any more
                log.exception("streams.upkeep_failed")

    async def create(self, command: Create) -> Created:
        _check_writable(command.path)
        if command.source_path is not None:
            _check_writable(command.source_path)
        return await self._store.create(command)

    async def append(self, command: Append) -> StreamAppended:
        _check_writable(command.path)
        return await self._store.append(command)

    async def delete(self, path: str) -> None:
        _check_writable(path)
        await self._store.delete(path)

    def _reader(self, path: str) -> StreamReader:
        if is_chat_path(path):
            return self._chat_streams
        return self._session_streams if is_session_path(path) else self._store

    async def head(self, path: str) -> Stream:
        return await self._reader(path).head(path)

    async def touch(self, path: str) -> Stream:
        return await self._reader(path).touch(path)

    async def read(self, path: str, *, after: int, bytes_max: int) -> Page:
        return await self._reader(path).read(path, after=_place(path, after), bytes_max=bytes_max)

    async def watch(self, path: str, *, after: int) -> Watch:
        return await self._reader(path).watch(path, after=_place(path, after))


def _place(path: str, after: int) -> int:
    """Only chats have places inside of records."""
    return after if is_chat_path(path) else split_place(after)[0]


def _check_writable(path: str) -> None:
    if is_session_path(path):
        raise StreamReadOnly(path)
