"""Everything that is recorded. One frozen type per event; the fields are the wire's `properties`.

The vocabulary is OpenCode's V1 plus six `turn.*` events of our own, which make the queue, the owner and the end of a
turn part of the log (stock clients skip types they do not know). `type` is the written wire tag, `version` the shape's
number: change a shape, raise the number, add an upcaster in `core.codec` and a golden file. Past events always load.

Not recorded, so not here: `server.connected`, `server.heartbeat`, `tui.*` and the like.
"""

from typing import ClassVar, Literal

from holdfast.core.messages import Message, MessageError, Part
from holdfast.core.permissions import PermissionReply, ToolReference
from holdfast.core.questions import Question
from holdfast.core.session import FileDiff, Session, SessionStatus, Todo
from holdfast.core.wire import Wire


class SessionEvent(Wire):
    """Base of all events: each belongs to one session and is recorded in that session's stream."""

    type: ClassVar[str]
    version: ClassVar[int] = 1

    session_id: str


# --- the session itself -----------------------------------------------------------------------------------------


class SessionCreated(SessionEvent):
    """First event of every stream. Written by the service on create, fork and subtask."""

    type = "session.created"
    info: Session


class SessionUpdated(SessionEvent):
    """The session's whole new info. Written by the service (title, archive, …) and the runner (tokens, cost, summary)."""

    type = "session.updated"
    info: Session


class SessionDeleted(SessionEvent):
    """Last event of a stream; nothing can follow. Written by the service."""

    type = "session.deleted"
    info: Session


class SessionStatusChanged(SessionEvent):
    """Written by the runner: busy at each step, retry while it waits for the provider, idle when nothing is left to do."""

    type = "session.status"
    status: SessionStatus


class SessionIdled(SessionEvent):
    """Follows `session.status` idle, once per turn queue that ran empty; older clients wait for it."""

    type = "session.idle"


class SessionErrored(SessionEvent):
    """A turn failed or was aborted; the same error is in the assistant message. Written by the runner."""

    type = "session.error"
    error: MessageError | None = None


class SessionDiffed(SessionEvent):
    """The session's file changes so far. Written by the runner after a step that changed files."""

    type = "session.diff"
    diff: tuple[FileDiff, ...]


class SessionCompacted(SessionEvent):
    """The conversation was summarised; later steps start from the summary. Written by the runner."""

    type = "session.compacted"


class FileEdited(SessionEvent):
    """A tool of the session wrote a file (an absolute path). Written by the runner, before the call is completed."""

    type = "file.edited"
    file: str


class FileWatcherUpdated(SessionEvent):
    """What became of a file when a tool of the session changed it; of one that moved, its old place first. Written by the
    runner, after all `file.edited` of the call."""

    type = "file.watcher.updated"
    file: str
    event: Literal["add", "change", "unlink"]


class CommandExecuted(SessionEvent):
    """A command that the user called by its name was carried out; `message_id` is the last message of its turn. Written by the
    service."""

    type = "command.executed"
    name: str
    arguments: str
    message_id: str


class TodoUpdated(SessionEvent):
    """The whole todo list. Written by the todo tool."""

    type = "todo.updated"
    todos: tuple[Todo, ...]


# --- messages and parts -----------------------------------------------------------------------------------------


class MessageUpdated(SessionEvent):
    """A message's whole info: its first one adds it. Written by the service (user) and the runner (assistant)."""

    type = "message.updated"
    info: Message


class MessageRemoved(SessionEvent):
    """Written by the service; removals of its parts come before it."""

    type = "message.removed"
    message_id: str


class PartUpdated(SessionEvent):
    """A part's whole content: its first one adds it, one that closes it carries all its text. Written by the service
    (user's parts, edits) and the runner (model output, tool states)."""

    type = "message.part.updated"
    part: Part
    time: int


class PartDelta(SessionEvent):
    """`delta` is appended to `field` of an open part. Written by the runner, one per piece the model sent."""

    type = "message.part.delta"
    message_id: str
    part_id: str
    field: Literal["text"]
    delta: str


class PartRemoved(SessionEvent):
    """Written by the service."""

    type = "message.part.removed"
    message_id: str
    part_id: str


# --- permissions and questions ----------------------------------------------------------------------------------


class PermissionAsked(SessionEvent):
    """A tool call waits for the user. Pending until replied, over restarts. Written by the runner."""

    type = "permission.asked"
    id: str
    permission: str
    patterns: tuple[str, ...]
    metadata: dict[str, object]
    always: tuple[str, ...]
    tool: ToolReference | None = None


class PermissionReplied(SessionEvent):
    """Written by the service when the user answers, by the runner when a turn ends with the request still open."""

    type = "permission.replied"
    request_id: str
    reply: PermissionReply
    message: str | None = None


class QuestionAsked(SessionEvent):
    """The model asks the user. Pending until answered or rejected, over restarts. Written by the runner."""

    type = "question.asked"
    id: str
    questions: tuple[Question, ...]
    tool: ToolReference | None = None


class QuestionReplied(SessionEvent):
    """Written by the service. `answers` has one list of labels per question."""

    type = "question.replied"
    request_id: str
    answers: tuple[tuple[str, ...], ...]


class QuestionRejected(SessionEvent):
    """Written by the service when the user dismisses it, by the runner when a turn ends with it still open."""

    type = "question.rejected"
    request_id: str


# --- the turn ---------------------------------------------------------------------------------------------------

TurnOutcome = Literal["completed", "failed", "aborted"]


class TurnRequested(SessionEvent):
    """User message `message_id` wants an answer and waits in the queue. Written by the service, with the message."""

    type = "turn.requested"
    message_id: str


class TurnStarted(SessionEvent):
    """A runner took the turn up: the first time, or again after a restart. Twice in a row without `turn.suspended`
    between them means that the server died in the turn. Written by the runner."""

    type = "turn.started"
    message_id: str


class TurnExtended(SessionEvent):
    """User message `prompt_id`, which no user wrote (a request to summarise, or to go on after that), belongs to the
    active turn and is what its next steps answer. Written by the runner, with that message."""

    type = "turn.extended"
    message_id: str
    prompt_id: str


class TurnSuspended(SessionEvent):
    """The server stops in good order; the turn goes on after the restart. Written by the runner on shutdown."""

    type = "turn.suspended"
    message_id: str


class TurnAbortRequested(SessionEvent):
    """The user wants the turn in progress to stop (or the one about to start); queued prompts stay. Written by the
    service."""

    type = "turn.abort_requested"
    message_id: str


class TurnEnded(SessionEvent):
    """The one terminal event of a turn, in the same append as whatever ends its last message. Written by the runner."""

    type = "turn.ended"
    message_id: str
    outcome: TurnOutcome


Event = (
    SessionCreated
    | SessionUpdated
    | SessionDeleted
    | SessionStatusChanged
    | SessionIdled
    | SessionErrored
    | SessionDiffed
    | SessionCompacted
    | FileEdited
    | FileWatcherUpdated
    | CommandExecuted
    | TodoUpdated
    | MessageUpdated
    | MessageRemoved
    | PartUpdated
    | PartDelta
    | PartRemoved
    | PermissionAsked
    | PermissionReplied
    | QuestionAsked
    | QuestionReplied
    | QuestionRejected
    | TurnRequested
    | TurnStarted
    | TurnExtended
    | TurnSuspended
    | TurnAbortRequested
    | TurnEnded
)

EVENT_TYPES: tuple[type[SessionEvent], ...] = tuple(SessionEvent.__subclasses__())
"""Every event there is, in the order above."""
