"""Valid values and events of one session, to tell stories with: `story.created()`, `story.message(story.user())`, …

Owns nothing but defaults. Times are milliseconds; every builder takes the fields that matter to the story.
"""

from typing import Any, Literal

from msgspec.structs import replace

from holdfast.core import events as e
from holdfast.core.messages import (
    AssistantMessage,
    AssistantTime,
    Message,
    MessageModel,
    MessagePath,
    Part,
    PartTime,
    ReasoningPart,
    TextPart,
    ToolCompleted,
    ToolError,
    ToolPart,
    ToolPending,
    ToolRunning,
    ToolTime,
    ToolTimeStart,
    UserMessage,
    UserTime,
)
from holdfast.core.questions import Question, QuestionOption
from holdfast.core.session import BUSY, NO_TOKENS, FileDiff, Session, SessionStatus, SessionTime, Todo

NOW_MS = 1_795_219_535_462

ToolStatus = Literal["pending", "running", "completed", "error"]


class Story:
    """Builders for the session `id`. `info` is its Session."""

    def __init__(self, id: str = "ses_story", **info: Any) -> None:
        values: dict[str, Any] = {
            "id": id,
            "slug": "calm-harbour",
            "version": "0.1.0",
            "project_id": "global",
            "directory": "/home/dev/project",
            "title": "A session",
            "cost": 0.0,
            "tokens": NO_TOKENS,
            "time": SessionTime(created=NOW_MS, updated=NOW_MS),
        }
        self.id = id
        self.info = Session(**(values | info))

    # --- the session

    def created(self) -> e.SessionCreated:
        return e.SessionCreated(session_id=self.id, info=self.info)

    def updated(self, *, at: int = NOW_MS, **info: Any) -> e.SessionUpdated:
        self.info = replace(self.info, time=replace(self.info.time, updated=at), **info)
        return e.SessionUpdated(session_id=self.id, info=self.info)

    def deleted(self) -> e.SessionDeleted:
        return e.SessionDeleted(session_id=self.id, info=self.info)

    def status(self, status: SessionStatus = BUSY) -> e.SessionStatusChanged:
        return e.SessionStatusChanged(session_id=self.id, status=status)

    def idled(self) -> e.SessionIdled:
        return e.SessionIdled(session_id=self.id)

    def diffed(self) -> e.SessionDiffed:
        return e.SessionDiffed(session_id=self.id, diff=(FileDiff(file="a.py", additions=1, deletions=0),))

    def edited(self, file: str = "/home/dev/project/a.py") -> e.FileEdited:
        return e.FileEdited(session_id=self.id, file=file)

    def command(self, name: str = "init", *, message: str = "msg_a1") -> e.CommandExecuted:
        return e.CommandExecuted(session_id=self.id, name=name, arguments="", message_id=message)

    def todo(self, *contents: str) -> e.TodoUpdated:
        todos = tuple(Todo(content=content, status="pending", priority="high") for content in contents)
        return e.TodoUpdated(session_id=self.id, todos=todos)

    # --- messages

    def user(self, id: str = "msg_u1") -> UserMessage:
        model = MessageModel(provider_id="fake", model_id="fake-1")
        return UserMessage(id=id, session_id=self.id, time=UserTime(created=NOW_MS), agent="build", model=model)

    def assistant(self, id: str = "msg_a1", parent: str = "msg_u1", *, completed: bool = False) -> AssistantMessage:
        return AssistantMessage(
            id=id,
            session_id=self.id,
            parent_id=parent,
            mode="build",
            agent="build",
            path=MessagePath(cwd=self.info.directory, root=self.info.directory),
            cost=0.0,
            tokens=NO_TOKENS,
            model_id="fake-1",
            provider_id="fake",
            time=AssistantTime(created=NOW_MS, completed=NOW_MS + 1 if completed else None),
            finish="stop" if completed else None,
        )

    def message(self, info: Message) -> e.MessageUpdated:
        return e.MessageUpdated(session_id=self.id, info=info)

    def removed(self, message_id: str) -> e.MessageRemoved:
        return e.MessageRemoved(session_id=self.id, message_id=message_id)

    # --- parts

    def prompt(self, id: str, text: str, message: str = "msg_u1") -> TextPart:
        return TextPart(id=id, session_id=self.id, message_id=message, text=text)

    def text(self, id: str, text: str = "", *, message: str = "msg_a1", closed: bool = False) -> TextPart:
        time = PartTime(start=NOW_MS, end=NOW_MS + 1 if closed else None)
        return TextPart(id=id, session_id=self.id, message_id=message, text=text, time=time)

    def reasoning(self, id: str, text: str = "", *, message: str = "msg_a1", closed: bool = False) -> ReasoningPart:
        time = PartTime(start=NOW_MS, end=NOW_MS + 1 if closed else None)
        return ReasoningPart(id=id, session_id=self.id, message_id=message, text=text, time=time)

    def tool(
        self,
        id: str,
        status: ToolStatus,
        output: str = "",
        *,
        message: str = "msg_a1",
    ) -> ToolPart:
        input, time = {"command": "ls"}, ToolTime(start=NOW_MS, end=NOW_MS)
        match status:
            case "pending":
                state = ToolPending(input=input, raw=output)
            case "running":
                state = ToolRunning(input=input, metadata={"output": output}, time=ToolTimeStart(start=NOW_MS))
            case "completed":
                state = ToolCompleted(input=input, output=output, title="ls", metadata={}, time=time)
            case "error":
                state = ToolError(input=input, error=output, time=time)
        return ToolPart(id=id, session_id=self.id, message_id=message, call_id=f"call_{id}", tool="bash", state=state)

    def part(self, part: Part) -> e.PartUpdated:
        return e.PartUpdated(session_id=self.id, part=part, time=NOW_MS)

    def delta(self, part_id: str, delta: str, message: str = "msg_a1") -> e.PartDelta:
        return e.PartDelta(session_id=self.id, message_id=message, part_id=part_id, field="text", delta=delta)

    def part_removed(self, part_id: str, message: str = "msg_a1") -> e.PartRemoved:
        return e.PartRemoved(session_id=self.id, message_id=message, part_id=part_id)

    # --- requests

    def permission_asked(self, id: str = "per_1") -> e.PermissionAsked:
        return e.PermissionAsked(
            session_id=self.id, id=id, permission="bash", patterns=("ls *",), metadata={}, always=("ls *",)
        )

    def permission_replied(
        self, id: str = "per_1", reply: Literal["once", "always", "reject"] = "once"
    ) -> e.PermissionReplied:
        return e.PermissionReplied(session_id=self.id, request_id=id, reply=reply)

    def question_asked(self, id: str = "que_1") -> e.QuestionAsked:
        option = QuestionOption(label="Yes", description="Do it")
        return e.QuestionAsked(
            session_id=self.id, id=id, questions=(Question(question="Go on?", header="Go", options=(option,)),)
        )

    def question_replied(self, id: str = "que_1") -> e.QuestionReplied:
        return e.QuestionReplied(session_id=self.id, request_id=id, answers=(("Yes",),))

    def question_rejected(self, id: str = "que_1") -> e.QuestionRejected:
        return e.QuestionRejected(session_id=self.id, request_id=id)

    # --- the turn

    def requested(self, id: str = "msg_u1") -> e.TurnRequested:
        return e.TurnRequested(session_id=self.id, message_id=id)

    def started(self, id: str = "msg_u1") -> e.TurnStarted:
        return e.TurnStarted(session_id=self.id, message_id=id)

    def extended(self, prompt_id: str, id: str = "msg_u1") -> e.TurnExtended:
        return e.TurnExtended(session_id=self.id, message_id=id, prompt_id=prompt_id)

    def suspended(self, id: str = "msg_u1") -> e.TurnSuspended:
        return e.TurnSuspended(session_id=self.id, message_id=id)

    def abort_requested(self, id: str = "msg_u1") -> e.TurnAbortRequested:
        return e.TurnAbortRequested(session_id=self.id, message_id=id)

    def ended(self, id: str = "msg_u1", outcome: e.TurnOutcome = "completed") -> e.TurnEnded:
        return e.TurnEnded(session_id=self.id, message_id=id, outcome=outcome)

    # --- the usual beginnings

    def prompted(self, text: str = "Say hello") -> list[e.Event]:
        """A new session with a prompt that waits for its answer."""
        return [
            self.created(),
            self.message(self.user()),
            self.part(self.prompt("prt_u1", text)),
            self.requested(),
        ]

    def streaming(self, part_id: str = "prt_1") -> list[e.Event]:
        """A new session, and a turn with an open text part."""
        return [
            *self.prompted(),
            self.started(),
            self.status(),
            self.message(self.assistant()),
            self.part(self.text(part_id)),
        ]
