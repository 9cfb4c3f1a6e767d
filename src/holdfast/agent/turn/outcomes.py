"""The events of each outcome of a turn's steps, so that what ends a step or a turn is always one append. Pure.

`get` is the state in which the events will be recorded (`core.store.Decide`): what they take from it is still true then.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from holdfast.agent.turn.decide import (
    MISSES_MAX,
    STRUCTURED,
    assistant,
    compaction_of,
    form_of,
    is_last_step,
    prompt,
)
from holdfast.agent.turn.earlier import Earlier, misses
from holdfast.core.events import (
    Event,
    MessageUpdated,
    PartUpdated,
    SessionCompacted,
    SessionDiffed,
    SessionErrored,
    SessionIdled,
    SessionStatusChanged,
    SessionUpdated,
    TurnEnded,
    TurnExtended,
    TurnOutcome,
    TurnStarted,
)
from holdfast.core.ids import Prefix
from holdfast.core.messages import (
    ASKING,
    APIError,
    AssistantMessage,
    AssistantTime,
    CompactionPart,
    MessageError,
    MessagePath,
    Part,
    PartTime,
    PatchPart,
    ReasoningPart,
    RetryPart,
    RetryTime,
    StepFinishPart,
    StepStartPart,
    StructuredOutputError,
    StructuredOutputErrorData,
    SubtaskPart,
    TextPart,
    ToolCompleted,
    ToolError,
    ToolPart,
    ToolPending,
    ToolRunning,
    ToolTime,
    UnknownError,
    UnknownErrorData,
    UserMessage,
    UserSummary,
    UserTime,
    WithParts,
    is_open,
)
from holdfast.core.reducer import Get
from holdfast.core.session import (
    BUSY,
    IDLE,
    NO_TOKENS,
    CacheTokens,
    FileDiff,
    Session,
    SessionSummary,
    StatusRetry,
    Tokens,
)
from holdfast.core.state import SESSION, TURNS, Key, Turns, TurnState

OUTCOME_UNKNOWN: Final = (
    "The server stopped while this tool was running, so its outcome is unknown. Check before doing it again."
)
CALL_INCOMPLETE: Final = "The model was cut off before this call was complete, so it did not run."
ABORTED: Final = "Tool execution aborted"
COMPACTION_AGENT: Final = "compaction"

GO_ON: Final = (
    "The conversation above is a summary of what happened so far. Go on with the work it describes; if nothing is left "
    "to do, say so. The request that you are working on was:"
)


class Stamp(NamedTuple):
    """What a pure function cannot make: the time (ms) and new ids."""

    now: int
    new_id: Callable[[Prefix], str]


class Changes(NamedTuple):
    """What a step's tools did to files: the trees before and after (`agent.snapshots`), the files (absolute paths), and the
    differences that the turn and the session have made so far. `part_id` is for the part that says so."""

    part_id: str
    before: str
    after: str
    files: tuple[str, ...]
    of_turn: tuple[FileDiff, ...]
    of_session: tuple[FileDiff, ...]


def take_up(state: TurnState, message_id: str) -> list[Event]:
    session_id = state.session.id
    events: list[Event] = [TurnStarted(session_id=session_id, message_id=message_id)]
    if not isinstance(state.status, StatusRetry):  # a pause that the provider asked for outlives the server
        events.append(SessionStatusChanged(session_id=session_id, status=BUSY))
    return events


def begin_step(state: TurnState, worktree: str, stamp: Stamp) -> list[Event]:
    """The assistant message of the next step, busy. Empty, unless its calls are written by the prompt itself: a subtask,
    or a command that the user runs."""
    info = new_assistant(state, worktree, stamp)
    calls = [] if state.step and assistant(state.step).parent_id == info.parent_id else _calls_of(state.user)
    start = StepStartPart(id=stamp.new_id("prt"), session_id=info.session_id, message_id=info.id)
    events: list[Event] = [
        SessionStatusChanged(session_id=info.session_id, status=BUSY),
        message_updated(info),
        PartUpdated(session_id=info.session_id, part=start, time=stamp.now),
    ]
    for tool, input in calls:
        id = stamp.new_id("prt")
        part = ToolPart(
            id=id,
            session_id=info.session_id,
            message_id=info.id,
            call_id=id.replace("prt_", "call_"),
            tool=tool,
            state=ToolPending(input=input, raw=""),
            metadata={BY_USER: True},
        )
        events.append(PartUpdated(session_id=info.session_id, part=part, time=stamp.now))
    if calls:  # after a command the turn is over; a subtask's result is for the model
        finish = "stop" if all(tool == "bash" for tool, _ in calls) else "tool-calls"
        events.append(message_updated(replace(info, finish=finish)))
    return events


BY_USER: Final = "byUser"
"""Key in a tool part's metadata: the user made this call, so nobody has to be asked."""
SHELL: Final = "shell"
"""Key in a prompt's text part's metadata: the command that the user runs."""


