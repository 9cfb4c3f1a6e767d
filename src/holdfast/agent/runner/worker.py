"""The runner of one session: asks the turn machine what to do, does it, appends the outcome, until nothing is left.

Everything it knows, it read from the store; everything it did, it wrote there. It can be killed between any two awaits.
An abort comes in through the log: the watcher sees it recorded and stops what is going on; the turn machine, asked
again, ends the turn.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from typing import Any, assert_never

import structlog

from holdfast.agent import turn
from holdfast.agent.providers.base import ProviderError, ToolChoice, ToolSpec
from holdfast.agent.providers.conversation import FORM_WANTED, LAST_STEP, build_request
from holdfast.agent.runner.calls import ToolCalls
from holdfast.agent.runner.changes import changes_of, note_before
from holdfast.agent.runner.earlier import EarlierSteps
from holdfast.agent.runner.environment import Environment, with_settings
from holdfast.agent.runner.history import since_summary, tokens_in_use
from holdfast.agent.runner.host import Subagents, abort_children
from holdfast.agent.runner.output import ModelOutput
from holdfast.agent.runner.pruning import pruned
from holdfast.agent.runner.recorder import Recorder
from holdfast.agent.runner.session_log import SessionLog
from holdfast.agent.runner.titles import is_unnamed, name_session
from holdfast.agent.tools.invalid import INVALID
from holdfast.core.codec import decode, type_of
from holdfast.core.errors import HoldfastError, Invalid, LeaseLost, NotFound, StorageError
from holdfast.core.events import (
    Event,
    MessageRemoved,
    PartUpdated,
    SessionStatusChanged,
    TurnAbortRequested,
    TurnSuspended,
)
from holdfast.core.messages import (
    MessageError,
    Part,
    StepStartPart,
    TextPart,
    ToolPart,
    ToolPending,
    WithParts,
    has_begun,
)
from holdfast.core.session import BUSY
from holdfast.core.state import TurnState
from holdfast.core.store import Recorded, SessionScope

LEASE_MS = 30_000
BACKOFF_FIRST_MS = 2_000
BACKOFF_MAX_MS = 30_000
AT_ONCE_MS = 50

SERVER_STOPPED = (
    "The server was stopped while this tool was running; it was ended. Check its effects before doing it again."
)

_LEAVES_FILES_ALONE = frozenset(
    {"read", "glob", "grep", "list", "todoread", "todowrite", "question", "skill", "webfetch", "invalid"}
)

log = structlog.get_logger()


class Worker:
    """`poked`: somebody recorded something to do since the state was last read. `beside` starts work that may outlive the
    worker and that nobody waits for."""

    def __init__(
        self,
        record: SessionLog,
        *,
        jitter: Callable[[], float],
        environment: Environment,
        subagents: Subagents,
        owner: str,
        beside: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._log = record
        self._store = record.store
        self._session_id = record.session_id
        self._jitter = jitter
        self._environment = environment
        self._subagents = subagents
        self._owner = owner
        self._beside = beside
        self._earlier = EarlierSteps(record)
        self._calls = ToolCalls(record, environment, subagents)
        self._mine: str | None = None
        self._interrupt = asyncio.Event()
        self._deaf: BaseException | None = None
        self.poked = False

    # --- the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until nothing is left to do. Cancel it to stop in good order: the turn is suspended then."""
        watched = self._store.subscribe(SessionScope(self._session_id))
        background = [asyncio.create_task(self._watch(watched)), asyncio.create_task(self._hold_lease())]
        background[0].add_done_callback(self._watch_ended)
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
            if self._log.lease is not None:
                with contextlib.suppress(HoldfastError):
                    await self._store.release(self._log.lease)

    async def give_up(self) -> None:
        """Workers of this session died of a defect, again and again: end its turn with as little as possible, so that the next
        prompt is answered."""
        ref = self._log.new_id("evt").replace("evt_", "err_")
        log.error("turn.given_up", session=self._session_id, ref=ref)
        background = asyncio.create_task(self._hold_lease())
        try:
            await self._claim()
            state = await self._log.state()
            error = turn.unknown_error("The turn was given up after a defect of Holdfast.", ref)
            await self._log.append(lambda get: turn.give_up(get, state, error, self._log.now_ms()))
            self.poked = True  # for what waits in the queue
        except HoldfastError as end:
            if not _is_end(end):
                raise
        finally:
            background.cancel()
            await asyncio.gather(background, return_exceptions=True)
            if self._log.lease is not None:
                with contextlib.suppress(HoldfastError):
                    await self._store.release(self._log.lease)

    async def _one_step(self) -> bool:
        """Do the next thing; False when there is nothing left to do."""
        self.poked = False
        self._interrupt.clear()
        if self._deaf is not None:
            raise self._deaf
        state = await self._log.state()
        try:
            await self._do(state)
        except Exception as error:
            if _is_end(error) or state.turns.active is None:
                raise
            ref = self._log.new_id("evt").replace("evt_", "err_")
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
                await self._take_up(state, message_id)
                if _has_running(state):  # whether such a call may be run again can only be said by who knows the tools
                    await self._interruptible(self._prepare(state))
            case turn.BeginStep():
                await self._begin_step(state)
            case turn.Settle(parts):
                await self._settle(state, parts)
            case turn.CallModel(model_step, not_before):
                if await self._pause(not_before):
                    await self._interruptible(self._call_model(state, model_step))
            case turn.RunTools(parts):
                await self._interruptible(self._run_tools(state, parts))
            case turn.FinishStep(done):
                info, stamp = turn.assistant(done), self._log.fixed_stamp()
                earlier = await self._earlier.read(state)
                changes = await changes_of(self._log, self._environment, state, done, self._earlier)
                await self._log.append(lambda get: turn.finish_step(get, state, info, stamp, earlier, changes))
            case turn.GoOn():
                assert active is not None
                request = _words(await self._store.message(self._session_id, active.message_id))
                await self._log.append(turn.go_on(state, request, self._log.stamp()))
            case turn.EndTurn(outcome, error):
                if error is None:
                    assert active is not None
                    ended = active.message_id
                    await self._log.append(lambda get: turn.end_turn(get, self._session_id, ended, outcome))
                else:
                    await self._stop_turn(outcome, error)
            case _:
                assert_never(step)

    async def _take_up(self, state: TurnState, message_id: str) -> None:
        old = await pruned(self._log) if self._environment.prunes(state.session) else []
        await self._log.append([*turn.take_up(state, message_id), *old])
        self._mine = message_id
        if is_unnamed(state.session) and state.user is not None:
            self._beside(name_session(self._log, state, self._environment))

    async def _prepare(self, state: TurnState) -> None:
        with contextlib.suppress(HoldfastError):  # it is said when the calls are run
            await self._environment.prepare(state.session)

    async def _begin_step(self, state: TurnState) -> None:
        if turn.compaction_of(state.user) is None and await self._is_full(state):
            await self._log.append(turn.compact(state, self._log.stamp(), overflow=False))
            return
        worktree = self._environment.worktree(state.session)
        await self._log.append(turn.begin_step(state, worktree, self._log.stamp()))

    # --- the model ---------------------------------------------------------------------------------------------

    async def _is_full(self, state: TurnState) -> bool:
        """Whether the conversation has to be summarised before the model is asked again."""
        with contextlib.suppress(HoldfastError):  # an unknown model fails when it is asked
            model = await self._environment.model(state.session, turn.prompt(state))
            if model.input_tokens_max is not None:
                return await tokens_in_use(self._store, self._session_id) > model.input_tokens_max
        return False

    async def _pause(self, not_before: int | None) -> bool:
        """Wait until the provider may be asked again; False if the wait was interrupted."""
        if not_before is None:
            return True
        await self._interruptible(self._log.clock.sleep_until(not_before))
        if self._interrupt.is_set():
            return False
        await self._log.append([SessionStatusChanged(session_id=self._session_id, status=BUSY)])
        return True

    async def _call_model(self, state: TurnState, step: WithParts) -> None:
        output = ModelOutput(step)
        recorder = Recorder(self._log.append)
        try:
            try:
                await self._stream(state, step, output, recorder)
            finally:
                await recorder.drain()  # also when aborted or cut: what was streamed is kept
        except ProviderError as error:
            await self._provider_failed(error)
            return
        stamp = self._log.fixed_stamp()
        earlier = await self._earlier.read(state)
        allowed = frozenset({turn.STRUCTURED}) if self._is_last(state, earlier) else None
        said, info = output.close(stamp, allowed=allowed)
        if turn.wants_more(info):
            await self._log.append([*said, turn.message_updated(info)])
        else:
            await self._log.append(lambda get: [*said, *turn.finish_step(get, state, info, stamp, earlier)])

    async def _stream(self, state: TurnState, step: WithParts, output: ModelOutput, recorder: Recorder) -> None:
        user = turn.prompt(state)
        try:
            model = await self._environment.model(state.session, user)
            await self._environment.prepare(state.session)
        except HoldfastError as error:
            raise ProviderError(error.message) from error
        summarises = turn.compaction_of(state.user) is not None
        earlier = await self._earlier.read(state)
        is_last = self._is_last(state, earlier)
        tools = () if summarises else self._environment.tools(state.session, user).values()
        missed = turn.misses(earlier, step, turn.assistant(step))
        choice, closing = _choice(state, missed=missed > 0, is_last=is_last)
        if is_last and turn.form_of(state.user) is not None:
            tools = [tool for tool in tools if tool.id == turn.STRUCTURED]
        request = build_request(
            await since_summary(self._store, self._session_id, user.id),
            prompt_id=user.id,
            waiting=state.turns.queue,
            model_id=model.model_id,
            system=self._environment.system(state.session, user, turn.assistant(step).agent),
            tools=tuple(ToolSpec(tool.id, tool.description, tool.parameters) for tool in tools if tool.id != INVALID),
            tool_choice=choice,
            closing=closing,
            output_tokens_max=model.output_tokens_max,
        )
        if not summarises:
            request = with_settings(request, model.settings)
        tree = self._environment.snapshots(state.session)
        async with aclosing(model.provider.stream(request)) as chunks:
            async for batch in chunks:
                said = output.feed(batch, self._log.stamp())
                if tree is not None and any(map(_begins_change, said)):
                    self._beside(tree.prepare())
                    tree = None
                await recorder.add(said)
        if output.finished is None:
            raise ProviderError("The model's stream ended before its answer did.", retryable=True)

    def _is_last(self, state: TurnState, earlier: turn.Earlier) -> bool:
        """Whether the agent may take no further step in this turn."""
        steps_max = self._environment.steps_max(state.session, turn.prompt(state))
        return steps_max is not None and earlier.steps + 1 >= steps_max and turn.compaction_of(state.user) is None

    async def _provider_failed(self, error: ProviderError) -> None:
        """Keep what was streamed, and summarise, try again later, or give up."""
        state = await self._log.state()
        step = state.step
        assert step is not None
        attempt = turn.tries(step.parts) + 1
        log.info(
            "model.failed", session=self._session_id, attempt=attempt, error=error.message, status=error.status_code
        )
        if error.failure == "context_overflow" and await self._can_summarise(state, step):
            removed = MessageRemoved(session_id=self._session_id, message_id=step.info.id)
            await self._log.append([removed, *turn.compact(state, self._log.stamp(), overflow=True)])
            return
        if not error.is_retryable or attempt > turn.TRIES_MAX:
            await self._stop_turn("failed", error.as_message_error())
            return
        backoff = min(BACKOFF_FIRST_MS * 2 ** (attempt - 1), BACKOFF_MAX_MS) * (1 + self._jitter() / 4)
        asked = error.retry_after_ms
        # Who says "at once" again and again would have used up all tries in no time.
        pause = int(backoff) if asked is None or (attempt > 1 and asked < AT_ONCE_MS) else asked
        stamp = self._log.stamp()
        left = turn.leftovers(step.parts, model_done=False, repeatable=frozenset())
        await self._log.append(
            [
                *turn.settled(left, stamp.now),
                *turn.retry_later(step, error.as_api_error(), attempt, stamp.now + pause, stamp),
            ]
        )

    async def _can_summarise(self, state: TurnState, step: WithParts) -> bool:
        """Nothing was said yet in this step, and it is neither a summary itself nor the first step after one."""
        if turn.compaction_of(state.user) is not None or not all(
            isinstance(part, StepStartPart) for part in step.parts
        ):
            return False
        return not (await self._earlier.read(state)).summarised

    # --- tools -------------------------------------------------------------------------------------------------

    async def _run_tools(self, state: TurnState, parts: Sequence[ToolPart]) -> None:
        try:
            await self._environment.prepare(state.session)
        except Invalid as error:  # what its calls may do is not known, so none of them runs
            await self._stop_turn("failed", turn.unknown_error(error.message))
            return
        if any(part.tool not in _LEAVES_FILES_ALONE for part in parts):
            await note_before(self._log, self._environment, state)
        await self._calls.run(state, await self._earlier.read(state), parts)

    # --- endings -----------------------------------------------------------------------------------------------

    async def _stop_turn(self, outcome: turn.TurnOutcome, error: MessageError) -> None:
        state = await self._log.state()
        worktree = state.session.directory
        try:  # a turn must end even if its project's configuration is what is broken
            worktree = self._environment.worktree(state.session)
            if state.user is not None and state.step is not None:
                await self._clean_up(state, state.step.parts)
                await abort_children(self._log, state, self._subagents)
        except Exception:
            log.exception("turn.clean_up_failed", session=self._session_id)
        stamp = self._log.fixed_stamp()
        await self._log.append(lambda get: turn.stop_turn(get, state, outcome, error, worktree, stamp))

    async def _settle(self, state: TurnState, parts: Sequence[Part]) -> None:
        await self._clean_up(state, parts)
        await self._log.append(turn.settled(parts, self._log.now_ms()))

    async def _clean_up(self, state: TurnState, parts: Sequence[Part]) -> None:
        """End what running calls left alive. Quick, and harmless when nothing is."""
        tools = self._environment.tools(state.session, turn.prompt(state))
        for part in parts:
            if isinstance(part, ToolPart) and has_begun(part) and part.tool in tools:
                await tools[part.tool].clean_up(part)

    async def _suspend(self) -> None:
        """The server stops: say so in the log, so that this does not count as a death of the turn."""
        with contextlib.suppress(HoldfastError):
            state = await self._log.state()
            active = state.turns.active
            if active is None or active.message_id != self._mine or not active.running:
                return
            now = self._log.now_ms()
            repeatable = self._repeatable(state)
            running = [
                part
                for part in (state.step.parts if state.step else ())
                if isinstance(part, ToolPart) and has_begun(part) and part.tool not in repeatable
            ]
            events: list[Event] = turn.settled(running, now, tool_error=SERVER_STOPPED)
            await self._log.append([*events, TurnSuspended(session_id=self._session_id, message_id=active.message_id)])

    # --- plumbing ----------------------------------------------------------------------------------------------

    def _repeatable(self, state: TurnState) -> frozenset[str]:
        if state.user is None:
            return frozenset()
        tools = self._environment.tools(state.session, turn.prompt(state))
        return frozenset(name for name, tool in tools.items() if tool.repeatable)

    async def _interruptible(self, work: Coroutine[Any, Any, None] | Awaitable[None]) -> None:
        """Do it, unless an abort comes in: then it is cancelled, and done when it has stopped."""
        task = asyncio.ensure_future(work)
        interrupt = asyncio.ensure_future(self._interrupt.wait())
        try:
            await asyncio.wait({task, interrupt}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait({task})  # not the task itself: a cancellation of ours would be taken for its own
                if task.cancelled():
                    return
            task.result()
        finally:
            interrupt.cancel()
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, records: AsyncIterator[Sequence[Recorded]]) -> None:
        async for batch in records:
            for record in batch:
                self._log.saw(record)
                kind = type_of(record.tag)
                if kind == "session.deleted":
                    self._interrupt.set()
                elif kind == TurnAbortRequested.type:
                    _, event = decode(record.tag, record.data)
                    if isinstance(event, TurnAbortRequested) and event.message_id == self._mine:
                        self._interrupt.set()

    def _watch_ended(self, watch: asyncio.Task[None]) -> None:
        """Without it neither replies nor aborts come in any more. Whoever begins again hears of them."""
        if not watch.cancelled() and (error := watch.exception()) is not None:
            self._deaf = error
            self._interrupt.set()

    async def _claim(self) -> None:
        while True:
            now = self._log.now_ms()
            self._log.lease = await self._store.claim(self._session_id, self._owner, now_ms=now, ttl_ms=LEASE_MS)
            if self._log.lease is not None:
                return
            await self._log.clock.sleep_until(now + LEASE_MS // 3)

    async def _hold_lease(self) -> None:
        while True:
            await self._log.clock.sleep_until(self._log.now_ms() + LEASE_MS // 3)
            if self._log.lease is not None:
                with contextlib.suppress(HoldfastError):
                    now = self._log.now_ms()
                    await self._store.claim(self._session_id, self._owner, now_ms=now, ttl_ms=LEASE_MS)


def _choice(state: TurnState, *, missed: bool, is_last: bool) -> tuple[ToolChoice, str | None]:
    """Whether the model is to call a tool in this step, and what it is told last."""
    if turn.form_of(state.user) is not None:
        return "required", FORM_WANTED if is_last or missed else None
    return ("none", LAST_STEP) if is_last else ("auto", None)


def _words(message: WithParts) -> str:
    return "\n\n".join(part.text for part in message.parts if isinstance(part, TextPart) and not part.ignored)


def _has_running(state: TurnState) -> bool:
    return any(has_begun(part) for part in (state.step.parts if state.step else ()))


def _begins_change(event: Event) -> bool:
    """The LLM begins to write a call that may change files."""
    match event:
        case PartUpdated(part=ToolPart(tool=tool, state=ToolPending())):
            return tool not in _LEAVES_FILES_ALONE
        case _:
            return False


def _is_end(error: BaseException) -> bool:
    """Another runner has the turn, the session was deleted, or the store failed (it tells the server, which stops)."""
    gone = isinstance(error, NotFound) and error.kind == "Session"
    return gone or isinstance(error, LeaseLost | StorageError)
