"""Promise 2, checked: fold every log again and compare with the rows, one session after the other.

Runs in a reading thread. Each session is compared in one read transaction, so appends may go on beside it. Records that
compaction took away are not missed: what is left folds to the same state.
"""

import msgspec

from holdfast.core.codec import decode, to_json
from holdfast.core.errors import HoldfastError
from holdfast.core.events import (
    Event,
    MessageRemoved,
    MessageUpdated,
    PartRemoved,
    PartUpdated,
    PermissionAsked,
    PermissionReplied,
    QuestionAsked,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
)
from holdfast.core.fold import Fold
from holdfast.core.messages import Message, Part, is_open
from holdfast.core.reducer import Approve, Change, reduce
from holdfast.core.session import Session, SessionStatus
from holdfast.core.state import Entity, Key, PermissionEntry, QuestionEntry, Turns
from holdfast.core.store import Difference
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.rows import (
    as_entity,
    grown,
    grows,
    is_busy,
    is_pending,
    is_unfinished,
    parent_of,
    session_columns,
)

Rows = dict[str, tuple[object, ...]]
"""What a row says, by what it is about: the entity, then the columns beside it."""


def structure(database: Database) -> list[Difference]:
    """What is wrong with the file itself, and rows that belong to no session."""
    found = [
        Difference("", "database", message, None)
        for (message,) in database.all("PRAGMA integrity_check")
        if message != "ok"
    ]
    for table in ("record", "session", "message", "part", "request"):
        for (stream,) in database.all(
            f"SELECT DISTINCT stream FROM {table} WHERE stream NOT IN (SELECT id FROM stream)"
        ):
            found.append(Difference("", f"{table} of stream {stream}", "a row", None))
    return found


def session_ids(database: Database) -> list[str]:
    return [session_id for (session_id,) in database.all("SELECT session_id FROM stream ORDER BY id")]


def session(database: Database, session_id: str) -> list[Difference]:
    """Where the rows of a session are not what its log gives."""
    stored = _stored(database, session_id)
    found, folded = _folded(database, session_id)
    for what in dict.fromkeys([*folded, *stored]):
        if stored.get(what) != folded.get(what):
            found.append(Difference(session_id, what, _as_text(stored.get(what)), _as_text(folded.get(what))))
    return found


def _as_text(row: tuple[object, ...] | None) -> str | None:
    return to_json(row).decode() if row is not None else None


def _stored(database: Database, session_id: str) -> Rows:
    stream, *about = database.one(
        "SELECT id, directory, project_id, created, updated, deleted FROM stream WHERE session_id = ?", session_id
    )
    rows: Rows = {"stream": tuple(about)}
    for data, status, todo, turns, *columns in database.all(
        "SELECT data, status, todo, turns, directory, project_id, parent_id, title_folded, archived, updated, busy,"
        " unfinished"
        " FROM session WHERE stream = ?",
        stream,
    ):
        *of_session, busy, unfinished = columns
        rows["session"] = _entity("session", data), *of_session
        rows["status"] = _entity("status", status), bool(busy)
        rows["todo"] = (_entity("todo", todo),)
        rows["turns"] = _entity("turns", turns), bool(unfinished)
    for id, data, *columns in database.all(
        "SELECT id, data, position, version, parent_id FROM message WHERE stream = ?", stream
    ):
        rows[f"message {id}"] = _entity("message", data), *columns
    for id, data, grows_after, *columns in database.all(
        "SELECT part.id, part.data, grows_after, part.position, message.id"
        " FROM part LEFT JOIN message ON message.position = part.message WHERE part.stream = ?",
        stream,
    ):
        part = _entity("part", data)
        if grows_after is not None and not isinstance(part, str):
            part = _entity("part", grown(database, stream, columns[0], grows_after, data))
        rows[f"part {id}"] = part, grows_after is not None, *columns
    for kind, id, data, pending, position in database.all(
        "SELECT kind, id, data, pending, position FROM request WHERE stream = ?", stream
    ):
        rows[f"{kind} {id}"] = _entity(kind, data), bool(pending), position
    return rows


def _entity(kind: str, data: bytes) -> Entity | str:
    """What is wrong with the row, if it cannot be read."""
    try:
        return as_entity(kind, data)
    except msgspec.MsgspecError as error:
        return f"unreadable: {error}"


