"""Appends and leases, as the writing thread does them: check, draft, then write records and rows.

Rules
 1. An append is drafted in full before its first write, so that a refused one leaves its neighbours alone.
 2. A position is max(last + 1, now in microseconds). So offsets never run backwards, not even when an older copy of the
    database is restored, and the newest position tells the newest time that the store knows.
 3. Directory and project of a record are those its session was created with: they decide who is told of it, so they
    cannot change under a subscriber.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from holdfast.core.codec import encode, tag_of
from holdfast.core.errors import LeaseLost, NotFound, VersionConflict
from holdfast.core.events import Event, PartDelta, SessionCreated
from holdfast.core.ids import IdGenerator
from holdfast.core.offsets import position_of, to_offset
from holdfast.core.reducer import Get
from holdfast.core.state import Entity, Key
from holdfast.core.store import Appended, Decide, Lease, Recorded
from holdfast.storage.draft import draft
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.streams import Stream, Streams


class Appender:
    """All methods run in the writing thread, inside a transaction. `newest` is the position of the newest record when the
    store was opened, 0 if there was none. Event ids come from a generator of this thread's own: none is made for two."""

    def __init__(self, database: Database, clock_ms: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock_ms = clock_ms
        self._streams = Streams(database)
        self.newest: Final[int] = database.one("SELECT ifnull(max(position), 0) FROM record")[0]
        # The generators of ids go on one millisecond after the newest time of the store. So do we: otherwise the next
        # process, under a clock that was set back, would not know of the ids that this one made.
        self._position = (self.newest // 1000 + 1) * 1000 if self.newest else 0
        self._ids = IdGenerator(clock_ms, entropy, not_before_ms=self.newest // 1000)
        self._token = 0
        self._leases: dict[str, tuple[Lease, int]] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._recorded: list[Recorded] = []

    # --- the transaction

    def begin(self) -> None:
        now_ms = self._clock_ms()
        self._streams.now_ms = now_ms
        self._streams.trim()
        self._position = max(self._position, position_of(now_ms))

    def changes(self) -> int:
        return self._database.changes + len(self._rows)

    def end(self) -> list[Recorded]:
        self.flush()
        self._streams.fold_long_parts()
        recorded, self._recorded = self._recorded, []
        return recorded

    def flush(self) -> None:
        """Records are written together: at the end of the batch, or before somebody in it reads them."""
        if self._rows:
            self._database.run_many("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", self._rows)
            self._rows = []

    # --- jobs

    def append(
        self,
        session_id: str,
        events: Sequence[Event] | Decide,
        expected: int | None,
        key: str | None,
        lease: Lease | None,
    ) -> Appended:
        """As the port says."""
        stream = self._streams.find(session_id)
        if stream is not None and key is not None:
            receipt = self._database.one(
                "SELECT position, version, recorded FROM receipt WHERE stream = ? AND key = ?", stream.id, key
            )
            if receipt is not None:
                position, version, recorded = receipt
                return Appended(to_offset(position), version, recorded, duplicate=True)
        if stream is not None and stream.deleted:
            raise NotFound("Session", session_id)
        version = stream.version if stream is not None else 0
        if expected is not None and expected != version:
            raise VersionConflict(f"Session {session_id} is at version {version}, not {expected}.")
        if lease is not None and not self._is_newest(lease):
            raise LeaseLost(session_id)
        get = self._reading(stream)
        steps = draft(session_id, get, events(get) if callable(events) else events)
        encoded = [encode(step.event, self._ids.new("evt")) for step in steps]
        if stream is None:
            first = steps[0].event if steps else None
            if not isinstance(first, SessionCreated):
                raise NotFound("Session", session_id)
            stream = self._streams.create(first.info)

        for (event, changes), data in zip(steps, encoded, strict=True):
            self._position += 1
            stream.last = self._position
            stream.version += 1
            part = self._streams.change(stream, event, changes)
            tag = tag_of(event)
            self._rows.append((stream.last, stream.id, stream.version, tag, part, data))
            self._recorded.append(
                Recorded(
                    to_offset(stream.last), session_id, stream.directory, stream.project_id, stream.version, tag, data
                )
            )
        if not (len(steps) == 1 and isinstance(steps[0].event, PartDelta)):  # most appends; it changed no row
            stream.settle()
        if key is not None:
            self._database.run(
                "INSERT INTO receipt VALUES (?, ?, ?, ?, ?)", stream.id, key, stream.last, stream.version, len(steps)
            )
        return Appended(to_offset(stream.last), stream.version, len(steps))

    def _reading(self, stream: Stream | None) -> Get:
        def get(key: Key) -> Entity | None:
            row = self._streams.row(stream, key) if stream is not None else None
            return row.entity if row is not None else None

        return get

    def claim(self, session_id: str, owner: str, now_ms: int, ttl_ms: int) -> Lease | None:
        """Leases live in memory: they cannot outlive the one process that has the data directory. This thread gives them
        out, so that what an earlier holder appended is committed before a claim is answered, or refused after it."""
        stream = self._streams.find(session_id)
        if stream is None or stream.deleted:
            raise NotFound("Session", session_id)
        held = self._leases.get(session_id)
        if held is not None and held[0].owner == owner:
            lease = held[0]
        elif held is not None and held[1] > now_ms:
            return None
        else:
            self._token = max(self._token + 1, self._position)
            lease = Lease(session_id, owner, self._token)
        self._leases[session_id] = lease, now_ms + ttl_ms
        return lease

    def release(self, lease: Lease) -> None:
        if self._is_newest(lease):
            del self._leases[lease.session_id]

    def _is_newest(self, lease: Lease) -> bool:
        held = self._leases.get(lease.session_id)
        return held is not None and held[0].token == lease.token
