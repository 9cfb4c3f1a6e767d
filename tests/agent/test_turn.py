"""What happens next, for each state a session can be found in."""

from itertools import count

import pytest
from msgspec.structs import replace

from holdfast.agent import turn
from holdfast.core import events as e
from holdfast.core.fold import Fold
from holdfast.core.messages import (
    ASKING,
    APIError,
    APIErrorData,
    AssistantMessage,
    MessageAbortedError,
    Part,
    TextPart,
    ToolError,
    ToolPart,
    ToolRunning,
    WithParts,
)
from holdfast.core.session import BUSY, IDLE, CacheTokens, StatusRetry, Tokens
from holdfast.core.state import TurnState
from tests.core import samples as s

READS = frozenset({"read"})
TOKENS = Tokens(input=10, output=5, reasoning=0, cache=CacheTokens(read=0, write=0))


def stamp() -> turn.Stamp:
    numbers = count(1)
    return turn.Stamp(s.NOW + 100, lambda prefix: f"{prefix}_new{next(numbers)}")


def fold(*events: e.Event) -> Fold:
    return Fold([s.created(), s.message(s.user()), s.part(s.prompt_text("prt_u1", "hi")), s.requested(), *events])


def decide(state: TurnState, *, mine: bool = True) -> turn.Step:
    return turn.next_step(state, mine=mine, repeatable=READS)


def newest(state: Fold) -> WithParts:
    step = state.turn_state().step
    assert step is not None
    return step


def in_step(*parts: Part, finish: str | None = None) -> Fold:
    """A turn that this runner took up, in its first step."""
    step = s.assistant(finish=finish) if finish else s.assistant()
    return fold(s.started(), s.message(s.assistant()), *(s.part(part) for part in parts), s.message(step))


def test_without_a_prompt_there_is_nothing_to_do():
    assert turn.Wait() == decide(Fold([s.created()]).turn_state())


def test_a_queued_prompt_is_taken_up():
    assert turn.TakeUp("msg_u1") == decide(fold().turn_state(), mine=False)


@pytest.mark.parametrize(
    "found", [(s.started(),), (s.started(), e.TurnSuspended(session_id=s.SESSION, message_id="msg_u1"))]
)
def test_a_turn_found_after_a_restart_is_taken_up_again_first(found: tuple[e.Event, ...]):
    assert turn.TakeUp("msg_u1") == decide(fold(*found).turn_state(), mine=False)


def test_a_turn_begins_with_an_assistant_message_then_the_model_is_asked():
    state = fold(s.started())
    assert turn.BeginStep() == decide(state.turn_state())
    for event in turn.begin_step(state.turn_state(), "/home/dev/project", stamp()):
        assert state.apply(event)
    step = decide(state.turn_state())
    assert isinstance(step, turn.CallModel)
    assert step.not_before is None
    assert state.status == BUSY


def test_text_that_a_dead_server_left_open_stays_open_for_the_next_try():
    state = in_step(s.text("prt_1", "The quick bro"))
    step = decide(state.turn_state())
    assert isinstance(step, turn.CallModel)
    assert s.text("prt_1", "The quick bro") in step.step.parts


def test_half_written_calls_that_a_dead_server_left_are_closed_first():
    left = s.tool("prt_t", "pending")
    assert turn.Settle((left,)) == decide(in_step(s.reasoning("prt_r", "hmm"), left).turn_state())


def test_reasoning_that_a_dead_server_left_is_for_the_model_to_go_on_with():
    step = decide(in_step(s.reasoning("prt_r", "hmm")).turn_state())
    assert isinstance(step, turn.CallModel)


def test_a_tool_found_running_gets_an_unknown_outcome_and_does_not_run_again():
    running = s.tool("prt_t", "running")
    state = in_step(running, finish="tool-calls")
    assert turn.Settle((running,)) == decide(state.turn_state())
    for event in turn.settled([running], s.NOW):
        state.apply(event)
    assert isinstance(decide(state.turn_state()), turn.FinishStep)
    part = newest(state).parts[0]
    assert isinstance(part, ToolPart)
    assert isinstance(part.state, ToolError)
    assert "unknown" in part.state.error


def test_a_read_only_tool_found_running_is_run_again():
    running = s.tool("prt_t", "running", name="read")
    assert turn.RunTools((running,)) == decide(in_step(running, finish="tool-calls").turn_state())


def test_a_call_that_waits_for_permission_did_not_begin_whatever_clients_are_shown():
    running = s.tool("prt_t", "running")
    assert isinstance(running.state, ToolRunning)
    call = replace(running, state=replace(running.state, metadata={ASKING: True}))
    assert turn.RunTools((call,)) == decide(in_step(call, finish="tool-calls").turn_state())


