"""User and assistant messages, their parts (all twelve kinds), and the errors a message can end with.

A message is `info` plus an ordered list of parts. One step of the model is one assistant message; several of them may
answer one user message (`parent_id`).
"""

from typing import Any, Final, Literal

import msgspec

from holdfast.core.session import FileDiff, Tokens
from holdfast.core.wire import Wire

# --- errors a message can end with ------------------------------------------------------------------------------


class ErrorMessage(Wire):
    message: str


class ProviderAuthErrorData(Wire):
    provider_id: str
    message: str


class ProviderAuthError(Wire, tag_field="name", tag="ProviderAuthError"):
    data: ProviderAuthErrorData


class UnknownErrorData(Wire):
    message: str
    ref: str | None = None


class UnknownError(Wire, tag_field="name", tag="UnknownError"):
    data: UnknownErrorData


class NoData(Wire):
    pass


class MessageOutputLengthError(Wire, tag_field="name", tag="MessageOutputLengthError"):
    data: NoData


class MessageAbortedError(Wire, tag_field="name", tag="MessageAbortedError"):
    data: ErrorMessage


class StructuredOutputErrorData(Wire):
    message: str
    retries: int


class StructuredOutputError(Wire, tag_field="name", tag="StructuredOutputError"):
    data: StructuredOutputErrorData


class ContextOverflowErrorData(Wire):
    message: str
    response_body: str | None = None


class ContextOverflowError(Wire, tag_field="name", tag="ContextOverflowError"):
    data: ContextOverflowErrorData


class ContentFilterError(Wire, tag_field="name", tag="ContentFilterError"):
    data: ErrorMessage


class APIErrorData(Wire):
    message: str
    status_code: int | None = None
    is_retryable: bool
    response_headers: dict[str, str] | None = None
    response_body: str | None = None
    metadata: dict[str, str] | None = None


class APIError(Wire, tag_field="name", tag="APIError"):
    data: APIErrorData


MessageError = (
    ProviderAuthError
    | UnknownError
    | MessageOutputLengthError
    | MessageAbortedError
    | StructuredOutputError
    | ContextOverflowError
    | ContentFilterError
    | APIError
)

# --- messages ---------------------------------------------------------------------------------------------------


class OutputFormatText(Wire, tag_field="type", tag="text"):
    pass


class OutputFormatJsonSchema(Wire, tag_field="type", tag="json_schema"):
    schema: dict[str, Any] | bool
    retry_count: int | None = None


OutputFormat = OutputFormatText | OutputFormatJsonSchema


class MessageModel(Wire):
    """The LLM of a user message: `{"providerID", "modelID", "variant"?}`."""

    provider_id: str
    model_id: str
    variant: str | None = None


class UserTime(Wire):
    created: int


class UserSummary(Wire):
    title: str | None = None
    body: str | None = None
    diffs: tuple[FileDiff, ...]


class UserMessage(Wire, tag_field="role", tag="user"):
    id: str
    session_id: str
    time: UserTime
    format: OutputFormat | None = None
    summary: UserSummary | None = None
    agent: str
    model: MessageModel
    system: str | None = None
    tools: dict[str, bool] | None = None


class AssistantTime(Wire):
    created: int
    completed: int | None = None


class MessagePath(Wire):
    cwd: str
    root: str


class AssistantMessage(Wire, tag_field="role", tag="assistant"):
    """One step of the model. Terminal, and final, once `time.completed` is set; `finish` is why the model stopped."""

    id: str
    session_id: str
    parent_id: str
    mode: str
    agent: str
    path: MessagePath
    cost: float
    tokens: Tokens
    model_id: str
    provider_id: str
    variant: str | None = None
    time: AssistantTime
    summary: bool | None = None
    structured: Any | None = None
    error: MessageError | None = None
    finish: str | None = None


Message = UserMessage | AssistantMessage

# --- parts ------------------------------------------------------------------------------------------------------


class PartTime(Wire):
    start: int
    end: int | None = None


class TextPart(Wire, tag_field="type", tag="text"):
    """Model text is open (still growing by deltas) while `time` has no `end`; a user's text has no `time` at all."""

    id: str
    session_id: str
    message_id: str
    text: str
    synthetic: bool | None = None
    ignored: bool | None = None
    time: PartTime | None = None
    metadata: dict[str, Any] | None = None


class ReasoningPart(Wire, tag_field="type", tag="reasoning"):
    id: str
    session_id: str
    message_id: str
    text: str
    metadata: dict[str, Any] | None = None
    time: PartTime


class SourceText(Wire):
    value: str
    start: int
    end: int


class FileSource(Wire, tag_field="type", tag="file"):
    text: SourceText
    path: str


class LinePosition(Wire):
    line: int
    character: int


class LineRange(Wire):
    start: LinePosition
    end: LinePosition


