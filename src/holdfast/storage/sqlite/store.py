"""The SQLite backend: one database file, one writing thread with group commit, a few reading threads.

Owns the life of the parts and the way between the event loop and the threads; what is written and read is decided in
the modules beside it: `append` and `streams` (what an append changes), `writer` (transactions), `read` (queries),
`compact`, `verify`, `files` (the data directory).
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from holdfast.core.errors import StorageError, Unavailable
from holdfast.core.events import Event
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import WithParts
from holdfast.core.offsets import BEGINNING, Offset, to_offset
from holdfast.core.permissions import PermissionRule
from holdfast.core.session import Session, SessionStatus, Todo
from holdfast.core.state import PermissionEntry, QuestionEntry, TurnState
from holdfast.core.store import (
    Appended,
    Decide,
    Difference,
    Directory,
    Lease,
    MessagePage,
    Recorded,
    Scope,
    SessionPage,
    SessionQuery,
    Snapshot,
)
from holdfast.storage.byte_streams import Access
from holdfast.storage.sqlite import search, verify, verify_streams
from holdfast.storage.sqlite.append import Appender
from holdfast.storage.sqlite.byte_streams import Both, ByteStreamRows, SqliteByteStreams
from holdfast.storage.sqlite.compact import compact, forget_keys
from holdfast.storage.sqlite.database import Database, DriverError, is_damage, storage_errors, to_storage_error
from holdfast.storage.sqlite.files import DATABASE_NAME, DirectoryLock, open_reader, open_writer
from holdfast.storage.sqlite.read import Queries
from holdfast.storage.sqlite.subscriptions import SqliteSubscriptions
from holdfast.storage.sqlite.writer import Writer
from holdfast.storage.tail import BYTES_MAX, PAGE_RECORDS, Subscription, Tails

T = TypeVar("T")

READERS: Final = 2
"""Two, so that a long read does not hold up the short ones. More would only wait for the interpreter."""


def _ignore(error: StorageError) -> None:
    pass


class SqliteStore:
    """Both ports of `holdfast.core.store` over one data directory. Made by `open`, on the event loop it then lives on."""

    @classmethod
    async def open(
        cls,
        data_directory: Path,
        *,
        now_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
        on_failure: Callable[[StorageError], None] = _ignore,
        tail_bytes_max: int = BYTES_MAX,
        page_records: int = PAGE_RECORDS,
        vfs: str | None = None,
    ) -> "SqliteStore":
        """Take the directory, bring the schema up to date. `on_failure` is called, once, when the disk let the store down:
        nothing is accepted any more, what was acknowledged is safe, and the process should stop. `tail_bytes_max`,
        `page_records` and `vfs` are for tests.

        Raises StorageLocked if another process has the directory; StorageError if it cannot be used, if the file in it is
        damaged or not ours, or if a newer Holdfast wrote it."""
        path = data_directory / DATABASE_NAME
        with ExitStack() as undo:
            lock = await asyncio.to_thread(DirectoryLock, data_directory)
            undo.callback(lock.release)
            database = await asyncio.to_thread(open_writer, path, vfs)
            undo.callback(database.close)
            with storage_errors(path):
                store = cls(lock, database, now_ms, entropy, on_failure, tail_bytes_max, page_records, vfs)
            undo.pop_all()
            return store

    def __init__(
        self,
        lock: DirectoryLock,
        database: Database,
        now_ms: Callable[[], int],
        entropy: Callable[[int], bytes],
        on_failure: Callable[[StorageError], None],
        tail_bytes_max: int,
        page_records: int,
        vfs: str | None,
    ) -> None:
        self._lock = lock
        self._database = database
        self._vfs = vfs
        self._readers: list[Database] = [open_reader(database.path, vfs)]
        self._appender = Appender(database, now_ms, entropy)
        newest = self._appender.newest
        self._head = to_offset(newest) if newest else BEGINNING
        self.ids: Final = IdGenerator(now_ms, entropy, not_before_ms=newest // 1000)
        self._tails = Tails(self, self._is_over, bytes_max=tail_bytes_max, page_records=page_records)
        access = Access(now_ms)
        rows = ByteStreamRows(database, access)
        self._writer = Writer(database, Both(self._appender, rows), published=self._publish, failed=on_failure)
        self._reading = ThreadPoolExecutor(READERS, "holdfast-reader")
        self._local = threading.local()
        self._byte_streams = SqliteByteStreams(
            rows, access, submit=self._writer.submit, query=self._query_database, ask=self._ask
        )
        self.byte_streams: Final = self._byte_streams.streams
        self.subscriptions: Final = SqliteSubscriptions(
            database,
            submit=self._writer.submit,
            submit_leaving_nothing=self._writer.submit_leaving_nothing,
            query=self._query_database,
        )
        self._closed = False
        self._closing: asyncio.Future[None] | None = None

    # --- the log

    def head(self) -> Offset:
        return self._head

    async def read(
        self, scope: Scope, *, after: Offset, limit: int = 1000, bytes_max: int | None = None
    ) -> Sequence[Recorded]:
        return await self._query(lambda queries: queries.read(scope, after, limit, bytes_max))

    async def missing(
        self, directory: str, known: Mapping[str, int], *, limit: int, bytes_max: int
    ) -> Sequence[Recorded]:
        return await self._query(lambda queries: queries.missing(directory, known, limit, bytes_max))

    def subscribe(self, scope: Scope, *, after: Offset | None = None) -> Subscription:
        return self._tails.subscribe(scope, after)

    async def _is_over(self, session_id: str) -> bool:
        return await self._query(lambda queries: queries.is_over(session_id))

    def _publish(self, records: Sequence[Recorded]) -> None:
        if records:
            self._head = records[-1].offset
            self._tails.publish(records)
        self._byte_streams.published()  # last: others hear of this, and a defect of theirs is to be no gap of anybody

    # --- writing

    async def append(
        self,
        session_id: str,
        events: Sequence[Event] | Decide,
        *,
        expected: int | None = None,
        key: str | None = None,
        lease: Lease | None = None,
    ) -> Appended:
        events = events if callable(events) else tuple(events)
        return await self._writer.submit(partial(self._appender.append, session_id, events, expected, key, lease))

    async def claim(self, session_id: str, owner: str, *, now_ms: int, ttl_ms: int) -> Lease | None:
        return await self._writer.submit(partial(self._appender.claim, session_id, owner, now_ms, ttl_ms))

    async def release(self, lease: Lease) -> None:
        await self._writer.submit(partial(self._appender.release, lease))

    # --- reading

    async def session(self, session_id: str) -> Session:
        return await self._query(lambda queries: queries.session(session_id))

    async def sessions(self, query: SessionQuery) -> Sequence[bytes]:
        return await self._query(lambda queries: queries.sessions(query))

    async def session_page(self, query: SessionQuery) -> SessionPage:
        return await self._query(lambda queries: queries.session_page(query))

    async def statuses(self, directory: str | None = None) -> dict[str, SessionStatus]:
        return await self._query(lambda queries: queries.statuses(directory))

    async def todos(self, session_id: str) -> tuple[Todo, ...]:
        return await self._query(lambda queries: queries.todos(session_id))

    async def message(self, session_id: str, message_id: str) -> WithParts:
        return await self._query(lambda queries: queries.message(session_id, message_id))

    async def message_page(
        self, session_id: str, *, limit: int | None = None, before: int | None = None, after: int | None = None
    ) -> MessagePage:
        return await self._query(lambda queries: queries.message_page(session_id, limit, before, after))

    async def history(self, session_id: str) -> tuple[WithParts, ...]:
        return await self._query(lambda queries: queries.history(session_id))

    async def turn_state(self, session_id: str) -> TurnState:
        return await self._query(lambda queries: queries.turn_state(session_id))

    async def unfinished(self) -> Sequence[str]:
        return await self._query(Queries.unfinished)

    async def pending_permissions(self, directory: str | None = None) -> Sequence[PermissionEntry]:
        return await self._query(lambda queries: queries.pending_permissions(directory))

    async def pending_questions(self, directory: str | None = None) -> Sequence[QuestionEntry]:
        return await self._query(lambda queries: queries.pending_questions(directory))

    async def approvals(self, project_id: str) -> Sequence[PermissionRule]:
        return await self._query(lambda queries: queries.approvals(project_id))

    async def directories(self) -> Sequence[Directory]:
        return await self._query(Queries.directories)

    async def snapshot(self, scope: Scope, *, changed_since_ms: int, sessions_max: int, messages_max: int) -> Snapshot:
        return await self._query(lambda queries: queries.snapshot(scope, changed_since_ms, sessions_max, messages_max))

    async def _query(self, query: Callable[[Queries], T]) -> T:
        self._check_open()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reading, self._run_query, query)
        except DriverError as error:
            raise self._failure(error) from error

    def _ask(self, question: Callable[[Database], T]) -> T:
        """On the loop, by a connection of its own: what is answered from an index at once."""
        self._check_open()
        try:
            return question(self._readers[0])
        except DriverError as error:
            raise self._failure(error) from error

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The store is closed.", hint="Start the server again.")

    def _failure(self, error: DriverError) -> StorageError:
        failure = to_storage_error(error, self._database.path)
        if is_damage(error):
            self._writer.fail(failure)
        return failure

    async def _query_database(self, query: Callable[[Database], T]) -> T:
        return await self._query(lambda queries: query(queries.database))

    def _run_query(self, query: Callable[[Queries], T]) -> T:
        """In a reading thread: one read transaction."""
        queries: Queries | None = getattr(self._local, "queries", None)
        if queries is None:
            reader = open_reader(self._database.path, self._vfs)
            self._readers.append(reader)
            queries = self._local.queries = Queries(reader)
        with self._writer.readers_wait:
            pass
        queries.database.run("BEGIN")
        try:
            return query(queries)
        finally:
            queries.database.rollback()

    # --- upkeep

    async def compact(self, *, closed_before_ms: int, records_max: int) -> int:
        def job() -> int:
            self._appender.flush()
            return compact(self._database, closed_before_ms, records_max)

        return await self._writer.submit(job)

    async def forget_keys(self, *, before_ms: int, keys_max: int) -> int:
        return await self._writer.submit(lambda: forget_keys(self._database, before_ms, keys_max))

    async def verify(self) -> AsyncIterator[Difference]:
        for difference in await self._query(lambda queries: verify.structure(queries.database)):
            yield difference
        for difference in await self._query_database(lambda database: list(search.differences(database))):
            yield difference
        for session_id in await self._query(lambda queries: verify.session_ids(queries.database)):
            for difference in await self._query(partial(_verify_session, session_id)):
                yield difference
        for difference in await self._query_database(verify_streams.structure):
            yield difference
        for stream_id in await self._query_database(verify_streams.stream_ids):
            for difference in await self._query_database(partial(verify_streams.stream, stream_id=stream_id)):
                yield difference

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._writer.close()
        self._closed = True
        self._tails.close()
        self.byte_streams.close()
        await asyncio.to_thread(self._close_files)

    def _close_files(self) -> None:
        self._reading.shutdown()
        for database in (*self._readers, self._database):
            with suppress(DriverError):  # the write-ahead log keeps what was committed
                database.close()
        self._lock.release()


def _verify_session(session_id: str, queries: Queries) -> list[Difference]:
    return verify.session(queries.database, session_id)
