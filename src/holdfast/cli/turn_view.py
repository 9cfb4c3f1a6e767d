"""What there is to show of one turn: events in, notices out. Pure; knows nothing of terminals.

Rules
 1. Only steps of the turn that answers the given prompt are shown; other turns of the session are not. Of the sessions of
    its subagents, only what they want of the user is.
 2. Each character of text and reasoning is shown once, in order, however the events came: as deltas, or, where a server
    restart or compaction left deltas out, with the update that carries the whole text.
"""

from typing import Final, NamedTuple

from holdfast.core import events as e
from holdfast.core.messages import (
    AssistantMessage,
    MessageError,
    MessageOutputLengthError,
    Part,
    ReasoningPart,
    TextPart,
    ToolCompleted,
    ToolError,
    ToolPart,
    ToolRunning,
    is_open,
)
from holdfast.core.permissions import PermissionRequest
from holdfast.core.questions import QuestionRequest
from holdfast.core.session import StatusIdle, StatusRetry

_CHILD: Final = "sessionId"
"""Key in the metadata of a running task: the session of the subagent."""


class Text(NamedTuple):
    """The answer grew. `reasoning`: the model thinks aloud."""

    text: str
    reasoning: bool


class TextClosed(NamedTuple):
    reasoning: bool


class ToolStarted(NamedTuple):
    tool: str
    title: str


class ToolEnded(NamedTuple):
    """`output` is the whole output, or why it failed."""

    tool: str
    title: str
    output: str
    failed: bool


class Retrying(NamedTuple):
    """The model's provider failed; try number `attempt` is to start at `next_ms` (wall-clock)."""

    attempt: int
    message: str
    next_ms: int


class AnswerWanted(NamedTuple):
    """The turn waits for the user: for a permission, or for the answer to a question."""

    what: str


class Queued(NamedTuple):
    """Another turn of the session runs; this one is next, or later."""


class Ended(NamedTuple):
    outcome: e.TurnOutcome
    error: str | None


Notice = Text | TextClosed | ToolStarted | ToolEnded | Retrying | AnswerWanted | Queued | Ended


