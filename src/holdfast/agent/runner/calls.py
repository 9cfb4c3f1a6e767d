"""Tool calls: each is checked, allowed, recorded as running, run, and its outcome recorded. Calls of one step run side by
side; one that waits for the user holds up only itself.

A call found again after a restart goes the same way: a question that was put to the user is not put twice, and an answer
given meanwhile counts.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace

from holdfast.agent import turn
from holdfast.agent.permissions import Ask, verdict_with_approvals
from holdfast.agent.runner.environment import Environment
from holdfast.agent.runner.host import Host, Subagents
from holdfast.agent.runner.session_log import SessionLog
from holdfast.agent.tools import ToolBox, ToolContext, ToolFailure, validate
from holdfast.agent.tools.invalid import INVALID, impossible
from holdfast.agent.turn.outcomes import BY_USER
from holdfast.core.errors import HoldfastError
from holdfast.core.events import PartUpdated, PermissionAsked, PermissionReplied
from holdfast.core.messages import (
    ASKING,
    ToolCompleted,
    ToolError,
    ToolPart,
    ToolPending,
    ToolRunning,
    ToolTime,
    ToolTimeStart,
    has_begun,
)
from holdfast.core.permissions import ToolReference
from holdfast.core.state import PermissionEntry, TurnState

ALIKE_BEFORE = turn.CALLS_KEPT
"""A call that is like so many right before it looks like a loop: the user is asked."""

REJECTED = "The user rejected permission to use this specific tool call."

log = structlog.get_logger()


class ToolCalls:
    def __init__(self, record: SessionLog, environment: Environment, subagents: Subagents) -> None:
        self._log = record
        self._environment = environment
        self._subagents = subagents

    async def run(self, state: TurnState, earlier: turn.Earlier, parts: Sequence[ToolPart]) -> None:
        """Return once every call is over. Cancel it to stop them all."""
        calls = [asyncio.create_task(self._call(state, earlier, part)) for part in parts]
        try:
            await asyncio.gather(*calls)
        finally:  # one was refused by the store, or all are cancelled: none goes on alone
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _call(self, state: TurnState, earlier: turn.Earlier, part: ToolPart) -> None:
        part = _possible(part, self._environment.tools(state.session, turn.prompt(state)))
        call = _Call(part, self._log)
        try:
            outcome = await self._run(state, earlier, part, call)
        except ToolFailure as failure:
            outcome = call.failed(failure.message, failure.metadata)
        except HoldfastError:
            raise
        except Exception as error:
            log.exception("tool.failed", session=part.session_id, tool=part.tool)
            outcome = call.failed(
                f"The tool failed inside Holdfast ({type(error).__name__}). This is not the fault of the call."
            )
        await call.update(outcome)

    async def _run(self, state: TurnState, earlier: turn.Earlier, part: ToolPart, call: "_Call") -> ToolCompleted:
        session = state.session
        tool = self._environment.tools(session, turn.prompt(state)).find(part.tool)
        validate(tool, part.state.input)
        context = ToolContext(
            session_id=part.session_id,
            message_id=part.message_id,
            part_id=part.id,
            call_id=part.call_id,
            directory=Path(session.directory),
            worktree=Path(self._environment.worktree(session)),
            output_directory=self._environment.output_directory(session),
            clock=self._log.clock,
            progress=call.progress,
            host=Host(self._log, part, state, self._environment, self._subagents, call.note),
            recorded=call.recorded,
        )
        if not has_begun(part):
            if not (part.metadata or {}).get(BY_USER):
                asks = [*await tool.asks(part.state.input, context), *_loop(earlier, state, part)]
                await self._allow(state, call, asks)
            await call.begin()
        result = await tool.run(part.state.input, context)
        return ToolCompleted(
            input=part.state.input,
            output=result.output,
            title=result.title,
            metadata=result.metadata,
            time=ToolTime(start=call.start, end=self._log.now_ms()),
            attachments=result.attachments or None,
        )

    # --- permission --------------------------------------------------------------------------------------------

    async def _allow(self, state: TurnState, call: "_Call", asks: Sequence[Ask]) -> None:
        """Return once everything is allowed; ask the user where no rule decides. Raises ToolFailure if it is not."""
        for ask in asks:
            if not ask.patterns:
                continue
            while not await self._is_allowed(state, call, ask):
                pass

    async def _is_allowed(self, state: TurnState, call: "_Call", ask: Ask) -> bool:
        """One look at rules and replies; returns after the next reply if the answer is still open."""
        part = call.part
        reply = self._log.next_reply()
        approvals = await self._log.store.approvals(state.session.project_id)
        entry = _entry((await self._log.state()).permissions, part, ask)
        if entry is not None and entry.reply is not None:
            if entry.reply == "reject":
                raise ToolFailure(_rejected(entry.message))
            return True
        own = self._environment.rules(state.session, turn.prompt(state))
        decided = verdict_with_approvals(ask, own, approvals)
        if decided == "allow":
            if entry is not None:  # asked, and allowed meanwhile by an answer to another call
                replied = PermissionReplied(session_id=part.session_id, request_id=entry.request.id, reply="once")
                await self._log.append([replied])
            return True
        if decided == "deny":
            raise ToolFailure(f"A rule of the user forbids this: {ask.permission} on {', '.join(ask.patterns)}.")
        if entry is None:
            await self._log.append([_asked(part, ask, self._log.new_id("per")), call.asking()])
        await reply.wait()
        return False


def _possible(part: ToolPart, tools: ToolBox) -> ToolPart:
    """The call, or the one that stands in for it when there is no such tool. The user's own calls stay what they are."""
    if part.tool in tools or INVALID not in tools or (part.metadata or {}).get(BY_USER):
        return part
    if part.tool.lower() in tools:  # some LLMs write names in capitals
        return replace(part, tool=part.tool.lower())
    return replace(part, tool=INVALID, state=ToolPending(input=impossible(part.tool, tools), raw=""))


