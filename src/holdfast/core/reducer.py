"""(state, event) → changes of state. The only place that decides what an event means.

`reduce` looks at the entities an event concerns and answers the changes it makes, or None when it changes nothing
*because it came too late or twice*: a delta for a closed part, a second end of a turn, an update of a message that is
terminal. Stores do not record such an event, so the log never holds something that state does not reflect.

Rules
 1. The first event of a stream is `session.created`; after `session.deleted` nothing follows.
 2. A terminal assistant message is final. A tool that completed or failed never runs again.
 3. Text grows by deltas while its part is open; the update that closes a part carries all of it.
 4. A turn is requested, started, and ended, each once. Only the active turn can be suspended or ended; an abort reaches
    the active turn or, if none is, the prompt that is next.
 5. A prompt that is removed is not answered.
 6. Requests (permissions, questions) are answered once, and forgotten when their turn ends.
"""

from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from holdfast.core import events as e
from holdfast.core.errors import Conflict, NotFound
from holdfast.core.messages import (
    AssistantMessage,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    is_open,
    is_terminal,
)
from holdfast.core.permissions import PermissionRequest
from holdfast.core.questions import QuestionRequest
from holdfast.core.session import IDLE, Session
from holdfast.core.state import (
    NO_TURNS,
    SESSION,
    STATUS,
    TODO,
    TURNS,
    ActiveTurn,
    Entity,
    Key,
    PermissionEntry,
    QuestionEntry,
    TodoList,
    Turns,
)


class Put(NamedTuple):
    """The entity at `key` is now this one. A new message or part goes to the end of its session or message."""

    key: Key
    entity: Entity


class Delete(NamedTuple):
    """The entity is gone; a message goes with all its parts."""

    key: Key


class AppendText(NamedTuple):
    """The open text or reasoning part at `key` grew by `delta`. Kept apart from Put because stores leave it in the log."""

    key: Key
    delta: str


class Clear(NamedTuple):
    """The session is gone, with everything in it."""


class EndRequests(NamedTuple):
    """The turn is over: its permission requests and questions are gone, answered or not."""


class Approve(NamedTuple):
    """The user said "always": from now on these patterns are allowed in the whole project, also when this session is gone
    (so this is not part of the session's state)."""

    project_id: str
    permission: str
    patterns: tuple[str, ...]


Change = Put | Delete | AppendText | Clear | EndRequests | Approve

Get = Callable[[Key], Entity | None]


def reduce(get: Get, event: e.Event) -> tuple[Change, ...] | None:
    """The changes that `event` makes to the state behind `get`; None if it is a repeat or too late (see above).

    Raises NotFound if the event belongs to a session, message or part that does not exist.
    """
    if isinstance(event, e.PartDelta):
        return _part_delta(get, event)
    if isinstance(event, e.SessionCreated):
        return (
            None
            if get(SESSION)
            else (Put(SESSION, event.info), Put(STATUS, IDLE), Put(TURNS, NO_TURNS), Put(TODO, TodoList()))
        )
    if get(SESSION) is None:
        raise NotFound("Session", event.session_id)
    match event:
        case e.SessionUpdated(info=info):
            return (Put(SESSION, info),)
        case e.SessionDeleted():
            return (Clear(),)
        case e.SessionStatusChanged(status=status):
            return (Put(STATUS, status),)
        case e.SessionIdled() | e.SessionErrored() | e.SessionDiffed() | e.SessionCompacted() | e.CommandExecuted():
            return ()
        case e.FileEdited() | e.FileWatcherUpdated():
            return ()
        case e.TodoUpdated(todos=todos):
            return (Put(TODO, TodoList(todos=todos)),)
        case e.MessageUpdated(info=info):
            return _message_updated(get, info)
        case e.MessageRemoved(message_id=message_id):
            return _message_removed(get, message_id)
        case e.PartUpdated():
            return _part_updated(get, event)
        case e.PartRemoved(part_id=part_id):
            return (Delete(Key("part", part_id)),) if get(Key("part", part_id)) else None
        case e.PermissionAsked() | e.PermissionReplied():
            return _permission(get, event)
        case e.QuestionAsked() | e.QuestionReplied() | e.QuestionRejected():
            return _question(get, event)
        case (
            e.TurnRequested()
            | e.TurnStarted()
            | e.TurnExtended()
            | e.TurnSuspended()
            | e.TurnAbortRequested()
            | e.TurnEnded()
        ):
            return _turn(get, event)


def _message_updated(get: Get, info: Message) -> tuple[Change, ...] | None:
    key = Key("message", info.id)
    known = get(key)
    if isinstance(known, AssistantMessage) and is_terminal(known):
        return None
    return (Put(key, info),)


