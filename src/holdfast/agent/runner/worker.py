"""The runner of one session: asks the turn machine what to do, does it, appends the outcome, until nothing is left.

Everything it knows, it read from the store; everything it did, it wrote there. It can be killed between any two awaits.
An abort comes in through the log: the watcher sees it recorded and stops what is going on; the turn machine, asked
again, ends the turn.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, assert_never

import structlog
from msgspec.structs import replace

from holdfast.agent import turn
from holdfast.agent.providers.base import ProviderError, ToolSpec
from holdfast.agent.providers.conversation import build_request
from holdfast.agent.runner.environment import Environment
from holdfast.agent.runner.output import ModelOutput
from holdfast.agent.runner.recorder import Recorder
from holdfast.agent.tools import ToolBox, ToolContext, ToolFailure, validate
from holdfast.agent.turn import Stamp
from holdfast.core.clock import Clock
from holdfast.core.codec import decode, type_of
from holdfast.core.errors import HoldfastError, LeaseLost, NotFound, StorageError
from holdfast.core.events import Event, PartUpdated, SessionStatusChanged, TurnAbortRequested, TurnSuspended
from holdfast.core.ids import Prefix
from holdfast.core.messages import (
    MessageError,
    Part,
    ToolCompleted,
    ToolError,
    ToolPart,
    ToolRunning,
    ToolTime,
    ToolTimeStart,
    UserMessage,
    WithParts,
)
from holdfast.core.reducer import Get
from holdfast.core.session import BUSY
from holdfast.core.state import TurnState
from holdfast.core.store import Lease, Recorded, SessionScope, SessionStore

LEASE_MS = 30_000
BACKOFF_FIRST_MS = 2_000
BACKOFF_MAX_MS = 30_000

SERVER_STOPPED = (
    "The server was stopped while this tool was running; it was ended. Check its effects before doing it again."
)

log = structlog.get_logger()


class Worker:
    """`poked`: somebody recorded something to do since the state was last read."""

    def __init__(
        self,
        session_id: str,
        *,
        store: SessionStore,
        clock: Clock,
        new_id: Callable[[Prefix], str],
        jitter: Callable[[], float],
        environment: Environment,
        owner: str,
    ) -> None:
        self._session_id = session_id
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter
        self._environment = environment
        self._owner = owner
        self._lease: Lease | None = None
        self._mine: str | None = None
        self._interrupt = asyncio.Event()
        self.poked = False

    # --- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until nothing is left to do. Cancel it to stop in good order: the turn is suspended then."""
        watched = self._store.subscribe(SessionScope(self._session_id))
        background = [asyncio.create_task(self._watch(watched)), asyncio.create_task(self._hold_lease())]
        try:
            await self._claim()
            while await self._one_step():
                pass
        except asyncio.CancelledError:
            await self._suspend()
            raise
        except HoldfastError as end:
            if not _is_end(end):
                raise
            log.info("turn.left", session=self._session_id, reason=str(end))
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            if self._lease is not None:
                with contextlib.suppress(HoldfastError):
                    await self._store.release(self._lease)

    async def _one_step(self) -> bool:
        """Do the next thing; False when there is nothing left to do."""
        self.poked = False
        self._interrupt.clear()
        state = await self._store.turn_state(self._session_id)
        try:
            await self._do(state)
        except Exception as error:
            if _is_end(error) or state.turns.active is None:
                raise
            ref = self._new_id("evt").replace("evt_", "err_")
            log.exception("turn.failed", session=self._session_id, ref=ref)
            await self._stop_turn("failed", turn.unknown_error(f"Internal error: {type(error).__name__}", ref))
        return state.turns.active is not None or bool(state.turns.queue) or self.poked

    async def _do(self, state: TurnState) -> None:
        active = state.turns.active
        mine = active is not None and active.message_id == self._mine
        step = turn.next_step(state, mine=mine, repeatable=self._repeatable(state))
        match step:
            case turn.Wait():
                pass
            case turn.TakeUp(message_id):
                await self._append(turn.take_up(state, message_id))
                self._mine = message_id
            case turn.BeginStep():
                await self._append(turn.begin_step(state, self._environment.worktree(state.session), self._stamp()))
            case turn.Settle(parts):
                await self._settle(state, parts)
            case turn.CallModel(model_step, not_before):
                if await self._pause(not_before):
                    await self._interruptible(self._call_model(state, model_step))
            case turn.RunTools(parts):
                await self._interruptible(self._run_tools(state, parts))
            case turn.FinishStep(done):
                info, stamp = turn.assistant(done), self._fixed_stamp()
                await self._append(lambda get: turn.finish_step(get, info, stamp))
            case turn.EndTurn(outcome, error):
                if error is None:
                    assert active is not None
                    ended = active.message_id
                    await self._append(lambda get: turn.end_turn(get, self._session_id, ended, outcome))
                else:
                    await self._stop_turn(outcome, error)
            case _:
                assert_never(step)

    # --- the model ---------------------------------------------------------------------------------------------

    async def _pause(self, not_before: int | None) -> bool:
        """Wait until the provider may be asked again; False if the wait was interrupted."""
        if not_before is None:
            return True
        await self._interruptible(self._clock.sleep_until(not_before))
        if self._interrupt.is_set():
            return False
        await self._append([SessionStatusChanged(session_id=self._session_id, status=BUSY)])
        return True

    async def _call_model(self, state: TurnState, step: WithParts) -> None:
        output = ModelOutput(step)
        recorder = Recorder(self._append)
        try:
            try:
                await self._stream(state, output, recorder)
            finally:
                await recorder.drain()  # also when aborted or cut: what was streamed is kept
        except ProviderError as error:
            await self._provider_failed(error)
            return
        stamp = self._fixed_stamp()
        said, info = output.close(stamp)
        if turn.wants_more(info):
            await self._append([*said, turn.message_updated(info)])
        else:
            await self._append(lambda get: [*said, *turn.finish_step(get, info, stamp)])

    async def _stream(self, state: TurnState, output: ModelOutput, recorder: Recorder) -> None:
        user = _user(state)
        try:
            model = await self._environment.model(state.session, user)
        except HoldfastError as error:
            raise ProviderError(error.message) from error
        tools = self._environment.tools(state.session, user)
        request = build_request(
            await self._store.history(self._session_id),
            prompt_id=user.id,
            model_id=model.model_id,
            system=self._environment.system(state.session, user),
            tools=tuple(ToolSpec(tool.id, tool.description, tool.parameters) for tool in tools.values()),
            output_tokens_max=model.output_tokens_max,
        )
        async with aclosing(model.provider.stream(request)) as chunks:
            async for batch in chunks:
                await recorder.add(output.feed(batch, self._stamp()))
        if output.finished is None:
            raise ProviderError("The model's stream ended before its answer did.", retryable=True)

    async def _provider_failed(self, error: ProviderError) -> None:
        """Keep what was streamed, and try again later or give up."""
        state = await self._store.turn_state(self._session_id)
        step = state.steps[-1]
        attempt = turn.tries(step.parts) + 1
        log.info(
            "model.failed", session=self._session_id, attempt=attempt, error=error.message, status=error.status_code
        )
        if not error.is_retryable or attempt > turn.TRIES_MAX:
            await self._stop_turn("failed", error.as_message_error())
            return
        backoff = min(BACKOFF_FIRST_MS * 2 ** (attempt - 1), BACKOFF_MAX_MS) * (1 + self._jitter() / 4)
        pause = error.retry_after_ms if error.retry_after_ms is not None else int(backoff)
        stamp = self._stamp()
        left = turn.leftovers(step.parts, model_done=False, repeatable=frozenset())
        await self._append(
            [
                *turn.settled(left, stamp.now),
                *turn.retry_later(step, error.as_api_error(), attempt, stamp.now + pause, stamp),
            ]
        )

    # --- tools -------------------------------------------------------------------------------------------------

    async def _run_tools(self, state: TurnState, parts: Sequence[ToolPart]) -> None:
        tools = self._environment.tools(state.session, _user(state))
        calls = [asyncio.create_task(self._run_tool(state, part, tools)) for part in parts]
        try:
            await asyncio.gather(*calls)
        finally:  # one was refused by the store, or all are cancelled: none goes on alone
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _run_tool(self, state: TurnState, part: ToolPart, tools: ToolBox) -> None:
        start = self._clock.now_ms()
        running = ToolRunning(input=part.state.input, time=ToolTimeStart(start=start))
        await self._update_tool(part, running)
        last: dict[str, Any] = {}

        async def progress(title: str | None, metadata: dict[str, Any]) -> None:
            last.update(metadata)
            await self._update_tool(part, replace(running, title=title, metadata=metadata))

        outcome: ToolCompleted | ToolError
        try:
            tool = tools.find(part.tool)
            validate(tool, part.state.input)
            context = ToolContext(
                session_id=part.session_id,
                message_id=part.message_id,
                part_id=part.id,
                call_id=part.call_id,
                directory=Path(state.session.directory),
                worktree=Path(self._environment.worktree(state.session)),
                output_directory=self._environment.output_directory(state.session),
                clock=self._clock,
                progress=progress,
            )
            result = await tool.run(part.state.input, context)
            outcome = ToolCompleted(
                input=part.state.input,
                output=result.output,
                title=result.title,
                metadata=result.metadata,
                time=ToolTime(start=start, end=self._clock.now_ms()),
                attachments=result.attachments or None,
            )
        except ToolFailure as failure:
            time = ToolTime(start=start, end=self._clock.now_ms())
            metadata = failure.metadata if failure.metadata is not None else last or None
            outcome = ToolError(input=part.state.input, error=failure.message, metadata=metadata, time=time)
        except HoldfastError:
            raise
        except Exception as error:
            log.exception("tool.failed", session=self._session_id, tool=part.tool)
            time = ToolTime(start=start, end=self._clock.now_ms())
            message = f"The tool failed inside Holdfast ({type(error).__name__}). This is not the fault of the call."
            outcome = ToolError(input=part.state.input, error=message, metadata=last or None, time=time)
        await self._update_tool(part, outcome)

    async def _update_tool(self, part: ToolPart, state: ToolRunning | ToolCompleted | ToolError) -> None:
        updated = replace(part, state=state)
        await self._append([PartUpdated(session_id=part.session_id, part=updated, time=self._clock.now_ms())])

    # --- endings -----------------------------------------------------------------------------------------------

    async def _stop_turn(self, outcome: turn.TurnOutcome, error: MessageError) -> None:
        state = await self._store.turn_state(self._session_id)
        worktree = state.session.directory
        try:  # a turn must end even if its project's configuration is what is broken
            worktree = self._environment.worktree(state.session)
            if state.user is not None and state.steps:
                await self._clean_up(state, state.steps[-1].parts)
        except Exception:
            log.exception("turn.clean_up_failed", session=self._session_id)
        stamp = self._fixed_stamp()
        await self._append(lambda get: turn.stop_turn(get, state, outcome, error, worktree, stamp))

    async def _settle(self, state: TurnState, parts: Sequence[Part]) -> None:
        await self._clean_up(state, parts)
        await self._append(turn.settled(parts, self._clock.now_ms()))

    async def _clean_up(self, state: TurnState, parts: Sequence[Part]) -> None:
        """End what running calls left alive. Quick, and harmless when nothing is."""
        tools = self._environment.tools(state.session, _user(state))
        for part in parts:
            if isinstance(part, ToolPart) and isinstance(part.state, ToolRunning) and part.tool in tools:
                await tools[part.tool].clean_up(part)

    async def _suspend(self) -> None:
        """The server stops: say so in the log, so that this does not count as a death of the turn."""
        with contextlib.suppress(HoldfastError):
            state = await self._store.turn_state(self._session_id)
            active = state.turns.active
            if active is None or active.message_id != self._mine or not active.running:
                return
            now = self._clock.now_ms()
            running = [
                part
                for part in (state.steps[-1].parts if state.steps else ())
                if isinstance(part, ToolPart)
                and isinstance(part.state, ToolRunning)
                and part.tool not in self._repeatable(state)
            ]
            events = turn.settled(running, now, tool_error=SERVER_STOPPED)
            await self._append([*events, TurnSuspended(session_id=self._session_id, message_id=active.message_id)])

    # --- plumbing ----------------------------------------------------------------------------------------------

    async def _append(self, events: Sequence[Event] | Callable[[Get], Sequence[Event]]) -> None:
        await self._store.append(self._session_id, events, lease=self._lease)

    def _stamp(self) -> Stamp:
        return Stamp(self._clock.now_ms(), self._new_id)

    def _fixed_stamp(self) -> Stamp:
        """A stamp for a `Decide`: it runs elsewhere, perhaps twice, so its ids are made here. One id of a kind."""
        ids: dict[Prefix, str] = {"msg": self._new_id("msg"), "prt": self._new_id("prt")}
        return Stamp(self._clock.now_ms(), ids.__getitem__)

    def _repeatable(self, state: TurnState) -> frozenset[str]:
        if state.user is None:
            return frozenset()
        tools = self._environment.tools(state.session, _user(state))
        return frozenset(name for name, tool in tools.items() if tool.repeatable)

    async def _interruptible(self, work: Coroutine[Any, Any, None] | Awaitable[None]) -> None:
        """Do it, unless an abort comes in: then it is cancelled, and done when it has stopped."""
        task = asyncio.ensure_future(work)
        interrupt = asyncio.ensure_future(self._interrupt.wait())
        try:
            await asyncio.wait({task, interrupt}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            else:
                task.result()
        finally:
            interrupt.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, records: AsyncIterator[Sequence[Recorded]]) -> None:
        async for batch in records:
            for record in batch:
                kind = type_of(record.tag)
                if kind == "session.deleted":
                    self._interrupt.set()
                elif kind == "turn.abort_requested":
                    _, event = decode(record.tag, record.data)
                    if isinstance(event, TurnAbortRequested) and event.message_id == self._mine:
                        self._interrupt.set()

    async def _claim(self) -> None:
        while True:
            now = self._clock.now_ms()
            self._lease = await self._store.claim(self._session_id, self._owner, now_ms=now, ttl_ms=LEASE_MS)
            if self._lease is not None:
                return
            await self._clock.sleep_until(now + LEASE_MS // 3)

    async def _hold_lease(self) -> None:
        while True:
            now = self._clock.now_ms()
            await self._clock.sleep_until(now + LEASE_MS // 3)
            if self._lease is not None:
                with contextlib.suppress(HoldfastError):
                    now = self._clock.now_ms()
                    await self._store.claim(self._session_id, self._owner, now_ms=now, ttl_ms=LEASE_MS)


def _user(state: TurnState) -> UserMessage:
    assert state.user is not None
    assert isinstance(state.user.info, UserMessage)
    return state.user.info


def _is_end(error: BaseException) -> bool:
    """Another runner has the turn, the session was deleted, or the store failed (it tells the server, which stops)."""
    gone = isinstance(error, NotFound) and error.kind == "Session"
    return gone or isinstance(error, LeaseLost | StorageError)
