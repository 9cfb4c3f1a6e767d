"""The turn machine: what happens next, decided from recorded state alone. No I/O, no clock, total.

`next_step` names the next thing to do; the runner does it and appends the outcome; then `next_step` is asked again.
After a crash the same function reads the same state: recovery is this loop, not a feature beside it. The functions
below it make the events of each outcome, so that what ends a step or a turn is always one append.

    queue ──TakeUp──► started ──BeginStep──► step ──CallModel──► finish known ──RunTools──► tools over ──FinishStep──┐
                         ▲                     ▲       │ ▲                                                          │
                         │ (restart)           │       └─┘ provider failed: retry, kept text goes on                │
                         │                     └───────────────────── the model wants tool results ─────────────────┤
                      EndTurn ◄── completed | failed | aborted ◄────────────────────────────────────────────────────┘

Rules
 1. Between two steps nothing is running. So an open reasoning part or a running tool that `next_step` sees was left by
    a server that died: `Settle` closes it first. An open text part stays open: the next try of the model continues it.
 2. A tool found running has an unknown outcome and is not run again, unless it is repeatable (only reads).
 3. A tool call runs only after the model finished its message, and after `running` is recorded.
 4. A turn that died with the server DEATHS_MAX times is failed; one that is suspended by a graceful stop is not counted.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from msgspec.structs import replace

from holdfast.core.events import (
    Event,
    MessageUpdated,
    PartUpdated,
    SessionErrored,
    SessionIdled,
    SessionStatusChanged,
    SessionUpdated,
    TurnEnded,
    TurnOutcome,
    TurnStarted,
)
from holdfast.core.ids import Prefix
from holdfast.core.messages import (
    APIError,
    AssistantMessage,
    AssistantTime,
    ErrorMessage,
    MessageAbortedError,
    MessageError,
    MessagePath,
    Part,
    PartTime,
    ReasoningPart,
    RetryPart,
    RetryTime,
    StepFinishPart,
    StepStartPart,
    TextPart,
    ToolError,
    ToolPart,
    ToolPending,
    ToolRunning,
    ToolTime,
    UnknownError,
    UnknownErrorData,
    UserMessage,
    WithParts,
    is_open,
)
from holdfast.core.reducer import Get
from holdfast.core.session import BUSY, IDLE, NO_TOKENS, CacheTokens, Session, StatusRetry, Tokens
from holdfast.core.state import SESSION, TURNS, Turns, TurnState

DEATHS_MAX = 3
TRIES_MAX = 5

OUTCOME_UNKNOWN = (
    "The server stopped while this tool was running, so its outcome is unknown. Check before doing it again."
)
CALL_INCOMPLETE = "The model was cut off before this call was complete, so it did not run."
ABORTED = "Tool execution aborted"

# --- decisions --------------------------------------------------------------------------------------------------


class Wait(NamedTuple):
    """Nothing to do until something is recorded."""


class TakeUp(NamedTuple):
    """Record that this runner acts for the turn now: a new one, or one that was suspended or died."""

    message_id: str


class Settle(NamedTuple):
    """Close what a dead server left open in the step."""

    parts: tuple[Part, ...]


class BeginStep(NamedTuple):
    """Add the assistant message of the next step."""


class CallModel(NamedTuple):
    """Ask the model for the (rest of the) step, not before a wall-clock time (ms) when a provider asked for a pause."""

    step: WithParts
    not_before: int | None


class RunTools(NamedTuple):
    """Run these calls, side by side."""

    parts: tuple[ToolPart, ...]


class FinishStep(NamedTuple):
    step: WithParts


class EndTurn(NamedTuple):
    outcome: TurnOutcome
    error: MessageError | None = None


Step = Wait | TakeUp | Settle | BeginStep | CallModel | RunTools | FinishStep | EndTurn


def next_step(state: TurnState, *, mine: bool, repeatable: frozenset[str]) -> Step:
    """What to do now. `mine`: this runner has taken the active turn up. `repeatable`: names of tools that only read."""
    active = state.turns.active
    if active is None:
        return TakeUp(state.turns.queue[0]) if state.turns.queue else Wait()
    if not mine:
        return TakeUp(active.message_id)
    if active.abort:
        return EndTurn("aborted", MessageAbortedError(data=ErrorMessage(message="Aborted")))
    if active.deaths >= DEATHS_MAX:
        return EndTurn(
            "failed", unknown_error(f"The server stopped {active.deaths} times in this turn, so it was given up.")
        )
    if state.user is None:
        return EndTurn("failed", unknown_error("The prompt of this turn was removed."))
    if not state.steps:
        return BeginStep()
    step = state.steps[-1]
    info = assistant(step)
    if info.time.completed is not None:
        return BeginStep() if wants_more(info) else EndTurn("completed")
    left = leftovers(step.parts, model_done=info.finish is not None, repeatable=repeatable)
    if left:
        return Settle(left)
    if info.finish is None:
        return CallModel(step, state.status.next if isinstance(state.status, StatusRetry) else None)
    calls = tuple(part for part in step.parts if isinstance(part, ToolPart) and is_open(part))
    return RunTools(calls) if calls else FinishStep(step)


def leftovers(parts: Iterable[Part], *, model_done: bool, repeatable: frozenset[str]) -> tuple[Part, ...]:
    """The parts that nobody works on and that cannot be continued (rules 1 and 2)."""
    return tuple(part for part in parts if _is_left_over(part, model_done, repeatable))


def _is_left_over(part: Part, model_done: bool, repeatable: frozenset[str]) -> bool:
    match part:
        case ReasoningPart():
            return is_open(part)
        case TextPart():
            return is_open(part) and model_done
        case ToolPart(tool=tool, state=ToolRunning()):
            return tool not in repeatable
        case ToolPart(state=ToolPending()):
            return not model_done
        case _:
            return False


def wants_more(info: AssistantMessage) -> bool:
    """The model stopped in order to see the results of its tools."""
    return info.error is None and info.finish == "tool-calls"


def tries(parts: Iterable[Part]) -> int:
    """How many tries of the model have failed in a step."""
    return sum(isinstance(part, RetryPart) for part in parts)


# --- outcomes ---------------------------------------------------------------------------------------------------


class Stamp(NamedTuple):
    """What a pure function cannot make: the time (ms) and new ids."""

    now: int
    new_id: Callable[[Prefix], str]


def take_up(state: TurnState, message_id: str) -> list[Event]:
    session_id = state.session.id
    events: list[Event] = [TurnStarted(session_id=session_id, message_id=message_id)]
    if not isinstance(state.status, StatusRetry):  # a pause that the provider asked for outlives the server
        events.append(SessionStatusChanged(session_id=session_id, status=BUSY))
    return events


def begin_step(state: TurnState, worktree: str, stamp: Stamp) -> list[Event]:
    """The empty assistant message of the next step, busy."""
    info = new_assistant(state, worktree, stamp)
    start = StepStartPart(id=stamp.new_id("prt"), session_id=info.session_id, message_id=info.id)
    return [
        SessionStatusChanged(session_id=info.session_id, status=BUSY),
        MessageUpdated(session_id=info.session_id, info=info),
        PartUpdated(session_id=info.session_id, part=start, time=stamp.now),
    ]


def new_assistant(state: TurnState, worktree: str, stamp: Stamp) -> AssistantMessage:
    assert state.user is not None
    user = state.user.info
    assert isinstance(user, UserMessage)
    return AssistantMessage(
        id=stamp.new_id("msg"),
        session_id=state.session.id,
        parent_id=user.id,
        mode=user.agent,
        agent=user.agent,
        path=MessagePath(cwd=state.session.directory, root=worktree),
        cost=0,
        tokens=NO_TOKENS,
        model_id=user.model.model_id,
        provider_id=user.model.provider_id,
        variant=user.model.variant,
        time=AssistantTime(created=stamp.now),
    )


def settle(part: Part, now: int, *, tool_error: str | None = None) -> Part:
    """The part, closed: model output keeps its text, a tool call that is not over becomes an error that says why."""
    match part:
        case TextPart(time=time) if is_open(part):
            return replace(part, time=PartTime(start=time.start if time else now, end=now))
        case ReasoningPart(time=time) if is_open(part):
            return replace(part, time=PartTime(start=time.start, end=now))
        case ToolPart(state=ToolPending(input=input)):
            error = tool_error or CALL_INCOMPLETE
            metadata = {"incomplete": True} if error == CALL_INCOMPLETE else None
            state = ToolError(input=input, error=error, metadata=metadata, time=ToolTime(start=now, end=now))
            return replace(part, state=state)
        case ToolPart(state=ToolRunning(input=input, metadata=metadata, time=time)):
            state = ToolError(
                input=input,
                error=tool_error or OUTCOME_UNKNOWN,
                metadata={**(metadata or {}), "interrupted": True},
                time=ToolTime(start=time.start, end=now),
            )
            return replace(part, state=state)
        case _:
            return part


def settled(parts: Iterable[Part], now: int, *, tool_error: str | None = None) -> list[Event]:
    """Updates that close every part that is open."""
    return [
        PartUpdated(session_id=part.session_id, part=settle(part, now, tool_error=tool_error), time=now)
        for part in parts
        if is_open(part)
    ]


def retry_later(step: WithParts, error: APIError, attempt: int, next_ms: int, stamp: Stamp) -> list[Event]:
    """A try of the model failed: it is marked, and the session says when the next one starts."""
    session_id, message_id = step.info.session_id, step.info.id
    mark = RetryPart(
        id=stamp.new_id("prt"),
        session_id=session_id,
        message_id=message_id,
        attempt=attempt,
        error=error,
        time=RetryTime(created=stamp.now),
    )
    status = StatusRetry(attempt=attempt, message=error.data.message, next=next_ms)
    return [
        PartUpdated(session_id=session_id, part=mark, time=stamp.now),
        SessionStatusChanged(session_id=session_id, status=status),
    ]


def model_done(info: AssistantMessage, finish: str, tokens: Tokens, cost: float) -> AssistantMessage:
    """The message once the model has said all of its step; its tools may still have to run."""
    return replace(info, finish=finish, tokens=tokens, cost=cost)


def finish_step(get: Get, info: AssistantMessage, stamp: Stamp) -> list[Event]:
    """Close a step whose tools are over, and the turn with it unless the model wants their results. `get` is the state
    in which the events will be recorded."""
    session_id = info.session_id
    finish = StepFinishPart(
        id=stamp.new_id("prt"),
        session_id=session_id,
        message_id=info.id,
        reason=info.finish or "unknown",
        cost=info.cost,
        tokens=info.tokens,
    )
    done = replace(info, time=replace(info.time, completed=stamp.now))
    events: list[Event] = [
        PartUpdated(session_id=session_id, part=finish, time=stamp.now),
        message_updated(info),
        message_updated(done),
        *_spent(get, info, stamp.now),
    ]
    if not wants_more(info):
        events += end_turn(get, session_id, info.parent_id, "completed")
    return events


def stop_turn(
    get: Get, state: TurnState, outcome: TurnOutcome, error: MessageError, worktree: str, stamp: Stamp
) -> list[Event]:
    """End the active turn with an error: what is open is closed, the last message carries the error."""
    active = state.turns.active
    assert active is not None
    session_id = state.session.id
    events: list[Event] = []
    step = state.steps[-1] if state.steps else None
    info: AssistantMessage | None = None
    if step is not None and assistant(step).time.completed is None:
        info = assistant(step)
        events += settled(step.parts, stamp.now, tool_error=ABORTED if outcome == "aborted" else None)
    elif state.user is not None:
        info = new_assistant(state, worktree, stamp)
    if info is not None:
        ended = replace(info, error=error, time=replace(info.time, completed=stamp.now))
        events.append(MessageUpdated(session_id=session_id, info=ended))
        events += _spent(get, info, stamp.now)
    events.append(SessionErrored(session_id=session_id, error=error))
    return events + end_turn(get, session_id, active.message_id, outcome)


def end_turn(get: Get, session_id: str, message_id: str, outcome: TurnOutcome) -> list[Event]:
    """The terminal event of a turn; the session is idle then, unless another prompt waits."""
    events: list[Event] = [TurnEnded(session_id=session_id, message_id=message_id, outcome=outcome)]
    turns = get(TURNS)
    if not (isinstance(turns, Turns) and turns.queue):
        events += [SessionStatusChanged(session_id=session_id, status=IDLE), SessionIdled(session_id=session_id)]
    return events


def _spent(get: Get, info: AssistantMessage, now: int) -> list[Event]:
    """The session's totals with this step's tokens and cost."""
    session = get(SESSION)
    if not isinstance(session, Session):
        return []
    total = replace(
        session,
        cost=session.cost + info.cost,
        tokens=_add(session.tokens, info.tokens),
        time=replace(session.time, updated=now),
    )
    return [SessionUpdated(session_id=session.id, info=total)]


def _add(a: Tokens, b: Tokens) -> Tokens:
    return Tokens(
        input=a.input + b.input,
        output=a.output + b.output,
        reasoning=a.reasoning + b.reasoning,
        cache=CacheTokens(read=a.cache.read + b.cache.read, write=a.cache.write + b.cache.write),
    )


def unknown_error(message: str, ref: str | None = None) -> UnknownError:
    return UnknownError(data=UnknownErrorData(message=message, ref=ref))


def assistant(step: WithParts) -> AssistantMessage:
    """The info of a step, which is always an assistant message."""
    assert isinstance(step.info, AssistantMessage)
    return step.info


def message_updated(info: AssistantMessage) -> Event:
    return MessageUpdated(session_id=info.session_id, info=info)