def _message_removed(get: Get, message_id: str) -> tuple[Change, ...] | None:
    key = Key("message", message_id)
    if get(key) is None:
        return None
    turns = _turns(get)
    if message_id in turns.queue:
        return Delete(key), Put(TURNS, replace(turns, queue=tuple(id for id in turns.queue if id != message_id)))
    return (Delete(key),)


def _part_updated(get: Get, event: e.PartUpdated) -> tuple[Change, ...] | None:
    part = event.part
    known = get(Key("part", part.id))
    if known is None:
        if get(Key("message", part.message_id)) is None:
            raise NotFound("Message", part.message_id)
    elif not isinstance(known, Part) or known.message_id != part.message_id:
        raise Conflict(f"Part {part.id} belongs to another message.")
    elif is_open(part) and not is_open(known):
        return None  # rules 2 and 3: closed stays closed
    return (Put(Key("part", part.id), part),)


def _part_delta(get: Get, event: e.PartDelta) -> tuple[Change, ...] | None:
    key = Key("part", event.part_id)
    part = get(key)
    if part is None:
        raise NotFound("Part", event.part_id)
    if not isinstance(part, TextPart | ReasoningPart) or not is_open(part):
        return None
    return (AppendText(key, event.delta),)


def _permission(get: Get, event: e.PermissionAsked | e.PermissionReplied) -> tuple[Change, ...] | None:
    if isinstance(event, e.PermissionAsked):
        request = PermissionRequest(
            id=event.id,
            session_id=event.session_id,
            permission=event.permission,
            patterns=event.patterns,
            metadata=event.metadata,
            always=event.always,
            tool=event.tool,
        )
        key = Key("permission", event.id)
        return None if get(key) else (Put(key, PermissionEntry(request=request)),)
    key = Key("permission", event.request_id)
    entry = get(key)
    if not isinstance(entry, PermissionEntry):
        raise NotFound("Permission request", event.request_id)
    if entry.reply is not None:
        return None
    answered = Put(key, replace(entry, reply=event.reply, message=event.message))
    session = get(SESSION)
    if event.reply != "always" or not isinstance(session, Session) or not entry.request.always:
        return (answered,)
    return answered, Approve(session.project_id, entry.request.permission, entry.request.always)


def _question(get: Get, event: e.QuestionAsked | e.QuestionReplied | e.QuestionRejected) -> tuple[Change, ...] | None:
    if isinstance(event, e.QuestionAsked):
        request = QuestionRequest(id=event.id, session_id=event.session_id, questions=event.questions, tool=event.tool)
        key = Key("question", event.id)
        return None if get(key) else (Put(key, QuestionEntry(request=request)),)
    key = Key("question", event.request_id)
    entry = get(key)
    if not isinstance(entry, QuestionEntry):
        raise NotFound("Question", event.request_id)
    if entry.rejected or entry.answers is not None:
        return None
    if isinstance(event, e.QuestionRejected):
        return (Put(key, replace(entry, rejected=True)),)
    return (Put(key, replace(entry, answers=event.answers)),)


def _turn(
    get: Get,
    event: e.TurnRequested | e.TurnStarted | e.TurnExtended | e.TurnSuspended | e.TurnAbortRequested | e.TurnEnded,
) -> tuple[Change, ...] | None:
    turns = _turns(get)
    active = turns.active
    id = event.message_id
    if isinstance(event, e.TurnRequested):
        if get(Key("message", id)) is None:
            raise NotFound("Message", id)
        if id in turns.queue or (active and active.message_id == id):
            return None
        return (Put(TURNS, replace(turns, queue=(*turns.queue, id))),)
    if active is None:
        if not isinstance(event, e.TurnStarted | e.TurnAbortRequested) or turns.queue[:1] != (id,):
            return None
        started = isinstance(event, e.TurnStarted)
        taken = ActiveTurn(message_id=id, running=started, abort=not started)
        return (Put(TURNS, Turns(queue=turns.queue[1:], active=taken)),)
    if active.message_id != id:
        return None  # rule 4
    match event:
        case e.TurnStarted():
            changed = replace(active, running=True, deaths=active.deaths + active.running)
        case e.TurnExtended(prompt_id=prompt_id):
            if get(Key("message", prompt_id)) is None:
                raise NotFound("Message", prompt_id)
            known = prompt_id in active.prompts
            changed = active if known else replace(active, prompts=(*active.prompts, prompt_id))
        case e.TurnSuspended():
            changed = replace(active, running=False)
        case e.TurnAbortRequested():
            changed = replace(active, abort=True)
        case e.TurnEnded():
            return Put(TURNS, replace(turns, active=None)), EndRequests()
    return (Put(TURNS, replace(turns, active=changed)),) if changed != active else None


def _turns(get: Get) -> Turns:
    turns = get(TURNS)
    return turns if isinstance(turns, Turns) else NO_TURNS
