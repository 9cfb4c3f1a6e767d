"""Sessions as durable streams: `session/{sessionID}`, `directory/{id}`, `all`, each an `application/json` stream of events.

Owns the translation from a store's scopes to streams that can be read. A record's bytes are passed on as they were recorded.
Positions are those of the store, so a place in one of these streams is a place in every one.

Rules
 1. The tail of such a stream is the head of the store when it was read: nothing of the scope lies between the scope's newest
    record and that.
 2. A session's stream is closed once the session is deleted; the wider ones never are.
 3. Compacted deltas leave no gap that matters: the record that closed their part carries its text (`core.store`).
"""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Sequence
from typing import Final

from holdfast.core.errors import NotFound
from holdfast.core.offsets import to_offset, to_position
from holdfast.core.store import ALL, AllScope, DirectoryScope, Recorded, Scope, SessionScope, SessionStore, is_full
from holdfast.core.streams import JSON, Page, Stream, StreamNotFound

RECORDS_MAX: Final = 1000
"""Of a page: a record is small, but for the few that close a long part."""

_DELETED: Final = "session.deleted."


def is_session_path(path: str) -> bool:
    return path == "all" or path.startswith(("session/", "directory/"))


def is_chat_path(path: str) -> bool:
    if not path.startswith("session/"):
        return False
    pieces = path.split("/", 3)
    return len(pieces) == 4 and pieces[2] == "chat"


def chat_path(session_id: str, message_id: str) -> str:
    """The stream of the answer to a prompt."""
    return f"session/{session_id}/chat/{message_id}"


def directory_id(directory: str) -> str:
    """The name of a directory in `directory/{id}`: its absolute path in URL-safe Base64 without padding."""
    return urlsafe_b64encode(directory.encode()).decode().rstrip("=")


def to_scope(path: str) -> Scope:
    """Raises StreamNotFound."""
    kind, _, name = path.partition("/")
    match kind:
        case "all":
            return ALL
        case "session" if "/" not in name:
            return SessionScope(name)
        case "directory":
            try:
                return DirectoryScope(urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode())
            except (Base64Error, ValueError):
                raise StreamNotFound(path) from None
        case _:
            raise StreamNotFound(path)


class SessionStreams:
    """The port `core.streams.StreamReader`."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def head(self, path: str) -> Stream:
        return await self._stream(path, to_scope(path))

    touch = head

    async def read(self, path: str, *, after: int, bytes_max: int) -> Page:
        scope = to_scope(path)
        stream = await self._stream(path, scope)
        records = await self._store.read(scope, after=to_offset(after), limit=RECORDS_MAX, bytes_max=bytes_max)
        taken = _fitting(records, bytes_max)
        if len(taken) < len(records) or is_full(records, RECORDS_MAX, bytes_max):
            reached = to_position(taken[-1].offset)
            return Page(stream, after, reached, _run(taken), False)
        reached = max(to_position(taken[-1].offset) if taken else after, stream.tail)
        return Page(stream, after, reached, _run(taken), True)

    async def watch(self, path: str, *, after: int) -> "SessionWatch":
        scope = to_scope(path)
        await self._stream(path, scope)
        return SessionWatch(self, self._store, path, scope, after)

    async def _stream(self, path: str, scope: Scope) -> Stream:
        tail = to_position(self._store.head())
        closed = False
        match scope:
            case SessionScope(session_id):
                try:
                    await self._store.session(session_id)
                except NotFound:
                    try:
                        await self._store.read(scope, after=to_offset(0), limit=1)
                    except NotFound:
                        raise StreamNotFound(path) from None
                    closed = True
            case DirectoryScope(directory):
                if not any(known.directory == directory for known in await self._store.directories()):
                    raise StreamNotFound(path)
            case AllScope():
                pass
        return Stream(id=0, path=path, content_type=JSON, created_ms=0, touched_ms=0, tail=tail, closed=closed)


class SessionWatch:
    """First pages (`read`), which know whether they reach the tail; from there a subscription."""

    def __init__(self, streams: SessionStreams, store: SessionStore, path: str, scope: Scope, after: int) -> None:
        self._streams = streams
        self._store = store
        self._path = path
        self._scope = scope
        self._after = after
        self._live = Interruptible()

    async def next(self, *, bytes_max: int) -> Page | None:
        if not self._live.is_open:
            page = await self._streams.read(self._path, after=self._after, bytes_max=bytes_max)
            self._after = page.next
            if page.at_tail:
                self._live.open(self._store.subscribe(self._scope, after=to_offset(self._after)))
            if page.data or page.at_end:
                return page
        records = await self._live.next()
        if records is None:
            return Page(self._at(self._after, False), self._after, self._after, b"", True)
        if not records:
            return None
        after, self._after = self._after, to_position(records[-1].offset)
        closed = isinstance(self._scope, SessionScope) and records[-1].tag.startswith(_DELETED)
        return Page(self._at(self._after, closed), after, self._after, _run(records), True)

    def _at(self, tail: int, closed: bool) -> Stream:
        return Stream(id=0, path=self._path, content_type=JSON, created_ms=0, touched_ms=0, tail=tail, closed=closed)

    def interrupt(self) -> None:
        self._live.interrupt()

    def close(self) -> None:
        self._live.close()


class Interruptible:
    """A subscription whose reader can be called away without losing a batch. It is opened once the past has been read; an
    interruption before that holds as well."""

    def __init__(self) -> None:
        self._subscription: AsyncIterator[Sequence[Recorded]] | None = None
        self._batch: asyncio.Task[Sequence[Recorded]] | None = None
        self._interrupted = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._subscription is not None

    def open(self, subscription: AsyncIterator[Sequence[Recorded]]) -> None:
        self._subscription = subscription

    async def next(self) -> Sequence[Recorded] | None:
        """The next batch, empty at the end; None if interrupted."""
        assert self._subscription is not None
        if self._batch is None:
            self._batch = asyncio.ensure_future(_next_batch(self._subscription))
        if not self._batch.done():
            interrupted = asyncio.ensure_future(self._interrupted.wait())
            try:
                await asyncio.wait((self._batch, interrupted), return_when=asyncio.FIRST_COMPLETED)
            finally:
                interrupted.cancel()
        if not self._batch.done():
            self._interrupted.clear()
            return None
        records = self._batch.result()
        self._batch = None
        return records

    def interrupt(self) -> None:
        self._interrupted.set()

    def close(self) -> None:
        if self._batch is not None:
            self._batch.cancel()


async def _next_batch(subscription: AsyncIterator[Sequence[Recorded]]) -> Sequence[Recorded]:
    """Empty at the end."""
    try:
        return await anext(subscription)
    except StopAsyncIteration:  # not a default for anext: with one, this end is a SystemError in Python 3.11
        return ()


def _fitting(records: Sequence[Recorded], bytes_max: int) -> Sequence[Recorded]:
    """At least one, then as many as fit."""
    size = 0
    for index, record in enumerate(records):
        size += len(record.data) + 1
        if index and size > bytes_max:
            return records[:index]
    return records


def _run(records: Sequence[Recorded]) -> bytes:
    return b"".join([piece for record in records for piece in (record.data, b",")])