class SymbolSource(Wire, tag_field="type", tag="symbol"):
    text: SourceText
    path: str
    range: LineRange
    name: str
    kind: int


class ResourceSource(Wire, tag_field="type", tag="resource"):
    text: SourceText
    client_name: str
    uri: str


FilePartSource = FileSource | SymbolSource | ResourceSource


class FilePart(Wire, tag_field="type", tag="file"):
    id: str
    session_id: str
    message_id: str
    mime: str
    filename: str | None = None
    url: str
    source: FilePartSource | None = None


ASKING: Final = "asking"
"""Key in the metadata of a call that waits for the user's permission. It is shown as running then, because clients show the input
of a call that is not pending beside their question; but nothing of it was done."""


class ToolPending(Wire, tag_field="status", tag="pending"):
    """The model is still writing the call, or wrote it and the tool has not started. `raw` is its JSON so far."""

    input: dict[str, Any]
    raw: str


class ToolTimeStart(Wire):
    start: int


class ToolRunning(Wire, tag_field="status", tag="running"):
    """Recorded *before* the tool runs. Found after a crash, it means: outcome unknown."""

    input: dict[str, Any]
    title: str | None = None
    metadata: dict[str, Any] | None = None
    time: ToolTimeStart


class ToolTime(Wire):
    start: int
    end: int
    compacted: int | None = None


class ToolCompleted(Wire, tag_field="status", tag="completed"):
    input: dict[str, Any]
    output: str
    title: str
    metadata: dict[str, Any]
    time: ToolTime
    attachments: tuple[FilePart, ...] | None = None


class ToolError(Wire, tag_field="status", tag="error"):
    input: dict[str, Any]
    error: str
    metadata: dict[str, Any] | None = None
    time: ToolTime


ToolState = ToolPending | ToolRunning | ToolCompleted | ToolError


class ToolPart(Wire, tag_field="type", tag="tool"):
    id: str
    session_id: str
    message_id: str
    call_id: str
    tool: str
    state: ToolState
    metadata: dict[str, Any] | None = None


class StepStartPart(Wire, tag_field="type", tag="step-start"):
    id: str
    session_id: str
    message_id: str
    snapshot: str | None = None


class StepFinishPart(Wire, tag_field="type", tag="step-finish"):
    id: str
    session_id: str
    message_id: str
    reason: str
    snapshot: str | None = None
    cost: float
    tokens: Tokens


class SnapshotPart(Wire, tag_field="type", tag="snapshot"):
    id: str
    session_id: str
    message_id: str
    snapshot: str


class PatchPart(Wire, tag_field="type", tag="patch"):
    id: str
    session_id: str
    message_id: str
    hash: str
    files: tuple[str, ...]


class AgentSource(Wire):
    value: str
    start: int
    end: int


class AgentPart(Wire, tag_field="type", tag="agent"):
    id: str
    session_id: str
    message_id: str
    name: str
    source: AgentSource | None = None


class SubtaskPart(Wire, tag_field="type", tag="subtask"):
    id: str
    session_id: str
    message_id: str
    prompt: str
    description: str
    agent: str
    model: MessageModel | None = None
    command: str | None = None


class RetryTime(Wire):
    created: int


class RetryPart(Wire, tag_field="type", tag="retry"):
    """A try of the model failed at this time. What it had streamed is kept, and the next try continues the open text."""

    id: str
    session_id: str
    message_id: str
    attempt: int
    error: APIError
    time: RetryTime


class CompactionPart(Wire, tag_field="type", tag="compaction"):
    id: str
    session_id: str
    message_id: str
    auto: bool
    overflow: bool | None = None
    tail_start_id: str | None = msgspec.field(name="tail_start_id", default=None)


Part = (
    TextPart
    | ReasoningPart
    | FilePart
    | ToolPart
    | StepStartPart
    | StepFinishPart
    | SnapshotPart
    | PatchPart
    | AgentPart
    | SubtaskPart
    | RetryPart
    | CompactionPart
)


class WithParts(Wire):
    """`{"info": Message, "parts": [Part, …]}`, parts in the order in which they were opened."""

    info: Message
    parts: tuple[Part, ...]


Role = Literal["user", "assistant"]


def is_open(part: Part) -> bool:
    """True while deltas may still grow the part or its tool may still write: nobody may rely on its content yet."""
    match part:
        case TextPart(time=time):
            return time is not None and time.end is None
        case ReasoningPart(time=time):
            return time.end is None
        case ToolPart(state=state):
            return isinstance(state, ToolPending | ToolRunning)
        case _:
            return False


def has_begun(part: Part) -> bool:
    """True for a call that is running; not while the user is asked whether it may (`ASKING`)."""
    match part:
        case ToolPart(state=ToolRunning(metadata=metadata)):
            return not (metadata or {}).get(ASKING)
        case _:
            return False


def is_terminal(message: Message) -> bool:
    return isinstance(message, AssistantMessage) and message.time.completed is not None
