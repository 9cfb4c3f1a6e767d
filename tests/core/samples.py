"""A few valid values, to build stories from."""

from typing import Any

from holdfast.core import events as e
from holdfast.core.messages import (
    AssistantMessage,
    AssistantTime,
    MessageModel,
    MessagePath,
    Part,
    PartTime,
    ReasoningPart,
    TextPart,
    ToolCompleted,
    ToolPart,
    ToolPending,
    ToolRunning,
    ToolTime,
    ToolTimeStart,
    UserMessage,
    UserTime,
)
from holdfast.core.session import NO_TOKENS, Session, SessionTime

SESSION = "ses_1"
NOW = 1_795_219_535_462


def session(**changes: Any) -> Session:
    values: dict[str, Any] = {
        "id": SESSION,
        "slug": "calm-harbour",
        "version": "0.1.0",
        "project_id": "global",
        "directory": "/home/dev/project",
        "title": "A session",
        "cost": 0,
        "tokens": NO_TOKENS,
        "time": SessionTime(created=NOW, updated=NOW),
    }
    return Session(**(values | changes))


def user(id: str = "msg_u1") -> UserMessage:
    model = MessageModel(provider_id="fake", model_id="fake-1")
    return UserMessage(id=id, session_id=SESSION, time=UserTime(created=NOW), agent="build", model=model)


def assistant(id: str = "msg_a1", parent: str = "msg_u1", **changes: Any) -> AssistantMessage:
    values: dict[str, Any] = {
        "id": id,
        "session_id": SESSION,
        "parent_id": parent,
        "mode": "build",
        "agent": "build",
        "path": MessagePath(cwd="/home/dev/project", root="/home/dev/project"),
        "cost": 0,
        "tokens": NO_TOKENS,
        "model_id": "fake-1",
        "provider_id": "fake",
        "time": AssistantTime(created=NOW),
    }
    return AssistantMessage(**(values | changes))


def completed(message: AssistantMessage) -> AssistantMessage:
    return assistant(message.id, message.parent_id, finish="stop", time=AssistantTime(created=NOW, completed=NOW + 1))


def text(id: str, content: str = "", *, message: str = "msg_a1", end: int | None = None) -> TextPart:
    return TextPart(id=id, session_id=SESSION, message_id=message, text=content, time=PartTime(start=NOW, end=end))


def prompt_text(id: str, content: str, message: str = "msg_u1") -> TextPart:
    return TextPart(id=id, session_id=SESSION, message_id=message, text=content)


def reasoning(id: str, content: str = "", *, end: int | None = None) -> ReasoningPart:
    return ReasoningPart(
        id=id, session_id=SESSION, message_id="msg_a1", text=content, time=PartTime(start=NOW, end=end)
    )


def tool(id: str, status: str, name: str = "bash") -> ToolPart:
    input = {"command": "ls"}
    state = {
        "pending": ToolPending(input=input, raw=""),
        "running": ToolRunning(input=input, time=ToolTimeStart(start=NOW)),
        "completed": ToolCompleted(input=input, output="x", title="ls", metadata={}, time=ToolTime(start=NOW, end=NOW)),
    }[status]
    return ToolPart(id=id, session_id=SESSION, message_id="msg_a1", call_id=f"call_{id}", tool=name, state=state)


def created() -> e.SessionCreated:
    return e.SessionCreated(session_id=SESSION, info=session())


def message(info: UserMessage | AssistantMessage) -> e.MessageUpdated:
    return e.MessageUpdated(session_id=SESSION, info=info)


def part(value: Part) -> e.PartUpdated:
    return e.PartUpdated(session_id=SESSION, part=value, time=NOW)


def delta(part_id: str, content: str, message_id: str = "msg_a1") -> e.PartDelta:
    return e.PartDelta(session_id=SESSION, message_id=message_id, part_id=part_id, field="text", delta=content)


def requested(id: str = "msg_u1") -> e.TurnRequested:
    return e.TurnRequested(session_id=SESSION, message_id=id)


def started(id: str = "msg_u1") -> e.TurnStarted:
    return e.TurnStarted(session_id=SESSION, message_id=id)


def ended(id: str = "msg_u1") -> e.TurnEnded:
    return e.TurnEnded(session_id=SESSION, message_id=id, outcome="completed")
