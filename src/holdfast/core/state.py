"""The state of a session: a map from keys to entities, which only `core.reducer` changes.

Keeping state as small keyed entities (instead of one big object) makes the cost of an event independent of the size
of the session, in memory and on disk: a store reads and writes just the rows that an event touches.

`TurnState` is the part of it that decides what happens next; `agent.turn` reads nothing else.
"""

from typing import Literal, NamedTuple

import msgspec

from holdfast.core.messages import Message, Part, WithParts
from holdfast.core.permissions import PermissionReply, PermissionRequest
from holdfast.core.questions import QuestionRequest
from holdfast.core.session import Session, SessionStatus, Todo
from holdfast.core.wire import Wire

Kind = Literal["session", "status", "todo", "turns", "message", "part", "permission", "question"]


class Key(NamedTuple):
    """`id` is "" for the four kinds of which a session has one."""

    kind: Kind
    id: str = ""


SESSION = Key("session")
STATUS = Key("status")
TODO = Key("todo")
TURNS = Key("turns")


class ActiveTurn(Wire):
    """The turn that answers user message `message_id`. `running` from turn.started until it is suspended or ended;
    `deaths` counts the times the server died in it; `abort` once the user asked for it; `prompts` are the messages that
    extended it, oldest first."""

    message_id: str
    prompts: tuple[str, ...] = ()
    running: bool
    deaths: int = 0
    abort: bool = False


class Turns(Wire):
    """Prompts that wait for an answer, oldest first, and the turn in progress."""

    queue: tuple[str, ...] = ()
    active: ActiveTurn | None = None


NO_TURNS = Turns()


def prompts_of(turns: Turns) -> tuple[str, ...]:
    """The messages that the active turn answers, oldest first; without one, the next prompt of the queue."""
    if turns.active is not None:
        return (turns.active.message_id, *turns.active.prompts)
    return turns.queue[:1]


class TodoList(Wire):
    todos: tuple[Todo, ...] = ()


class PermissionEntry(Wire):
    """A permission request. `reply` is None while pending; an answered one stays until its turn ends, so that the
    answer is not lost when the server dies before the tool ran."""

    request: PermissionRequest
    reply: PermissionReply | None = None
    message: str | None = None


class QuestionEntry(Wire):
    """A question. `answers` is None while pending, and when it was rejected."""

    request: QuestionRequest
    rejected: bool = False
    answers: tuple[tuple[str, ...], ...] | None = None


Entity = Session | SessionStatus | TodoList | Turns | Message | Part | PermissionEntry | QuestionEntry


class TurnState(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the next step of a session.

    `user` is the message that the active turn answers now (the last of `prompts_of`), and `step` the newest assistant
    message of the turn, with the text that was streamed into still open parts; the ones before it are over. Without an
    active turn, `user` is the next prompt of the queue and there is no `step`. `permissions` and `questions` are those of
    the active turn, answered or not.
    """

    session: Session
    status: SessionStatus
    turns: Turns
    user: WithParts | None = None
    step: WithParts | None = None
    permissions: tuple[PermissionEntry, ...] = ()
    questions: tuple[QuestionEntry, ...] = ()
