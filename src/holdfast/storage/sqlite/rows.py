"""Rows: what a state looks like in tables, and back. `verify` compares these with what the log gives.

Rows hold wire JSON, so that a page of messages is put together without decoding it. Beside the JSON stand the columns
that queries need; they say nothing that the JSON does not.
"""

from typing import Any, Final

import msgspec

from holdfast.core.codec import decode, to_json
from holdfast.core.events import PartDelta
from holdfast.core.fold import with_text
from holdfast.core.messages import AssistantMessage, Message, Part, ReasoningPart, TextPart, is_open
from holdfast.core.search import folded
from holdfast.core.session import IDLE, Session, SessionStatus, StatusIdle
from holdfast.core.state import NO_TURNS, Entity, PermissionEntry, QuestionEntry, TodoList, Turns
from holdfast.storage.sqlite.database import Database

Columns = tuple[Any, ...]

to_session: Final = msgspec.json.Decoder(Session).decode
to_status: Final = msgspec.json.Decoder(SessionStatus).decode
to_todo: Final = msgspec.json.Decoder(TodoList).decode
to_turns: Final = msgspec.json.Decoder(Turns).decode
to_message: Final = msgspec.json.Decoder(Message).decode
to_part: Final = msgspec.json.Decoder(Part).decode
to_permission: Final = msgspec.json.Decoder(PermissionEntry).decode
to_question: Final = msgspec.json.Decoder(QuestionEntry).decode

NEW_SESSION: Final = (to_json(IDLE), to_json(TodoList()), to_json(NO_TURNS))
"""status, todo, turns of a session that has just been created."""


def session_columns(session: Session) -> Columns:
    """directory, project_id, parent_id, title_folded, archived, updated."""
    return (
        session.directory,
        session.project_id,
        session.parent_id,
        title_folded(session),
        is_archived(session),
        session.time.updated,
    )


def title_folded(session: Session) -> str:
    """As searches compare it (SQLite's own comparison knows ASCII only)."""
    return folded(session.title)


def is_archived(session: Session) -> bool:
    return session.time.archived is not None


def is_busy(status: SessionStatus) -> bool:
    return not isinstance(status, StatusIdle)


def is_unfinished(turns: Turns) -> bool:
    return turns.active is not None or bool(turns.queue)


def parent_of(message: Message) -> str | None:
    return message.parent_id if isinstance(message, AssistantMessage) else None


def grows(part: Part) -> bool:
    """Deltas in the log may belong to it: the row is not all of the part."""
    return isinstance(part, TextPart | ReasoningPart) and is_open(part)


def is_pending(entry: PermissionEntry | QuestionEntry) -> bool:
    if isinstance(entry, PermissionEntry):
        return entry.reply is None
    return entry.answers is None and not entry.rejected


def grown(database: Database, stream: int, part: int, grows_after: int, data: bytes) -> bytes:
    """The row of an open part with the deltas that the log has after it."""
    texts: list[str] = []
    for tag, delta in database.all(
        "SELECT tag, data FROM record WHERE stream = ? AND position > ? AND part = ? ORDER BY position",
        stream,
        grows_after,
        part,
    ):
        if tag == _DELTA_TAG:
            texts.append(_to_delta(delta).properties.delta)
        else:
            _, event = decode(tag, delta)
            assert isinstance(event, PartDelta)
            texts.append(event.delta)
    if not texts:
        return data
    entity = to_part(data)
    assert isinstance(entity, TextPart | ReasoningPart)
    return to_json(with_text(entity, "".join(texts)))


class _Delta(msgspec.Struct):
    delta: str


class _DeltaRecord(msgspec.Struct):
    """The one thing a reader wants of a delta, when it has the present shape: there may be many of them."""

    properties: _Delta


_DELTA_TAG: Final = f"{PartDelta.type}.{PartDelta.version}"
_to_delta: Final = msgspec.json.Decoder(_DeltaRecord).decode


def as_entity(kind: str, data: bytes) -> Entity:
    return _DECODERS[kind](data)


_DECODERS: Final = {
    "session": to_session,
    "status": to_status,
    "todo": to_todo,
    "turns": to_turns,
    "message": to_message,
    "part": to_part,
    "permission": to_permission,
    "question": to_question,
}