def _folded(database: Database, session_id: str) -> tuple[list[Difference], Rows]:
    """What the log gives, and the records that do not fit in it."""
    wrong: list[Difference] = []
    stream, directory, project_id, deleted = database.one(
        "SELECT id, directory, project_id, deleted FROM stream WHERE session_id = ?", session_id
    )
    fold = Fold()
    added: dict[Key, tuple[int, int]] = {}
    info: Session | None = None
    versions = _Versions()
    for position, version, tag, data in database.each(
        "SELECT position, version, tag, data FROM record WHERE stream = ? ORDER BY position", stream
    ):
        try:
            _, event = decode(tag, data)
            if isinstance(event, SessionCreated):
                directory, project_id = event.info.directory, event.info.project_id
            if isinstance(event, SessionCreated | SessionUpdated | SessionDeleted):
                info = event.info
            if isinstance(event, SessionDeleted):
                time = event.info.time
                return wrong, {"stream": (directory, project_id, time.created, time.updated, 1)}
            if deleted:
                continue  # compaction may have taken any of what comes before session.deleted
            if isinstance(event, PermissionReplied):
                wrong += _missing_approvals(database, session_id, reduce(fold.entities.get, event) or ())
            key = _added_by(event)
            is_new = key is not None and key not in fold.entities
            if not fold.apply(event):
                wrong.append(Difference(session_id, f"record {position}", tag, None))
            if key is not None and is_new:
                added[key] = position, version
            versions.note(version, event, fold)
        except HoldfastError as error:
            wrong.append(Difference(session_id, f"record {position}", f"{tag}: {error}", None))
            versions.note(version, None, fold)
    wrong += [
        Difference(session_id, f"records of versions {first} to {last}", None, "lost")
        for first, last in versions.missing()
    ]
    rows = {" ".join(key).strip(): _row(fold, key, added.get(key)) for key in fold.entities}
    if info is not None:
        rows["stream"] = directory, project_id, info.time.created, info.time.updated, 0
    return wrong, rows


class _Versions:
    """Which records are not there, and should be. Compaction takes only records between the one that adds a part and the
    one that closes or removes it."""

    def __init__(self) -> None:
        self._next = 1
        self._gaps: list[tuple[int, int]] = []
        self._open: dict[Key, int] = {}
        self._compacted: list[tuple[int, int]] = []

    def note(self, version: int, event: Event | None, fold: Fold) -> None:
        """The next record, already folded; None if it could not be read."""
        if version > self._next:
            self._gaps.append((self._next, version - 1))
        self._next = version + 1
        if isinstance(event, PartUpdated | PartRemoved | MessageRemoved):
            for key in [key for key in self._open if not _is_open_part(fold.entities.get(key))]:
                self._compacted.append((self._open.pop(key), version))
        if isinstance(event, PartUpdated):
            key = Key("part", event.part.id)
            if _is_open_part(fold.entities.get(key)):
                self._open.setdefault(key, version)

    def missing(self) -> list[tuple[int, int]]:
        """First and last version of each gap that compaction cannot have made."""
        ranges = sorted(self._compacted)
        found: list[tuple[int, int]] = []
        for first, last in self._gaps:
            reached = first
            for start, end in ranges:
                if start < reached < end:
                    reached = end
            if reached <= last:
                found.append((first, last))
        return found


def _is_open_part(entity: Entity | None) -> bool:
    return isinstance(entity, Part) and is_open(entity)


def _missing_approvals(database: Database, session_id: str, changes: tuple[Change, ...]) -> list[Difference]:
    """Approvals outlive their sessions, so one that no log gives may still be right."""
    return [
        Difference(session_id, f"approval of {change.permission} in {change.project_id}", None, pattern)
        for change in changes
        if isinstance(change, Approve)
        for pattern in change.patterns
        if not database.all(
            "SELECT 1 FROM approval WHERE project_id = ? AND permission = ? AND pattern = ?",
            change.project_id,
            change.permission,
            pattern,
        )
    ]


def _added_by(event: Event) -> Key | None:
    """The entity that the event adds, unless it is there already."""
    match event:
        case MessageUpdated(info=info):
            return Key("message", info.id)
        case PartUpdated(part=part):
            return Key("part", part.id)
        case PermissionAsked(id=id):
            return Key("permission", id)
        case QuestionAsked(id=id):
            return Key("question", id)
        case _:
            return None


def _row(fold: Fold, key: Key, added: tuple[int, int] | None) -> tuple[object, ...]:
    entity = fold.get(key)
    position, version = added or (0, 0)
    if isinstance(entity, Session):
        return entity, *session_columns(entity)
    if isinstance(entity, SessionStatus):
        return entity, is_busy(entity)
    if isinstance(entity, Turns):
        return entity, is_unfinished(entity)
    if isinstance(entity, Message):
        return entity, position, version, parent_of(entity)
    if isinstance(entity, Part):
        return entity, grows(entity), position, entity.message_id
    if isinstance(entity, PermissionEntry | QuestionEntry):
        return entity, is_pending(entity), position
    return (entity,)