def test_calls_run_only_after_the_model_finished_its_message():
    call = s.tool("prt_t", "pending")
    assert isinstance(decide(in_step(call).turn_state()), turn.Settle)
    assert turn.RunTools((call,)) == decide(in_step(call, finish="tool-calls").turn_state())


def test_after_its_tools_a_step_is_finished_and_the_next_one_begins():
    state = in_step(s.tool("prt_t", "completed"), finish="tool-calls")
    step = decide(state.turn_state())
    assert isinstance(step, turn.FinishStep)
    for event in turn.finish_step(state.get, state.turn_state(), turn.assistant(step.step), stamp(), turn.NOTHING):
        state.apply(event)
    assert turn.BeginStep() == decide(state.turn_state())


def test_the_events_that_end_the_last_step_end_the_turn_and_leave_the_session_idle():
    state = in_step(s.text("prt_1", "done", end=s.NOW))
    info = turn.model_done(s.assistant(), "stop", TOKENS, 0.5)
    events = turn.finish_step(state.get, state.turn_state(), info, stamp(), turn.NOTHING)
    assert all(state.apply(event) for event in events)
    assert turn.Wait() == decide(state.turn_state())
    assert state.status == IDLE
    assert (state.session.cost, state.session.tokens.input) == (0.5, 10)
    assert [event.type for event in events[-3:]] == ["turn.ended", "session.status", "session.idle"]


def test_a_session_with_another_prompt_in_the_queue_does_not_become_idle_in_between():
    state = in_step(s.text("prt_1", "done", end=s.NOW))
    state.apply(s.message(s.user("msg_u2")))
    state.apply(s.requested("msg_u2"))
    events = turn.finish_step(
        state.get, state.turn_state(), turn.model_done(s.assistant(), "stop", TOKENS, 0), stamp(), turn.NOTHING
    )
    assert "session.idle" not in [event.type for event in events]
    for event in events:
        state.apply(event)
    assert turn.TakeUp("msg_u2") == decide(state.turn_state())


def test_a_pause_that_the_provider_asked_for_is_kept_over_a_restart():
    state = in_step(s.text("prt_1", "half"))
    error = APIError(data=APIErrorData(message="slow down", is_retryable=True))
    step = newest(state)
    for event in turn.retry_later(step, error, 1, s.NOW + 5000, stamp()):
        state.apply(event)
    for event in turn.take_up(state.turn_state(), "msg_u1"):
        state.apply(event)
    assert state.status == StatusRetry(attempt=1, message="slow down", next=s.NOW + 5000)
    decided = decide(state.turn_state())
    assert isinstance(decided, turn.CallModel)
    assert decided.not_before == s.NOW + 5000
    assert turn.tries(decided.step.parts) == 1


def test_an_abort_ends_the_turn_closes_everything_and_keeps_the_text():
    state = in_step(s.text("prt_1", "half a sen"), s.tool("prt_t", "running"))
    state.apply(e.TurnAbortRequested(session_id=s.SESSION, message_id="msg_u1"))
    step = decide(state.turn_state())
    assert isinstance(step, turn.EndTurn)
    assert step.outcome == "aborted"
    assert isinstance(step.error, MessageAbortedError)
    events = turn.stop_turn(state.get, state.turn_state(), step.outcome, step.error, "/", stamp())
    assert all(state.apply(event) for event in events)
    _, answer = state.messages()
    assert isinstance(answer.info, AssistantMessage)
    assert answer.info.error == step.error
    assert answer.info.time.completed is not None
    text, tool = answer.parts
    assert isinstance(text, TextPart)
    assert text.text == "half a sen"
    assert isinstance(tool, ToolPart)
    assert isinstance(tool.state, ToolError)
    assert turn.Wait() == decide(state.turn_state())


def test_a_turn_that_died_three_times_is_given_up_with_a_reason():
    state = fold(*[s.started()] * 4)
    step = decide(state.turn_state())
    assert isinstance(step, turn.EndTurn)
    assert step.outcome == "failed"
    assert step.error is not None
    for event in turn.stop_turn(state.get, state.turn_state(), step.outcome, step.error, "/", stamp()):
        assert state.apply(event)
    answer = state.messages()[-1].info
    assert isinstance(answer, AssistantMessage)
    assert answer.error == step.error


def test_a_turn_whose_prompt_was_removed_fails_instead_of_hanging():
    state = replace(fold(s.started()).turn_state(), user=None)
    step = decide(state)
    assert isinstance(step, turn.EndTurn)
    assert step.outcome == "failed"
