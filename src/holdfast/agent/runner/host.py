"""What a tool call may do with its session: `agent.tools.base.SessionHost`.

Each of these is found again after a restart: a question by the call that asked it, a subagent's session by its id, which
was recorded with the call before the session was made.
"""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from holdfast.agent import turn
from holdfast.agent.permissions import rules_for_subagent
from holdfast.agent.runner.environment import Environment
from holdfast.agent.runner.history import last_step
from holdfast.agent.runner.session_log import SessionLog
from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.base import FileChange, Subagent
from holdfast.agent.tools.stamps import SEEN, seen_in
from holdfast.agent.turn.outcomes import BY_USER
from holdfast.core.codec import decode, type_of
from holdfast.core.errors import HoldfastError, NotFound
from holdfast.core.events import (
    Event,
    FileEdited,
    FileWatcherUpdated,
    MessageRemoved,
    MessageUpdated,
    PartUpdated,
    QuestionAsked,
    SessionCreated,
    TodoUpdated,
    TurnAbortRequested,
    TurnEnded,
    TurnRequested,
)
from holdfast.core.messages import (
    AssistantMessage,
    MessageModel,
    Part,
    SubtaskPart,
    TextPart,
    ToolPart,
    ToolRunning,
    UserMessage,
    UserTime,
)
from holdfast.core.permissions import ToolReference
from holdfast.core.questions import Question
from holdfast.core.reducer import Get
from holdfast.core.session import NO_TOKENS, Session, SessionModel, SessionTime, Todo
from holdfast.core.state import TURNS, QuestionEntry, Turns, TurnState
from holdfast.core.store import SessionScope

DISMISSED: Final = "The user dismissed this question."
CHILD: Final = "sessionId"
"""Key in a task call's metadata: the subagent's session."""
_PROMPT: Final = "promptId"

_PAGE_MESSAGES: Final = 50
_SEEN_BYTES: Final = f'"{SEEN}"'.encode()
_part_decoder = msgspec.json.Decoder(Part)


class Subagents(Protocol):
    """Whoever works on sessions (`Engine`)."""

    def wake(self, session_id: str) -> None: ...