class _Call:
    """What is recorded of one call while it runs."""

    def __init__(self, part: ToolPart, record: SessionLog) -> None:
        before = part.state if isinstance(part.state, ToolRunning) and has_begun(part) else None
        self.part = part
        self._log = record
        self._title: str | None = before.title if before else None
        self.recorded: dict[str, Any] = dict(before.metadata or {}) if before else {}
        self._metadata = dict(self.recorded)
        self._notes: dict[str, Any] = {}
        self.start = before.time.start if before else record.now_ms()

    def asking(self) -> PartUpdated:
        """What clients show beside their question. It is recorded with the question, and stands for nothing that was done."""
        state = ToolRunning(input=self.part.state.input, metadata={ASKING: True}, time=ToolTimeStart(start=self.start))
        return self._updated(state)

    async def begin(self) -> None:
        self.start = self._log.now_ms()
        await self.update(ToolRunning(input=self.part.state.input, time=ToolTimeStart(start=self.start)))

    async def progress(self, title: str | None, metadata: dict[str, Any]) -> None:
        self._title, self._metadata = title, {**self._notes, **metadata}
        time = ToolTimeStart(start=self.start)
        await self.update(ToolRunning(input=self.part.state.input, title=title, metadata=self._metadata, time=time))

    async def note(self, key: str, value: Any) -> None:
        """Record one fact more, which later progress keeps."""
        self._notes[key] = value
        await self.progress(self._title, self._metadata)

    async def update(self, state: ToolRunning | ToolCompleted | ToolError) -> None:
        await self._log.append([self._updated(state)])

    def _updated(self, state: ToolRunning | ToolCompleted | ToolError) -> PartUpdated:
        return PartUpdated(
            session_id=self.part.session_id, part=replace(self.part, state=state), time=self._log.now_ms()
        )

    def failed(self, message: str, metadata: dict[str, Any] | None = None) -> ToolError:
        time = ToolTime(start=self.start, end=self._log.now_ms())
        shown = metadata if metadata is not None else self._metadata or None
        return ToolError(input=self.part.state.input, error=message, metadata=shown, time=time)


def _entry(entries: Sequence[PermissionEntry], part: ToolPart, ask: Ask) -> PermissionEntry | None:
    """What was asked for this call already."""
    reference = ToolReference(message_id=part.message_id, call_id=part.call_id)
    for entry in entries:
        request = entry.request
        if (request.tool, request.permission, request.patterns) == (reference, ask.permission, ask.patterns):
            return entry
    return None


def _asked(part: ToolPart, ask: Ask, id: str) -> PermissionAsked:
    return PermissionAsked(
        session_id=part.session_id,
        id=id,
        permission=ask.permission,
        patterns=ask.patterns,
        metadata=ask.metadata,
        always=ask.always,
        tool=ToolReference(message_id=part.message_id, call_id=part.call_id),
    )


def _rejected(message: str | None) -> str:
    if not message:
        return REJECTED
    return f"The user rejected permission to use this specific tool call with the following feedback: {message}"


def _loop(earlier: turn.Earlier, state: TurnState, part: ToolPart) -> list[Ask]:
    """Ask when the model made the same call again and again, in a row, over all steps of the turn."""
    if part.tool == turn.STRUCTURED or state.step is None:  # its tries are counted
        return []
    parts = state.step.parts
    at = next((at for at, other in enumerate(parts) if other.id == part.id), 0)
    before = [*earlier.calls, *turn.calls_of(parts[:at])][-ALIKE_BEFORE:]
    if len(before) < ALIKE_BEFORE or any(call != (part.tool, part.state.input) for call in before):
        return []
    metadata = {"tool": part.tool, "input": part.state.input}
    return [Ask(permission="doom_loop", patterns=(part.tool,), always=(part.tool,), metadata=metadata)]
