"""What an append would change, worked out in full before anything is changed.

Owns the rule that an append is all or nothing: a backend drafts it on top of the state it has, and writes only when the
whole draft went through. Both backends decide here, so they cannot differ in what they record.
"""

from collections.abc import Sequence
from typing import NamedTuple

from holdfast.core.errors import NotFound
from holdfast.core.events import Event, SessionCreated
from holdfast.core.messages import Part
from holdfast.core.reducer import AppendText, Approve, Change, Clear, Delete, EndRequests, Get, Put, reduce
from holdfast.core.state import Entity, Key


class Step(NamedTuple):
    """An event that gets recorded, and what it changes."""

    event: Event
    changes: tuple[Change, ...]


def draft(session_id: str, get: Get, events: Sequence[Event]) -> list[Step]:
    """The events of an append that get recorded; late and repeated ones are left out.

    Raises what the reducer raises. A session that is deleted in the append ends there: NotFound for anything after it."""
    if len(events) == 1:
        _check(session_id, events[0])
        changes = reduce(get, events[0])
        return [] if changes is None else [Step(events[0], changes)]
    overlay = _Overlay(get)
    steps: list[Step] = []
    for event in events:
        _check(session_id, event)
        if overlay.cleared:
            raise NotFound("Session", session_id)
        changes = reduce(overlay.get, event)
        if changes is not None:
            for change in changes:
                overlay.apply(change)
            steps.append(Step(event, changes))
    return steps


def _check(session_id: str, event: Event) -> None:
    assert event.session_id == session_id, f"{event.type} of {event.session_id} appended to {session_id}"
    assert not isinstance(event, SessionCreated) or event.info.id == session_id, "session.created of another session"


class _Overlay:
    """The entities as the changes so far leave them, on top of those behind `get`."""

    def __init__(self, get: Get) -> None:
        self._get = get
        self._changed: dict[Key, Entity | None] = {}
        self._removed_messages: set[str] = set()
        self._parts_of: dict[str, list[Key]] = {}  # by message; some may be gone
        self._requests_ended = False
        self.cleared = False

    def get(self, key: Key) -> Entity | None:
        if key in self._changed:
            return self._changed[key]
        if self.cleared or (self._requests_ended and key.kind in ("permission", "question")):
            return None
        entity = self._get(key)
        if isinstance(entity, Part) and entity.message_id in self._removed_messages:
            return None
        return entity

    def apply(self, change: Change) -> None:
        match change:
            case Put(key, entity):
                self._changed[key] = entity
                if isinstance(entity, Part):
                    self._parts_of.setdefault(entity.message_id, []).append(key)
            case AppendText() | Approve():
                pass  # nothing the reducer asks for: the part stays open, and approvals are the project's
            case Delete(key):
                self._changed[key] = None
                if key.kind == "message":
                    self._removed_messages.add(key.id)
                    for other in self._parts_of.pop(key.id, ()):
                        part = self._changed[other]
                        if isinstance(part, Part) and part.message_id == key.id:
                            self._changed[other] = None
            case Clear():
                self._changed.clear()
                self._parts_of.clear()
                self.cleared = True
            case EndRequests():
                self._requests_ended = True
                for other in self._changed:
                    if other.kind in ("permission", "question"):
                        self._changed[other] = None