class Host:
    def __init__(
        self,
        record: SessionLog,
        part: ToolPart,
        state: TurnState,
        environment: Environment,
        engine: Subagents,
        note: Callable[[str, Any], Awaitable[None]],
    ) -> None:
        self._log = record
        self._part = part
        self._state = state
        self._environment = environment
        self._engine = engine
        self._note = note

    # --- questions

    async def ask(self, questions: Sequence[Question]) -> tuple[tuple[str, ...], ...]:
        while True:
            reply = self._log.next_reply()
            entry = await self._question()
            if entry is None:
                await self._log.append([self._asked(questions)])
            elif entry.rejected:
                raise ToolFailure(DISMISSED)
            elif entry.answers is not None:
                return entry.answers
            await reply.wait()

    async def _question(self) -> QuestionEntry | None:
        entries = (await self._log.state()).questions
        return next((entry for entry in entries if entry.request.tool == self._reference()), None)

    def _asked(self, questions: Sequence[Question]) -> QuestionAsked:
        return QuestionAsked(
            session_id=self._log.session_id,
            id=self._log.new_id("que"),
            questions=tuple(questions),
            tool=self._reference(),
        )

    def _reference(self) -> ToolReference:
        return ToolReference(message_id=self._part.message_id, call_id=self._part.call_id)

    # --- todos

    async def todos(self) -> tuple[Todo, ...]:
        return await self._log.store.todos(self._log.session_id)

    async def write_todos(self, todos: Sequence[Todo]) -> None:
        await self._log.append([TodoUpdated(session_id=self._log.session_id, todos=tuple(todos))])

    # --- files

    async def seen(self, path: str) -> frozenset[str]:
        before: int | None = None
        while True:
            page = await self._log.store.message_page(self._log.session_id, limit=_PAGE_MESSAGES, before=before)
            for message in reversed(page.messages):
                parts = [_part_decoder.decode(part) for part in message.parts if _SEEN_BYTES in part]
                stamps = frozenset(seen[path] for part in parts if path in (seen := seen_in(part)))
                if stamps:
                    return stamps
            if not page.more:
                return frozenset()
            before = page.messages[0].version

    async def changed(self, files: Sequence[FileChange]) -> None:
        session_id = self._log.session_id
        edited = [FileEdited(session_id=session_id, file=file.path) for file in files if file.kind != "unlink"]
        watched = [FileWatcherUpdated(session_id=session_id, file=file.path, event=file.kind) for file in files]
        await self._log.append([*edited, *watched], key=f"changed:{self._part.id}")

    # --- subagents

    async def run_subagent(self, subagent: Subagent) -> tuple[str, str]:
        known = self._environment.subagents(self._state.session)
        by_user = bool((self._part.metadata or {}).get(BY_USER))  # who may name any agent
        if subagent.agent not in known and not by_user:
            raise ToolFailure(
                f"There is no agent {subagent.agent!r} for tasks. There are: {', '.join(known) or 'none'}."
            )
        recorded = self._recorded()
        child = recorded.get(CHILD) or await self._continued(subagent.session_id) or self._log.new_id("ses")
        prompt = recorded.get(_PROMPT) or self._log.new_id("msg")
        if not recorded.get(_PROMPT):
            await self._note(CHILD, child)
            await self._note(_PROMPT, prompt)
        try:
            await self._prompt(child, prompt, subagent)
            await self._ended(child, prompt)
        except NotFound:
            raise ToolFailure(f"The task's session {child} was deleted.") from None
        return child, await self._answer(child, prompt)

    def _recorded(self) -> dict[str, Any]:
        return dict(self._part.state.metadata or {}) if isinstance(self._part.state, ToolRunning) else {}

    async def _continued(self, session_id: str | None) -> str | None:
        if session_id is None:
            return None
        try:
            session = await self._log.store.session(session_id)
        except NotFound:
            raise ToolFailure(f"There is no task {session_id!r} to continue; leave task_id out.") from None
        if session.parent_id != self._log.session_id:
            raise ToolFailure(f"{session_id!r} is not a task of this session; leave task_id out.")
        return session_id

    async def _prompt(self, child: str, prompt: str, subagent: Subagent) -> None:
        """Create the session unless it exists, and give it its prompt unless it has it."""
        now = self._log.now_ms()
        parent = self._state.session
        model = (
            subagent.model
            or _model_of(self._state, self._part)
            or self._environment.agent_model(parent, subagent.agent)
            or turn.prompt(self._state).model
        )
        off = {name: False for name, wanted in (turn.prompt(self._state).tools or {}).items() if not wanted}
        user = UserMessage(
            id=prompt,
            session_id=child,
            time=UserTime(created=now),
            agent=subagent.agent,
            model=model,
            tools=off or None,  # a rule does not say the same: `write` is a tool, and no permission
        )
        own = self._environment.rules(replace(parent, permission=None), user)
        session = Session(
            id=child,
            slug=f"{parent.slug}-task",
            version=parent.version,
            project_id=parent.project_id,
            directory=parent.directory,
            path=parent.path,
            parent_id=parent.id,
            title=f"{subagent.description} (@{subagent.agent} subagent)",
            agent=subagent.agent,
            model=SessionModel(id=model.model_id, provider_id=model.provider_id, variant=model.variant),
            cost=0,
            tokens=NO_TOKENS,
            permission=rules_for_subagent(parent.permission or (), own),
            time=SessionTime(created=now, updated=now),
        )
        part = TextPart(id=self._log.new_id("prt"), session_id=child, message_id=prompt, text=subagent.prompt)
        events: list[Event] = [
            MessageUpdated(session_id=child, info=user),
            PartUpdated(session_id=child, part=part, time=now),
            TurnRequested(session_id=child, message_id=prompt),
        ]
        await self._log.store.append(child, [SessionCreated(session_id=child, info=session)])
        await self._log.store.append(child, events, key=f"prompt:{prompt}")

    async def _ended(self, child: str, prompt: str) -> None:
        """Return once the subagent's turn is over. If we are cancelled, so is it."""
        watched = self._log.store.subscribe(SessionScope(child))
        turns = (await self._log.store.turn_state(child)).turns
        pending = prompt in turns.queue or (turns.active is not None and turns.active.message_id == prompt)
        if not pending:
            return
        self._engine.wake(child)
        async for batch in watched:
            for record in batch:
                if type_of(record.tag) == TurnEnded.type:
                    _, event = decode(record.tag, record.data)
                    if isinstance(event, TurnEnded) and event.message_id == prompt:
                        return
        raise NotFound("Session", child)

    async def _answer(self, child: str, prompt: str) -> str:
        last = await last_step(self._log.store, child, prompt)
        if last is not None and isinstance(last.info, AssistantMessage) and last.info.error is not None:
            reason = getattr(last.info.error.data, "message", last.info.error.__class__.__name__)
            raise ToolFailure(f"The task ended with an error: {reason}")
        texts = [part.text for part in last.parts if isinstance(part, TextPart)] if last else []
        return texts[-1] if texts else ""


async def abort_children(record: SessionLog, state: TurnState, engine: Subagents) -> None:
    """The turn is being aborted: so are the subagents that its calls wait for."""
    for part in state.step.parts if state.step else ():
        match part:
            case ToolPart(state=ToolRunning(metadata=dict(metadata))) if CHILD in metadata:
                with contextlib.suppress(HoldfastError):
                    await _abort(record, metadata[CHILD], metadata.get(_PROMPT), engine)
            case _:
                pass


async def _abort(record: SessionLog, child: str, prompt: str | None, engine: Subagents) -> None:
    """Only what the call had asked for: what the user asked the subagent beside it goes on."""

    def decide(get: Get) -> list[Event]:
        turns = get(TURNS)
        if prompt is None or not isinstance(turns, Turns):
            return []
        if prompt in turns.queue and (turns.active is not None or turns.queue[0] != prompt):
            return [
                MessageRemoved(session_id=child, message_id=prompt)
            ]  # it waits behind others, and has no turn to abort
        return [TurnAbortRequested(session_id=child, message_id=prompt)]

    await record.store.append(child, decide)
    engine.wake(child)


def _model_of(state: TurnState, part: ToolPart) -> MessageModel | None:
    """The model that a subtask of the prompt asks for."""
    for other in state.user.parts if state.user else ():
        if part.tool == "task" and isinstance(other, SubtaskPart) and other.model is not None:
            return other.model
    return None
