"""Byte streams in the SQLite database: what a batch changes in the writing thread, and how the loop reads.

Owns the tables `byte_*`. A record's data is stored as reads return it; beside it, in the same transaction, go the state of its
stream and of its producer.

Rules
 1. Decisions are made in the writing thread, on the newest state, durable or not; a batch that fails is the writer's last,
    so what is cached here can be trusted.
 2. Rows that jobs leave to be written are written once, at the end of the batch: sixteen appends to a stream are sixteen
    records and one row.
 3. A position is max(last + 1, now in microseconds): never used again, and the time of the append. What is removed is not
    forgotten in that: `byte_position` has the newest position that records and streams no longer show.
 4. Records of a stream that is gone are removed later, in small pieces.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from holdfast.core import stream_rules
from holdfast.core.offsets import position_of
from holdfast.core.store import Recorded
from holdfast.core.stream_rules import AddRecord, Change, DropStream, PutProducer, PutStream
from holdfast.core.streams import ProducerState, Stream, StreamNotFound
from holdfast.storage.byte_streams import Access, Decide, Piece, Streams, let_go, segments
from holdfast.storage.sqlite.append import Appender
from holdfast.storage.sqlite.database import Database

T = TypeVar("T")

CACHED_MAX: Final = 4096
UPKEEP_ROWS_MAX: Final = 1000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Stream).decode


class ByteStreamRows:
    """In the writing thread, inside a transaction: the batch, and the `Books` of `core.stream_rules`."""

    def __init__(self, database: Database, access: Access) -> None:
        self._database = database
        self._access = access
        self._now_ms = 0
        newest = database.one(
            "SELECT max((SELECT ifnull(max(position), 0) FROM byte_record), (SELECT ifnull(max(id), 0) FROM byte_stream),"
            " (SELECT newest FROM byte_position))"
        )
        self._position: int = newest[0]
        self._has_removed = False
        self._by_path: dict[str, Stream | None] = {}
        self._by_id: dict[int, Stream] = {}
        self._producers: dict[tuple[int, str], ProducerState | None] = {}
        self._records: list[tuple[int, int, bytes]] = []
        self._dirty_streams: dict[int, Stream] = {}
        self._dirty_producers: dict[tuple[int, str], ProducerState] = {}
        self._changes: list[Change] = []
        self._flushed_rows = 0
        self._retained_up_to = 0
        """Of more streams than are looked at at a time, the next ones have their turn next time."""
        self.ended: deque[Sequence[Change]] = deque()
        """The changes of each batch, until it is published."""

    # --- the batch

    def begin(self) -> None:
        self._now_ms = self._access.clock_ms()
        if len(self._by_path) > CACHED_MAX:
            self._by_path.clear()
            self._by_id.clear()
        if len(self._producers) > CACHED_MAX:
            self._producers.clear()

    def changes(self) -> int:
        """Of jobs. What `flush` writes was counted when a job noted it, and would be counted as rows of the database again: a
        job that is refused after it had to flush what others left has changed nothing."""
        return len(self._changes) - self._flushed_rows

    def end(self) -> None:
        self.flush()
        if self._has_removed:
            self._database.run("UPDATE byte_position SET newest = ?", self._position)
            self._has_removed = False
        self.ended.append(self._changes)
        self._changes = []

    def flush(self) -> None:
        before = self._database.changes
        if self._records:
            self._database.run_many("INSERT INTO byte_record VALUES (?, ?, ?)", self._records)
            self._records = []
        if self._dirty_streams:
            self._database.run_many(
                "INSERT INTO byte_stream VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE "
                "SET look_ms = excluded.look_ms, data = excluded.data",
                [
                    (stream.id, stream.path, _look_ms(stream), stream.retention is not None, _encode(stream))
                    for stream in self._dirty_streams.values()
                ],
            )
            self._dirty_streams = {}
        if self._dirty_producers:
            self._database.run_many(
                "INSERT OR REPLACE INTO byte_producer VALUES (?, ?, ?, ?)",
                [(*key, *state) for key, state in self._dirty_producers.items()],
            )
            self._dirty_producers = {}
        self._flushed_rows += self._database.changes - before

    def run(self, decide: Decide[T]) -> T:
        """A job: decide, and note what changes."""
        outcome, changes = decide(self)
        for change in changes:
            self._apply(change)
        self._changes += changes
        return outcome

    def _apply(self, change: Change) -> None:
        match change:
            case AddRecord(stream_id, position, data):
                self._records.append((position, stream_id, data))
            case PutStream(stream):
                self._by_path[stream.path] = self._by_id[stream.id] = self._dirty_streams[stream.id] = stream
            case PutProducer(stream_id, producer_id, state):
                self._producers[stream_id, producer_id] = self._dirty_producers[stream_id, producer_id] = state
            case DropStream(stream):
                self.flush()
                self._database.run("DELETE FROM byte_stream WHERE id = ?", stream.id)
                self._database.run("INSERT INTO byte_dropped VALUES (?)", stream.id)
                self._has_removed = True
                self._by_path.pop(stream.path, None)
                self._by_id.pop(stream.id, None)

    # --- books

    def at(self, path: str) -> Stream | None:
        if path in self._by_path:
            return self._by_path[path]
        stream = self._by_path[path] = find(self._database, path)
        if stream is not None:
            self._by_id[stream.id] = stream
        return stream

    def get(self, stream_id: int) -> Stream:
        stream = self._by_id.get(stream_id)
        if stream is None:
            stream = self._by_id[stream_id] = get(self._database, stream_id)
            self._by_path[stream.path] = stream
        return stream

    def producer(self, stream_id: int, producer_id: str) -> ProducerState | None:
        key = stream_id, producer_id
        if key not in self._producers:
            row = self._database.one("SELECT epoch, seq FROM byte_producer WHERE stream = ? AND id = ?", *key)
            self._producers[key] = ProducerState(*row) if row is not None else None
        return self._producers[key]

    def next_record(self, stream: Stream, after: int) -> bytes | None:
        self.flush()
        found = pieces(self._database, stream, self.get, after, 0)
        return found[0][1] if found else None

    def accessed_ms(self, stream: Stream) -> int:
        return self._access.newest_ms(stream)

    def new_position(self) -> int:
        self._position = max(self._position + 1, position_of(self._now_ms))
        return self._position

    # --- upkeep, each a job

    def note_accesses(self, touched: dict[int, int]) -> None:
        for stream_id, at_ms in touched.items():
            stream = self._by_id.get(stream_id) or _get(self._database, stream_id)
            if stream is not None and stream.ttl_seconds is not None and stream.touched_ms < at_ms:
                self.run(lambda _, s=stream, at=at_ms: (None, (PutStream(replace(s, touched_ms=at)),)))

    def expire(self, now_ms: int) -> None:
        rows = self._database.all("SELECT id FROM byte_stream WHERE look_ms <= ? LIMIT ?", now_ms, UPKEEP_ROWS_MAX)
        for (stream_id,) in rows:
            if self._database.one("SELECT 1 FROM byte_stream WHERE id = ?", stream_id):
                self.run(lambda books, id=stream_id: (None, stream_rules.expire(books, self.get(id), now_ms)))

    def retain(self, now_ms: int) -> None:
        self.flush()
        rows = self._database.all(
            "SELECT id FROM byte_stream WHERE retained AND id > ? ORDER BY id LIMIT ?",
            self._retained_up_to,
            UPKEEP_ROWS_MAX,
        )
        self._retained_up_to = rows[-1][0] if len(rows) == UPKEEP_ROWS_MAX else 0
        for (stream_id,) in rows:
            stream = self.get(stream_id)
            changed = let_go(stream, self._oldest(stream_id), now_ms)
            if changed is not None:
                self._database.run(
                    "DELETE FROM byte_record WHERE stream = ? AND position <= ?", stream_id, changed.horizon
                )
                self._has_removed = True
                self.run(lambda _, s=changed: (None, (PutStream(s),)))

    def _oldest(self, stream_id: int) -> Iterator[tuple[int, int]]:
        """Read as they are asked for: of most streams, all but the first one are kept."""
        return self._database.each(
            "SELECT position, length(data) FROM byte_record WHERE stream = ? ORDER BY position LIMIT ?",
            stream_id,
            UPKEEP_ROWS_MAX,
        )

    def clear_dropped(self) -> bool:
        """Some of the records of one stream that is gone, then of its producers. True if there is more to do."""
        row = self._database.one("SELECT stream FROM byte_dropped LIMIT 1")
        if row is None:
            return False
        before = self._database.changes
        self._database.run(
            "DELETE FROM byte_record WHERE position IN (SELECT position FROM byte_record WHERE stream = ? LIMIT ?)",
            row[0],
            UPKEEP_ROWS_MAX,
        )
        if self._database.changes == before:
            self._database.run(
                "DELETE FROM byte_producer WHERE stream = ?1 AND id IN "
                "(SELECT id FROM byte_producer WHERE stream = ?1 LIMIT ?2)",
                row[0],
                UPKEEP_ROWS_MAX,
            )
        if self._database.changes == before:
            self._database.run("DELETE FROM byte_dropped WHERE stream = ?", row[0])
        return True


class Both:
    """One batch of both kinds of jobs: those of sessions and those of byte streams."""

    def __init__(self, appender: Appender, rows: ByteStreamRows) -> None:
        self._appender = appender
        self._rows = rows

    def begin(self) -> None:
        self._appender.begin()
        self._rows.begin()

    def changes(self) -> int:
        return self._appender.changes() + self._rows.changes()

    def end(self) -> list[Recorded]:
        self._rows.end()
        return self._appender.end()


class Submit(Protocol):
    def __call__(self, job: Callable[[], T], /) -> Awaitable[T]: ...


class Query(Protocol):
    def __call__(self, question: Callable[[Database], T], /) -> Awaitable[T]: ...


class Ask(Protocol):
    def __call__(self, question: Callable[[Database], T], /) -> T: ...


class SqliteByteStreams:
    """On the event loop: the backend of `storage.byte_streams`. `submit` runs a job in the writing thread's next transaction,
    `query` a question in a reading thread, `ask` one after a row on the loop itself."""

    def __init__(
        self,
        rows: ByteStreamRows,
        access: Access,
        *,
        submit: "Submit",
        query: "Query",
        ask: "Ask",
    ) -> None:
        self._rows = rows
        self._submit = submit
        self._query = query
        self._ask = ask
        self.streams = Streams(self, access)

    def published(self) -> None:
        """A batch has become durable."""
        changes = self._rows.ended.popleft()
        if changes:
            self.streams.publish(changes)

    async def transact(self, decide: Decide[T]) -> T:
        return await self._submit(lambda: self._rows.run(decide))

    def load(self, path: str) -> Stream | None:
        return self._ask(lambda database: find(database, path))

    async def pieces(self, stream: Stream, *, after: int, bytes_max: int) -> tuple[int, list[Piece]]:
        def question(database: Database) -> tuple[int, list[Piece]]:
            """In one transaction: as long as a stream has its row, its records are there, and those it inherits."""
            newest = _get(database, stream.id)
            if newest is None:
                raise StreamNotFound(stream.path)
            return newest.horizon, pieces(database, stream, lambda id: get(database, id), after, bytes_max)

        return await self._query(question)

    def paths(self) -> list[tuple[str, int]]:
        rows = self._ask(lambda database: database.all("SELECT data FROM byte_stream"))
        return [(stream.path, stream.tail) for stream in (_decode(data) for (data,) in rows) if not stream.deleted]

    async def upkeep(self, now_ms: int, touched: dict[int, int]) -> None:
        rows = self._rows
        if touched:
            await self._submit(lambda: rows.note_accesses(touched))
        if self._is_any("byte_stream WHERE look_ms <= ?", now_ms):
            await self._submit(lambda: rows.expire(now_ms))
        if self._is_any("byte_stream WHERE retained"):
            await self._submit(lambda: rows.retain(now_ms))
        if self._is_any("byte_dropped"):
            while await self._submit(rows.clear_dropped):
                pass

    def _is_any(self, rows: str, *bindings: int) -> bool:
        return self._ask(lambda database: database.one(f"SELECT 1 FROM {rows} LIMIT 1", *bindings)) is not None


# --- rows -------------------------------------------------------------------------------------------------------


def find(database: Database, path: str) -> Stream | None:
    row = database.one("SELECT data FROM byte_stream WHERE path = ?", path)
    return _decode(row[0]) if row is not None else None


def get(database: Database, stream_id: int) -> Stream:
    stream = _get(database, stream_id)
    assert stream is not None, f"byte stream {stream_id} has no row"
    return stream


def _get(database: Database, stream_id: int) -> Stream | None:
    row = database.one("SELECT data FROM byte_stream WHERE id = ?", stream_id)
    return _decode(row[0]) if row is not None else None


def pieces(
    database: Database, stream: Stream, get_stream: Callable[[int], Stream], after: int, bytes_max: int
) -> list[Piece]:
    found: list[Piece] = []
    size = 0
    for stream_id, low, high in segments(stream, get_stream, after):
        for position, data in _records(database, stream_id, low, high):
            size += len(data)
            if found and size > bytes_max:
                return found
            found.append((position, data))
    return found


def _records(database: Database, stream_id: int, low: int, high: int) -> Iterator[Piece]:
    return database.each(
        "SELECT position, data FROM byte_record WHERE stream = ? AND position > ? AND position <= ? ORDER BY position",
        stream_id,
        low,
        high,
    )


def _look_ms(stream: Stream) -> int | None:
    if stream.deleted:
        return None
    if stream.expires_at_ms is not None:
        return stream.expires_at_ms
    return stream.touched_ms + stream.ttl_seconds * 1000 if stream.ttl_seconds is not None else None
