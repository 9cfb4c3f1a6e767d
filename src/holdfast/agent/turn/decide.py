"""What happens next, decided from recorded state alone. No I/O, no clock, total.

`next_step` names the next thing to do; the runner does it and appends the outcome; then `next_step` is asked again.
After a crash the same function reads the same state: recovery is this loop, not a feature beside it.

    queue ──TakeUp──► started ──BeginStep──► step ──CallModel──► finish known ──RunTools──► tools over ──FinishStep──┐
                         ▲         ▲           │ ▲                                                                  │
                         │(restart)│           └─┘ provider failed: retry, kept text goes on                        │
                         │         └── GoOn ◄── summarised; BeginStep ◄── the model wants the results of its tools ─┤
                      EndTurn ◄── completed | failed | aborted ◄────────────────────────────────────────────────────┘

Rules
 1. Between two steps nothing is running. So a running tool that `next_step` sees was left by
    a server that died: `Settle` closes it first. An open text part stays open: the next try of the model continues it.
 2. A tool found running has an unknown outcome and is not run again, unless it is repeatable.
 3. A tool call runs only after the model finished its message, and after `running` is recorded.
 4. A turn that died with the server DEATHS_MAX times is failed; one that is suspended by a graceful stop is not counted.
 5. A turn may be extended: by a request to summarise the conversation, and by one to go on after that. Its steps answer
    the newest of its prompts.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from holdfast.core.events import TurnOutcome
from holdfast.core.messages import (
    AssistantMessage,
    CompactionPart,
    ErrorMessage,
    MessageAbortedError,
    MessageError,
    OutputFormatJsonSchema,
    Part,
    ReasoningPart,
    RetryPart,
    TextPart,
    ToolPart,
    UnknownError,
    UnknownErrorData,
    UserMessage,
    WithParts,
    has_begun,
    is_open,
)
from holdfast.core.session import StatusRetry
from holdfast.core.state import TurnState

DEATHS_MAX: Final = 3
TRIES_MAX: Final = 5
STRUCTURED: Final = "StructuredOutput"
"""The tool by which the model gives an answer in the form that the prompt asks for."""
MISSES_MAX: Final = 2
"""So many answers may lack that form, unless the prompt says otherwise."""


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
    """Run these calls, side by side, each once the user allows it."""

    parts: tuple[ToolPart, ...]


class FinishStep(NamedTuple):
    step: WithParts


class GoOn(NamedTuple):
    """The conversation was summarised in mid-turn: extend the turn with a request to go on."""


class EndTurn(NamedTuple):
    outcome: TurnOutcome
    error: MessageError | None = None


Step = Wait | TakeUp | Settle | BeginStep | CallModel | RunTools | FinishStep | GoOn | EndTurn


def next_step(state: TurnState, *, mine: bool, repeatable: frozenset[str]) -> Step:
    """What to do now. `mine`: this runner has taken the active turn up. `repeatable`: names of tools that only read, or
    that find what their first run began."""
    active = state.turns.active
    if active is None:
        return TakeUp(state.turns.queue[0]) if state.turns.queue else Wait()
    if not mine:
        return TakeUp(active.message_id)
    if active.abort:
        return EndTurn("aborted", MessageAbortedError(data=ErrorMessage(message="Aborted")))
    if active.deaths >= DEATHS_MAX:
        return EndTurn("failed", _error(f"The server stopped {active.deaths} times in this turn, so it was given up."))
    if state.user is None:
        return EndTurn("failed", _error("The prompt of this turn was removed."))
    step = state.step
    if step is None or assistant(step).parent_id != state.user.info.id:
        return BeginStep()
    info = assistant(step)
    if info.time.completed is not None:
        if is_last_step(state, info):
            return EndTurn("completed")
        return BeginStep() if compaction_of(state.user) is None else GoOn()
    left = leftovers(step.parts, model_done=info.finish is not None, repeatable=repeatable)
    if left:
        return Settle(left)
    if info.finish is None:
        return CallModel(step, state.status.next if isinstance(state.status, StatusRetry) else None)
    calls = tuple(part for part in step.parts if isinstance(part, ToolPart) and is_open(part))
    return RunTools(calls) if calls else FinishStep(step)


def is_last_step(state: TurnState, info: AssistantMessage) -> bool:
    """Whether the turn is over when this step is."""
    if info.error is not None:
        return True
    compaction = compaction_of(state.user)
    if compaction is not None:
        return not compaction.auto
    rejected = any(entry.reply == "reject" and not entry.message for entry in state.permissions)
    dismissed = any(entry.rejected for entry in state.questions)
    if form_of(state.user) is not None:
        return rejected or dismissed or info.structured is not None
    return rejected or dismissed or not wants_more(info)


def wants_more(info: AssistantMessage) -> bool:
    """The model stopped in order to see the results of its tools."""
    return info.error is None and info.finish == "tool-calls"


def compaction_of(user: WithParts | None) -> CompactionPart | None:
    """The part that makes a prompt a request to summarise the conversation."""
    return next((part for part in user.parts if isinstance(part, CompactionPart)), None) if user else None


def form_of(user: WithParts | None) -> OutputFormatJsonSchema | None:
    """The form that the prompt asks the answer to have."""
    info = user.info if user is not None else None
    wanted = info.format if isinstance(info, UserMessage) else None
    return wanted if isinstance(wanted, OutputFormatJsonSchema) and compaction_of(user) is None else None


def leftovers(parts: Iterable[Part], *, model_done: bool, repeatable: frozenset[str]) -> tuple[Part, ...]:
    """The parts that nobody works on and that cannot be continued (rules 1 and 2)."""
    return tuple(part for part in parts if _is_left_over(part, model_done, repeatable))


def _is_left_over(part: Part, model_done: bool, repeatable: frozenset[str]) -> bool:
    match part:
        case TextPart() | ReasoningPart():
            return is_open(part) and model_done
        case ToolPart(tool=tool) if has_begun(part):
            return tool not in repeatable
        case ToolPart():
            return is_open(part) and not model_done
        case _:
            return False


def tries(parts: Iterable[Part]) -> int:
    """How many tries of the model have failed in a step."""
    return sum(isinstance(part, RetryPart) for part in parts)


def assistant(step: WithParts) -> AssistantMessage:
    """The info of a step, which is always an assistant message."""
    assert isinstance(step.info, AssistantMessage)
    return step.info


def prompt(state: TurnState) -> UserMessage:
    """The info of the prompt that the turn answers now. The turn has one."""
    assert state.user is not None
    assert isinstance(state.user.info, UserMessage)
    return state.user.info


def _error(message: str) -> UnknownError:
    return UnknownError(data=UnknownErrorData(message=message))
