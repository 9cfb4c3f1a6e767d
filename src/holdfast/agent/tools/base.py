"""Port: a tool the LLM can call. One tool is one file and one test; `agent/tools/__init__.py` lists them."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from holdfast.agent.permissions import Ask
from holdfast.core.clock import Clock
from holdfast.core.messages import FilePart, MessageModel, ToolPart
from holdfast.core.questions import Question
from holdfast.core.session import Todo

Progress = Callable[[str | None, dict[str, Any]], Awaitable[None]]


class Subagent(msgspec.Struct, frozen=True, kw_only=True):
    """A task for another agent in a session of its own. `session_id` continues an earlier one. Without `model` it is the
    agent's own, else the caller's."""

    description: str
    prompt: str
    agent: str
    session_id: str | None = None
    model: MessageModel | None = None


class FileChange(msgspec.Struct, frozen=True):
    """`path` is absolute."""

    path: str
    kind: Literal["add", "change", "unlink"]


class SessionHost(Protocol):
    """What a tool may do with the session that called it. All of it is recorded, and a call that is run again after a
    restart goes on with what its first run began: it does not ask twice or start a second subagent."""

    async def ask(self, questions: Sequence[Question]) -> tuple[tuple[str, ...], ...]:
        """The user's answers, a list of labels per question. Waits as long as it takes. Raises ToolFailure if the user
        does not want to answer."""
        ...

    async def todos(self) -> tuple[Todo, ...]: ...

    async def write_todos(self, todos: Sequence[Todo]) -> None: ...

    async def seen(self, path: str) -> frozenset[str]:
        """Which contents of a file (an absolute path, without links) the LLM knows: the stamps in the newest step of this
        session that read or wrote it (`agent.tools.stamps`). Empty if none did."""
        ...

    async def changed(self, files: Sequence[FileChange]) -> None:
        """Tell clients that the call changed these files, in this order. Once for a call: a second time tells nothing."""
        ...

    async def run_subagent(self, subagent: Subagent) -> tuple[str, str]:
        """(session id, the last words of the subagent). Raises ToolFailure if it failed or there is no such agent."""
        ...


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a call may know. `directory` is where relative paths start; `worktree` the root of the project;
    `output_directory` is where output over the limit goes, whole. `progress(title, metadata)` records the state of the
    running tool and returns once it is durable: whatever must be known after a crash is recorded before it is done.
    `recorded` is what an earlier run of this same call recorded so, when the server died in it (repeatable tools)."""

    session_id: str
    message_id: str
    part_id: str
    call_id: str
    directory: Path
    worktree: Path
    output_directory: Path
    clock: Clock
    progress: Progress
    host: SessionHost
    recorded: dict[str, Any] = {}


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    output: str
    metadata: dict[str, Any] = {}
    attachments: tuple[FilePart, ...] = ()


class ToolFailure(Exception):
    """The tool could not do it. The message goes to the LLM, so it says what to do differently; `metadata` is shown to the
    user. Anything else a tool raises is a defect of ours and is reported as such."""

    def __init__(self, message: str, *, metadata: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = metadata


class Tool(Protocol):
    """`parameters` is the JSON schema of the input; input is validated against it before `run`. A `repeatable` tool only
    reads, or sees from `recorded` what its first run did: when the server died while it ran, it is run again."""

    id: str
    description: str
    parameters: dict[str, Any]
    repeatable: bool

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        """What the call needs permission for, found without doing it. Called before `run`, perhaps more than once. Raises
        ToolFailure."""
        ...

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        """Do it. Raises ToolFailure. On cancellation (abort, shutdown) stops at once, leaves nothing running and raises
        CancelledError; what it did so far is in the recorded progress."""
        ...

    async def clean_up(self, part: ToolPart) -> None:
        """The server died while this call ran: end whatever of it is still alive. Called before the outcome is recorded."""
        ...


class ForeignTool:
    """A tool that is somebody else's: what is behind it checks its input itself, by rules that we may not know."""