def _calls_of(user: WithParts | None) -> list[tuple[str, dict[str, Any]]]:
    calls: list[tuple[str, dict[str, Any]]] = []
    for part in user.parts if user else ():
        match part:
            case SubtaskPart():
                input = {"description": part.description, "prompt": part.prompt, "subagent_type": part.agent}
                calls.append(("task", input | ({"command": part.command} if part.command else {})))
            case TextPart(metadata=dict(metadata)) if isinstance(metadata.get(SHELL), str):
                calls.append(("bash", {"command": metadata[SHELL]}))
            case _:
                pass
    return calls


def new_assistant(state: TurnState, worktree: str, stamp: Stamp) -> AssistantMessage:
    user = prompt(state)
    compaction = compaction_of(state.user) is not None
    agent = COMPACTION_AGENT if compaction else user.agent
    return AssistantMessage(
        id=stamp.new_id("msg"),
        session_id=state.session.id,
        parent_id=user.id,
        mode=agent,
        agent=agent,
        path=MessagePath(cwd=state.session.directory, root=worktree),
        cost=0,
        tokens=NO_TOKENS,
        model_id=user.model.model_id,
        provider_id=user.model.provider_id,
        variant=user.model.variant,
        time=AssistantTime(created=stamp.now),
        summary=True if compaction else None,
    )


def compact(state: TurnState, stamp: Stamp, *, overflow: bool) -> list[Event]:
    """Extend the turn with a request to summarise: the conversation does not fit the model any more."""
    user = _own_prompt(state, stamp)
    part = CompactionPart(
        id=stamp.new_id("prt"),
        session_id=user.session_id,
        message_id=user.id,
        auto=True,
        overflow=overflow or None,
    )
    return _extend(state, user, part, stamp)


def go_on(state: TurnState, request: str, stamp: Stamp) -> list[Event]:
    """Extend the turn with a request to go on after the summary. `request` is what the user asked for."""
    user = _own_prompt(state, stamp)
    part = TextPart(
        id=stamp.new_id("prt"),
        session_id=user.session_id,
        message_id=user.id,
        text=f"{GO_ON}\n\n{request}",
        synthetic=True,
    )
    return _extend(state, user, part, stamp)


def _own_prompt(state: TurnState, stamp: Stamp) -> UserMessage:
    return replace(prompt(state), id=stamp.new_id("msg"), time=UserTime(created=stamp.now), summary=None)


def _extend(state: TurnState, user: UserMessage, part: Part, stamp: Stamp) -> list[Event]:
    active = state.turns.active
    assert active is not None
    return [
        MessageUpdated(session_id=user.session_id, info=user),
        PartUpdated(session_id=user.session_id, part=part, time=stamp.now),
        TurnExtended(session_id=user.session_id, message_id=active.message_id, prompt_id=user.id),
    ]


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
                metadata={
                    **{key: value for key, value in (metadata or {}).items() if key != ASKING},
                    "interrupted": True,
                },
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


def finish_step(
    get: Get,
    state: TurnState,
    info: AssistantMessage,
    stamp: Stamp,
    earlier: Earlier,
    changes: Changes | None = None,
) -> list[Event]:
    """Close a step whose tools are over, and the turn with it unless something is left to do in it. `earlier` counts only where
    the answer is to have a form."""
    active = state.turns.active
    assert active is not None
    info = _in_form(state, info, earlier)
    session_id = info.session_id
    finish = StepFinishPart(
        id=stamp.new_id("prt"),
        session_id=session_id,
        message_id=info.id,
        reason=info.finish or "unknown",
        snapshot=changes.after if changes else None,
        cost=info.cost,
        tokens=info.tokens,
    )
    done = replace(info, time=replace(info.time, completed=stamp.now))
    events: list[Event] = [
        PartUpdated(session_id=session_id, part=finish, time=stamp.now),
        message_updated(info),
        *(_patch(info, changes, stamp) if changes else ()),
        message_updated(done),
        *_spent(get, info, stamp.now, changes),
        *(_differences(get, session_id, active.message_id, changes) if changes else ()),
    ]
    if info.summary:
        events.append(SessionCompacted(session_id=session_id))
    if is_last_step(state, info):
        outcome = "completed" if info.error is None else "failed"
        events += end_turn(get, session_id, active.message_id, outcome)
    return events


