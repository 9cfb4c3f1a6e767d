"""Streams as the writing thread knows them: the rows that events change, read and written.

Owns a cache of streams with the few rows that decide what the next events mean (open parts above all, so that a delta
costs no query). It can be trusted because nobody else writes, and because a batch that fails is the writer's last.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from holdfast.core.codec import to_json
from holdfast.core.events import Event, SessionCreated, SessionDeleted, SessionUpdated
from holdfast.core.messages import (
    AssistantMessage,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    is_open,
    is_terminal,
)
from holdfast.core.reducer import AppendText, Approve, Change, Clear, Delete, EndRequests, Put
from holdfast.core.session import Session, SessionStatus
from holdfast.core.state import SESSION, Entity, Key, PermissionEntry, QuestionEntry, TodoList, Turns
from holdfast.storage.sqlite import search
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.rows import (
    NEW_SESSION,
    as_entity,
    grown,
    grows,
    is_busy,
    is_pending,
    is_unfinished,
    parent_of,
    session_columns,
)

STREAMS_CACHED = 1024
ROWS_CACHED = 64
DELTAS_MAX = 1000
"""So many deltas of an open part stay in the log alone; then they are folded into its row, once, so that reading a part
never means reading all that a model said since it began. Of a long text more: see `deltas_max`."""

BYTES_PER_DELTA = 250
"""A fold writes the whole row again. With a fixed number of deltas a text of 30 MB would be written thousands of times; with
one for so many bytes of the row, each fold is of a text 2 % longer (deltas of a token have 5 bytes), and all folds together
cost some fifty times the text, however long it gets."""


class Row:
    """An entity, and the position of the record that added it: its order, and the primary key of its row. `deltas`: how
    many this thread has seen since the row was written or read; `deltas_max`: with so many, they are folded into it."""

    __slots__ = ("deltas", "deltas_max", "entity", "position")

    def __init__(self, position: int, entity: Entity) -> None:
        self.position = position
        self.entity = entity
        self.deltas = 0
        self.deltas_max = deltas_max(len(entity.text)) if isinstance(entity, TextPart | ReasoningPart) else DELTAS_MAX


def deltas_max(length: int) -> int:
    """How many deltas of a part may stay outside of a row of this length."""
    return max(DELTAS_MAX, length // BYTES_PER_DELTA)


class Stream:
    """`last` and `version` are those of its newest record; directory and project those of its first. `rows` are rows read
    or written lately; None: there is none."""

    __slots__ = ("deleted", "directory", "id", "last", "project_id", "rows", "session_id", "version")

    def __init__(self, id: int, session_id: str, directory: str, project_id: str) -> None:
        self.id = id
        self.session_id = session_id
        self.directory = directory
        self.project_id = project_id
        self.deleted = False
        self.last = 0
        self.version = 0
        self.rows: dict[Key, Row | None] = {}

    def settle(self) -> None:
        """Forget the rows that nobody will ask for soon."""
        self.rows = {key: row for key, row in self.rows.items() if row is not None and _is_wanted_soon(key, row.entity)}

    def forget(self, which: Callable[[Entity], bool]) -> None:
        """These rows are no more."""
        for key, row in self.rows.items():
            if row is not None and which(row.entity):
                self.rows[key] = None


class Streams:
    """All methods run in the writing thread, inside a transaction. `now_ms` is that transaction's time."""

    def __init__(self, database: Database) -> None:
        self.now_ms = 0
        self._database = database
        self._cached: OrderedDict[str, Stream] = OrderedDict()
        self._long: list[tuple[Stream, Row]] = []

    def trim(self) -> None:
        """Between transactions."""
        while len(self._cached) > STREAMS_CACHED:
            self._cached.popitem(last=False)

    # --- what is there

    def find(self, session_id: str) -> Stream | None:
        stream = self._cached.get(session_id)
        if stream is not None:
            self._cached.move_to_end(session_id)
            if len(stream.rows) > ROWS_CACHED:
                stream.settle()
            return stream
        found = self._database.one(
            "SELECT id, directory, project_id, deleted FROM stream WHERE session_id = ?", session_id
        )
        if found is None:
            return None
        id, directory, project_id, deleted = found
        stream = Stream(id, session_id, directory, project_id)
        stream.deleted = bool(deleted)
        stream.last, stream.version = self._database.one(
            "SELECT position, version FROM record WHERE stream = ? ORDER BY position DESC LIMIT 1", id
        )
        self._cached[session_id] = stream
        return stream

    def create(self, info: Session) -> Stream:
        self._database.run(
            "INSERT INTO stream (session_id, directory, project_id, created, updated) VALUES (?, ?, ?, ?, ?)",
            info.id,
            info.directory,
            info.project_id,
            info.time.created,
            info.time.updated,
        )
        stream = Stream(self._database.last_insert_rowid, info.id, info.directory, info.project_id)
        stream.rows[SESSION] = None  # known, so not asked for
        self._cached[info.id] = stream
        return stream

    def row(self, stream: Stream, key: Key) -> Row | None:
        if key in stream.rows:
            return stream.rows[key]
        match key.kind:
            case "message" | "part":
                found = self._database.one(
                    f"SELECT position, data FROM {key.kind} WHERE stream = ? AND id = ?", stream.id, key.id
                )
            case "permission" | "question":
                found = self._database.one(
                    "SELECT position, data FROM request WHERE stream = ? AND kind = ? AND id = ?",
                    stream.id,
                    key.kind,
                    key.id,
                )
            case "session" | "status" | "todo" | "turns":
                column = "data" if key == SESSION else key.kind
                found = self._database.one(f"SELECT 0, {column} FROM session WHERE stream = ?", stream.id)
        row = Row(found[0], as_entity(key.kind, found[1])) if found is not None else None
        stream.rows[key] = row
        return row

    # --- what an event changes

    def change(self, stream: Stream, event: Event, changes: Sequence[Change]) -> int | None:
        """Write the rows that the stream's newest record changes. Answers the position of the part it belongs to, None
        if it belongs to none. A delta writes nothing: it stays in the log (see DELTAS_MAX)."""
        part: int | None = None
        if isinstance(event, SessionCreated):  # the new row has all of it; see NEW_SESSION
            changes = changes[:1]
        for change in changes:
            match change:
                case AppendText(key):
                    row = self.row(stream, key)
                    assert row is not None
                    part = row.position
                    row.deltas += 1
                    if row.deltas == row.deltas_max:
                        self._long.append((stream, row))
                case Put(key, entity):
                    row = self._put(stream, key, entity)
                    if key.kind == "part":
                        part = row.position
                case Delete(key) if key.kind == "part":
                    self._delete_part(stream, key)
                case Delete(key):
                    self._delete_message(stream, key)
                case Approve(project_id, permission, patterns):
                    self._database.run_many(
                        "INSERT OR IGNORE INTO approval (project_id, permission, pattern) VALUES (?, ?, ?)",
                        [(project_id, permission, pattern) for pattern in patterns],
                    )
                case EndRequests():
                    self._database.run("DELETE FROM request WHERE stream = ?", stream.id)
                    stream.forget(lambda entity: isinstance(entity, PermissionEntry | QuestionEntry))
                case Clear():
                    self._clear(stream)
        if isinstance(event, SessionUpdated | SessionDeleted):
            stream.deleted = isinstance(event, SessionDeleted)
            time = event.info.time
            self._database.run(
                "UPDATE stream SET created = ?, updated = ?, deleted = ? WHERE id = ?",
                time.created,
                time.updated,
                stream.deleted,
                stream.id,
            )
        return part

    def fold_long_parts(self) -> None:
        """At the end of the transaction, when its records are written."""
        for stream, row in self._long:
            grows_after, data = self._database.one(
                "SELECT grows_after, data FROM part WHERE position = ?", row.position
            ) or (None, b"")
            if grows_after is not None:
                data = grown(self._database, stream.id, row.position, grows_after, data)
                self._database.run(
                    "UPDATE part SET grows_after = ?, data = ? WHERE position = ?", stream.last, data, row.position
                )
                row.deltas, row.deltas_max = 0, deltas_max(len(data))
        self._long.clear()

    def _put(self, stream: Stream, key: Key, entity: Entity) -> Row:
        known = self.row(stream, key)
        row = Row(known.position if known is not None else stream.last, entity)
        stream.rows[key] = row
        data = to_json(entity)
        if isinstance(entity, Part):
            self._put_part(stream, known, row, entity, data)
        elif isinstance(entity, Message):
            self._database.run(
                "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET parent_id = excluded.parent_id, data = excluded.data",
                row.position,
                stream.id,
                stream.version,
                entity.id,
                parent_of(entity),
                data,
            )
        elif isinstance(entity, PermissionEntry | QuestionEntry):
            self._database.run(
                "INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET pending = excluded.pending, data = excluded.data",
                row.position,
                stream.id,
                key.kind,
                key.id,
                is_pending(entity),
                data,
            )
        else:
            self._put_in_session(stream, entity, data)
        return row

    def _put_part(self, stream: Stream, known: Row | None, row: Row, part: Part, data: bytes) -> None:
        was = known.entity if known is not None else None
        search.put(self._database, row.position, was if isinstance(was, Part) else None, part)
        grows_after = stream.last if grows(part) else None
        if known is not None:
            self._database.run(
                "UPDATE part SET grows_after = ?, data = ? WHERE position = ?", grows_after, data, row.position
            )
            if not is_open(part):
                self._note_redundant(stream, known)
            return
        message = self.row(stream, Key("message", part.message_id))
        assert message is not None
        self._database.run(
            "INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
            row.position,
            stream.id,
            message.position,
            part.id,
            grows_after,
            data,
        )

    def _put_in_session(self, stream: Stream, entity: Session | SessionStatus | TodoList | Turns, data: bytes) -> None:
        match entity:
            case Session():
                self._database.run(
                    "INSERT INTO session VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?, ?, ?)"
                    " ON CONFLICT DO UPDATE SET directory = excluded.directory, project_id = excluded.project_id,"
                    " parent_id = excluded.parent_id, title_folded = excluded.title_folded,"
                    " archived = excluded.archived, updated = excluded.updated, data = excluded.data",
                    stream.id,
                    *session_columns(entity),
                    data,
                    *NEW_SESSION,
                )
            case Turns():
                self._database.run(
                    "UPDATE session SET unfinished = ?, turns = ? WHERE stream = ?",
                    is_unfinished(entity),
                    data,
                    stream.id,
                )
            case TodoList():
                self._database.run("UPDATE session SET todo = ? WHERE stream = ?", data, stream.id)
            case _:
                self._database.run(
                    "UPDATE session SET busy = ?, status = ? WHERE stream = ?", is_busy(entity), data, stream.id
                )

    def _delete_part(self, stream: Stream, key: Key) -> None:
        row = self.row(stream, key)
        assert row is not None
        self._database.run("DELETE FROM part WHERE position = ?", row.position)
        self._note_gone(stream, row)
        stream.rows[key] = None

    def _delete_message(self, stream: Stream, key: Key) -> None:
        message = self.row(stream, key)
        assert message is not None
        for position, data in self._database.all(
            "DELETE FROM part WHERE stream = ? AND message = ? RETURNING position, data", stream.id, message.position
        ):
            part = Row(position, as_entity("part", data))
            self._note_gone(stream, part)
            if isinstance(part.entity, Part):
                stream.rows[Key("part", part.entity.id)] = None
        self._database.run("DELETE FROM message WHERE position = ?", message.position)
        stream.rows[key] = None

    def _clear(self, stream: Stream) -> None:
        search.remove_session(self._database, stream.id)
        for table in ("session", "message", "part", "request"):
            self._database.run(f"DELETE FROM {table} WHERE stream = ?", stream.id)
        self._database.run("INSERT INTO redundant VALUES (NULL, ?, ?, NULL, 0, ?)", self.now_ms, stream.id, stream.last)
        stream.rows.clear()

    def _note_gone(self, stream: Stream, row: Row) -> None:
        """A part's row was removed."""
        self._note_redundant(stream, row)
        if isinstance(row.entity, Part):
            search.remove(self._database, row.position, row.entity)

    def _note_redundant(self, stream: Stream, known: Row) -> None:
        """A part is closed or gone by the newest record. What lies between the record that added it and this one is work
        for compaction."""
        if isinstance(known.entity, Part) and is_open(known.entity):
            self._database.run(
                "INSERT INTO redundant VALUES (NULL, ?, ?, ?, ?, ?)",
                self.now_ms,
                stream.id,
                known.position,
                known.position,
                stream.last,
            )


def _is_wanted_soon(key: Key, entity: Entity) -> bool:
    """Rows that the next events of the session will ask for. Closed parts and messages would only fill the memory."""
    match key.kind:
        case "part":
            return isinstance(entity, Part) and is_open(entity)
        case "message":
            return isinstance(entity, AssistantMessage) and not is_terminal(entity)
        case "permission" | "question":
            return False
        case "session" | "status" | "todo" | "turns":
            return True