class TurnView:
    """The turn that answers user message `message_id`. `started` once somebody works on it, `ended` with its outcome;
    `wanted` are the requests that wait for the user, by id, oldest first. `children` are the sessions of the subagents at
    work, by the part of the call that waits for them."""

    def __init__(self, message_id: str) -> None:
        self._message_id = message_id
        self._prompts = {message_id}
        self._steps: set[str] = set()
        self._shown: dict[str, int] = {}
        self._closed: set[str] = set()
        self._reasoning: set[str] = set()
        self._error: MessageError | None = None
        self._busy = False
        self.wanted: dict[str, PermissionRequest | QuestionRequest] = {}
        self.children: dict[str, str] = {}
        self.started = False
        self.ended: Ended | None = None

    def apply(self, event: e.Event) -> list[Notice]:
        match event:
            case e.TurnRequested(message_id=self._message_id):
                return [Queued()] if self._busy else []
            case e.TurnStarted(message_id=self._message_id):
                self.started = True
                return []
            case e.TurnEnded(message_id=message_id, outcome=outcome):
                if message_id != self._message_id:
                    return []
                return self._end(outcome, describe(self._error) if self._error else None)
            case e.MessageRemoved(message_id=self._message_id):
                return self._end("aborted", "The prompt was removed.")
            case e.SessionDeleted():
                return self._end("aborted", "The session was deleted.")
            case e.TurnExtended(message_id=self._message_id, prompt_id=prompt_id):
                self._prompts.add(prompt_id)
                return []
            case e.MessageUpdated(info=AssistantMessage() as info) if info.parent_id in self._prompts:
                self._steps.add(info.id)
                self._error = info.error
                return []
            case e.PartUpdated(part=part) if part.message_id in self._steps:
                return self._part(part)
            case e.PartDelta() if event.message_id in self._steps:
                return self._delta(event)
            case e.SessionStatusChanged(status=status):
                self._busy = not isinstance(status, StatusIdle)
                if isinstance(status, StatusRetry) and self.started:
                    return [Retrying(status.attempt, status.message, status.next)]
                return []
            case e.PermissionAsked() | e.QuestionAsked() if self.started and event.id not in self.wanted:
                return [self._wants(event)]
            case e.PermissionReplied() | e.QuestionReplied() | e.QuestionRejected():
                self.wanted.pop(event.request_id, None)
                return []
            case _:
                return []

    def apply_of_child(self, event: e.Event) -> list[Notice]:
        """An event of a session of `children`."""
        match event:
            case e.PermissionAsked() | e.QuestionAsked() if event.id not in self.wanted:
                return [AnswerWanted(f"{self._wants(event).what} (for a subagent)")]
            case e.PermissionReplied() | e.QuestionReplied() | e.QuestionRejected():
                self.wanted.pop(event.request_id, None)
            case e.TurnEnded() | e.SessionDeleted():
                self._forget(event.session_id)
            case e.PartUpdated(part=ToolPart() as part):
                self._note_child(part)
            case _:
                pass
        return []

    def _note_child(self, part: ToolPart) -> None:
        """A call that gives a task to a subagent says in which session."""
        metadata = part.state.metadata if isinstance(part.state, ToolRunning) else None
        child = (metadata or {}).get(_CHILD)
        if isinstance(child, str):
            self.children[part.id] = child
        elif (gone := self.children.pop(part.id, None)) is not None:
            self._forget(gone)

    def _forget(self, session_id: str) -> None:
        for id in [id for id, request in self.wanted.items() if request.session_id == session_id]:
            del self.wanted[id]

    def _wants(self, event: e.PermissionAsked | e.QuestionAsked) -> AnswerWanted:
        if isinstance(event, e.QuestionAsked):
            self.wanted[event.id] = QuestionRequest(
                id=event.id, session_id=event.session_id, questions=event.questions, tool=event.tool
            )
            return AnswerWanted(" / ".join(question.question for question in event.questions))
        self.wanted[event.id] = PermissionRequest(
            id=event.id,
            session_id=event.session_id,
            permission=event.permission,
            patterns=event.patterns,
            metadata=event.metadata,
            always=event.always,
            tool=event.tool,
        )
        return AnswerWanted(f"permission for {event.permission}: {', '.join(event.patterns)}")

    def _end(self, outcome: e.TurnOutcome, error: str | None) -> list[Notice]:
        if self.ended is not None:
            return []
        self.wanted.clear()
        self.children.clear()
        self.ended = Ended(outcome, error)
        return [self.ended]

    def _delta(self, event: e.PartDelta) -> list[Notice]:
        if event.part_id in self._closed or event.part_id not in self._shown:
            return []
        self._shown[event.part_id] += len(event.delta)
        return [Text(event.delta, event.part_id in self._reasoning)]

    def _part(self, part: Part) -> list[Notice]:
        if part.id in self._closed:
            return []
        if isinstance(part, ToolPart):
            self._note_child(part)
        notices: list[Notice] = []
        match part:
            case TextPart() | ReasoningPart():
                reasoning = isinstance(part, ReasoningPart)
                if reasoning:
                    self._reasoning.add(part.id)
                missing = part.text[self._shown.get(part.id, 0) :]
                self._shown[part.id] = max(len(part.text), self._shown.get(part.id, 0))
                if missing:
                    notices.append(Text(missing, reasoning))
                if not is_open(part):
                    notices.append(TextClosed(reasoning))
            case ToolPart(tool=tool, state=ToolRunning(title=title)) if part.id not in self._shown:
                self._shown[part.id] = 0
                notices.append(ToolStarted(tool, title or _title(part)))
            case ToolPart(tool=tool, state=ToolCompleted(title=title, output=output)):
                notices.append(ToolEnded(tool, title or _title(part), output, failed=False))
            case ToolPart(tool=tool, state=ToolError(error=error)):
                notices.append(ToolEnded(tool, _title(part), error, failed=True))
            case _:
                return []
        if not is_open(part):
            self._closed.add(part.id)
        return notices


def _title(part: ToolPart) -> str:
    """The first thing the tool is given that is a text: the command, the path, the pattern."""
    return next((value for value in part.state.input.values() if isinstance(value, str) and value), "")


def describe(error: MessageError) -> str:
    """One sentence for a person."""
    if isinstance(error, MessageOutputLengthError):
        return "The model's answer was longer than it may be."
    return error.data.message