def _in_form(state: TurnState, info: AssistantMessage, earlier: Earlier) -> AssistantMessage:
    """With the answer in the form that is asked for, if the step gave it; with the error, if it was the last that could."""
    form = form_of(state.user)
    if form is None or info.error is not None or state.step is None:
        return info
    for part in state.step.parts:
        if isinstance(part, ToolPart) and part.tool == STRUCTURED and isinstance(part.state, ToolCompleted):
            return replace(info, structured=part.state.input)
    allowed = form.retry_count if form.retry_count is not None else MISSES_MAX
    missed = misses(earlier, state.step, info)
    if missed <= allowed:
        return info
    data = StructuredOutputErrorData(
        message="The model gave no answer in the form that was asked for.", retries=allowed
    )
    return replace(info, error=StructuredOutputError(data=data))


def _patch(info: AssistantMessage, changes: Changes, stamp: Stamp) -> list[Event]:
    part = PatchPart(
        id=changes.part_id,
        session_id=info.session_id,
        message_id=info.id,
        hash=changes.before,
        files=changes.files,
    )
    return [PartUpdated(session_id=info.session_id, part=part, time=stamp.now)]


def _differences(get: Get, session_id: str, prompt_id: str, changes: Changes) -> list[Event]:
    """The prompt says what its turn did to files, the session what all of them did."""
    events: list[Event] = [SessionDiffed(session_id=session_id, diff=changes.of_session)]
    user = get(Key("message", prompt_id))
    if isinstance(user, UserMessage):
        summary = replace(user.summary or UserSummary(diffs=()), diffs=changes.of_turn)
        events.append(MessageUpdated(session_id=session_id, info=replace(user, summary=summary)))
    return events


def stop_turn(
    get: Get, state: TurnState, outcome: TurnOutcome, error: MessageError, worktree: str, stamp: Stamp
) -> list[Event]:
    """End the active turn with an error: what is open is closed, the last message carries the error."""
    active = state.turns.active
    assert active is not None
    session_id = state.session.id
    events: list[Event] = []
    step = state.step
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


def give_up(get: Get, state: TurnState, error: MessageError, now: int) -> list[Event]:
    """End the turn that is active, or next, with nothing but what stands in the log: no new message, no totals."""
    session_id = state.session.id
    active = state.turns.active
    if active is None and not state.turns.queue:
        return []
    message_id = active.message_id if active is not None else state.turns.queue[0]
    events: list[Event] = [] if active is not None else [TurnStarted(session_id=session_id, message_id=message_id)]
    step = state.step if active is not None else None
    if step is not None and assistant(step).time.completed is None:
        info = assistant(step)
        ended = replace(info, error=error, time=replace(info.time, completed=now))
        events += [*settled(step.parts, now), message_updated(ended)]
    events.append(SessionErrored(session_id=session_id, error=error))
    return events + end_turn(get, session_id, message_id, "failed")


def end_turn(get: Get, session_id: str, message_id: str, outcome: TurnOutcome) -> list[Event]:
    """The terminal event of a turn; the session is idle then, unless another prompt waits."""
    events: list[Event] = [TurnEnded(session_id=session_id, message_id=message_id, outcome=outcome)]
    turns = get(TURNS)
    if not (isinstance(turns, Turns) and set(turns.queue) - {message_id}):
        events += [SessionStatusChanged(session_id=session_id, status=IDLE), SessionIdled(session_id=session_id)]
    return events


def _spent(get: Get, info: AssistantMessage, now: int, changes: Changes | None = None) -> list[Event]:
    """The session's totals with this step's tokens, cost and file changes."""
    session = get(SESSION)
    if not isinstance(session, Session):
        return []
    total = replace(
        session,
        cost=session.cost + info.cost,
        tokens=_add(session.tokens, info.tokens),
        summary=_summary(changes.of_session) if changes else session.summary,
        time=replace(session.time, updated=now),
    )
    return [SessionUpdated(session_id=session.id, info=total)]


def _summary(diffs: tuple[FileDiff, ...]) -> SessionSummary:
    return SessionSummary(
        additions=sum(diff.additions for diff in diffs),
        deletions=sum(diff.deletions for diff in diffs),
        files=len(diffs),
    )


def _add(a: Tokens, b: Tokens) -> Tokens:
    return Tokens(
        input=a.input + b.input,
        output=a.output + b.output,
        reasoning=a.reasoning + b.reasoning,
        cache=CacheTokens(read=a.cache.read + b.cache.read, write=a.cache.write + b.cache.write),
    )


def unknown_error(message: str, ref: str | None = None) -> UnknownError:
    return UnknownError(data=UnknownErrorData(message=message, ref=ref))


def message_updated(info: AssistantMessage) -> Event:
    return MessageUpdated(session_id=info.session_id, info=info)
