"""A session's state in memory: the fold of its events. What `verify`, the memory store and tests compare others with."""

from collections.abc import Iterable

from msgspec.structs import replace

from holdfast.core.errors import NotFound
from holdfast.core.events import Event
from holdfast.core.messages import AssistantMessage, Message, Part, ReasoningPart, TextPart, WithParts
from holdfast.core.reducer import AppendText, Approve, Change, Clear, Delete, EndRequests, Put, reduce
from holdfast.core.session import Session, SessionStatus, StatusIdle
from holdfast.core.state import (
    NO_TURNS,
    SESSION,
    STATUS,
    TODO,
    TURNS,
    Entity,
    Key,
    PermissionEntry,
    QuestionEntry,
    TodoList,
    Turns,
    TurnState,
    prompts_of,
)


class Fold:
    """Entities by key, in the order in which they were added, and the text that open parts grew by since."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.entities: dict[Key, Entity] = {}
        self._grown: dict[Key, list[str]] = {}
        self._parts_of: dict[str, list[Key]] = {}  # by message; some may be gone
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> bool:
        """Fold one event; False if it changed nothing because it came too late or twice."""
        changes = reduce(self.entities.get, event)
        if changes is None:
            return False
        for change in changes:
            self._change(change)
        return True

    def _change(self, change: Change) -> None:
        match change:
            case Put(key, entity):
                if isinstance(entity, Part) and key not in self.entities:
                    self._parts_of.setdefault(entity.message_id, []).append(key)
                self.entities[key] = entity
                self._grown.pop(key, None)
            case AppendText(key, delta):
                self._grown.setdefault(key, []).append(delta)
            case Delete(key):
                self._delete(key)
                if key.kind == "message":
                    for other in self._parts_of.pop(key.id, ()):
                        part = self.entities.get(other)
                        if isinstance(part, Part) and part.message_id == key.id:
                            self._delete(other)
            case Clear():
                self.entities.clear()
                self._grown.clear()
                self._parts_of.clear()
            case Approve():
                pass  # belongs to the project
            case EndRequests():
                for other in [k for k in self.entities if k.kind in ("permission", "question")]:
                    self._delete(other)

    def _delete(self, key: Key) -> None:
        self.entities.pop(key, None)
        self._grown.pop(key, None)

    def get(self, key: Key) -> Entity | None:
        """The entity with the text that was streamed into it so far."""
        entity = self.entities.get(key)
        grown = self._grown.get(key)
        return with_text(entity, "".join(grown)) if grown and isinstance(entity, TextPart | ReasoningPart) else entity

    # --- the same by name --------------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return SESSION in self.entities

    @property
    def session(self) -> Session:
        session = self.entities.get(SESSION)
        if not isinstance(session, Session):
            raise NotFound("Session", "")
        return session

    @property
    def status(self) -> SessionStatus:
        status = self.entities.get(STATUS)
        return status if isinstance(status, SessionStatus) else StatusIdle()

    @property
    def todos(self) -> TodoList:
        todos = self.entities.get(TODO)
        return todos if isinstance(todos, TodoList) else TodoList()

    @property
    def turns(self) -> Turns:
        turns = self.entities.get(TURNS)
        return turns if isinstance(turns, Turns) else NO_TURNS

    def messages(self) -> tuple[WithParts, ...]:
        """Every message with its parts, in the order in which they were added."""
        parts: dict[str, list[Part]] = {}
        for key in self.entities:
            if key.kind == "part":
                part = self.get(key)
                assert isinstance(part, Part)
                parts.setdefault(part.message_id, []).append(part)
        return tuple(
            WithParts(info=entity, parts=tuple(parts.get(key.id, ())))
            for key, entity in self.entities.items()
            if key.kind == "message" and isinstance(entity, Message)
        )

    def permissions(self) -> tuple[PermissionEntry, ...]:
        return tuple(entity for entity in self.entities.values() if isinstance(entity, PermissionEntry))

    def questions(self) -> tuple[QuestionEntry, ...]:
        return tuple(entity for entity in self.entities.values() if isinstance(entity, QuestionEntry))

    def turn_state(self) -> TurnState:
        turns = self.turns
        prompts = prompts_of(turns)
        user: WithParts | None = None
        step: WithParts | None = None
        messages = self.messages() if prompts else ()
        begun = all(message.info.id != prompts[0] for message in messages)  # where the prompt is gone, anywhere
        for message in messages:
            begun = begun or message.info.id == prompts[0]
            if message.info.id == prompts[-1]:
                user = message
            elif (
                begun
                and turns.active
                and isinstance(message.info, AssistantMessage)
                and message.info.parent_id in prompts
            ):
                step = message
        return TurnState(
            session=self.session,
            status=self.status,
            turns=turns,
            user=user,
            step=step,
            permissions=self.permissions(),
            questions=self.questions(),
        )


def with_text(part: TextPart | ReasoningPart, grown: str) -> TextPart | ReasoningPart:
    """The part with what was streamed into it appended."""
    return replace(part, text=part.text + grown)
