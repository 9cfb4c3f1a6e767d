"""What `holdfast run` shows of a turn, whatever way its events come."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.cli.turn_view import Ended, Notice, Queued, Retrying, Text, TextClosed, ToolEnded, ToolStarted, TurnView
from holdfast.core import events as e
from holdfast.core.messages import ErrorMessage, MessageAbortedError, ToolError, ToolTime
from holdfast.core.session import BUSY, StatusRetry
from tests.core import samples as s

PROMPT = "msg_u1"


def show(*events: e.Event) -> list[Notice]:
    view = TurnView(PROMPT)
    return [notice for event in events for notice in view.apply(event)]


def ended(outcome: e.TurnOutcome, message_id: str = PROMPT) -> e.Event:
    return e.TurnEnded(session_id=s.SESSION, message_id=message_id, outcome=outcome)


def text_of(notices: list[Notice], *, reasoning: bool = False) -> str:
    return "".join(notice.text for notice in notices if isinstance(notice, Text) and notice.reasoning == reasoning)


def test_text_is_shown_as_it_streams_and_not_again_when_it_closes() -> None:
    assert show(
        s.started(),
        s.message(s.assistant()),
        s.part(s.text("prt_1")),
        s.delta("prt_1", "Hel"),
        s.delta("prt_1", "lo"),
        s.part(s.text("prt_1", "Hello", end=s.NOW)),
        ended("completed"),
    ) == [Text("Hel", False), Text("lo", False), TextClosed(False), Ended("completed", None)]


def test_reasoning_is_told_apart_from_text() -> None:
    notices = show(
        s.message(s.assistant()),
        s.part(s.reasoning("prt_1")),
        s.delta("prt_1", "hm"),
        s.part(s.reasoning("prt_1", "hm", end=s.NOW)),
        s.part(s.text("prt_2")),
        s.delta("prt_2", "so"),
    )

    assert [Text("hm", True), TextClosed(True), Text("so", False)] == notices


@given(st.text(min_size=1, max_size=30), st.data())
def test_each_character_is_shown_once_whatever_deltas_are_missing(whole: str, data: st.DataObject) -> None:
    """Any suffix of the deltas may have been compacted away: the update that closes the part brings the rest."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(whole)), max_size=5)))
    kept = data.draw(st.integers(0, len(cuts)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)][:kept]

    notices = show(
        s.message(s.assistant()),
        s.part(s.text("prt_1")),
        *(s.delta("prt_1", piece) for piece in pieces),
        s.part(s.text("prt_1", whole, end=s.NOW)),
    )

    assert whole == text_of(notices)


def test_an_update_of_an_open_part_that_repeats_shown_text_shows_only_what_is_new() -> None:
    notices = show(
        s.message(s.assistant()), s.part(s.text("prt_1")), s.delta("prt_1", "one "), s.part(s.text("prt_1", "one two"))
    )

    assert text_of(notices) == "one two"


def test_other_turns_of_the_session_are_not_shown() -> None:
    notices = show(
        s.started("msg_other"),
        s.message(s.assistant("msg_a0", parent="msg_other")),
        s.part(s.text("prt_0", "not mine", message="msg_a0", end=s.NOW)),
        ended("completed", "msg_other"),
        s.part(s.prompt_text("prt_u", "the prompt itself")),
    )

    assert notices == []


def test_a_prompt_behind_another_turn_is_said_to_be_queued() -> None:
    busy = e.SessionStatusChanged(session_id=s.SESSION, status=BUSY)

    assert [Queued()] == show(busy, s.requested())
    assert show(s.requested()) == []


def test_the_steps_of_a_turn_are_one_answer() -> None:
    first, second = s.assistant("msg_a1"), s.assistant("msg_a2")
    notices = show(
        s.message(first),
        s.part(s.text("prt_1", "Looking. ", end=s.NOW)),
        s.message(second),
        s.part(s.text("prt_2", "Found.", message="msg_a2", end=s.NOW)),
    )

    assert text_of(notices) == "Looking. Found."


def test_a_turn_that_was_extended_after_a_summary_is_one_answer() -> None:
    notices = show(
        s.started(),
        e.TurnExtended(session_id=s.SESSION, message_id=PROMPT, prompt_id="msg_go_on"),
        s.message(s.assistant("msg_a2", "msg_go_on")),
        s.part(replace(s.text("prt_1", "Going on."), message_id="msg_a2")),
    )

    assert text_of(notices) == "Going on."


def test_a_tool_call_is_shown_when_it_starts_and_when_it_ends() -> None:
    notices = show(
        s.message(s.assistant()),
        s.part(s.tool("prt_1", "running")),
        s.part(s.tool("prt_1", "running")),
        s.part(s.tool("prt_1", "completed")),
    )

    assert [type(notice) for notice in notices] == [ToolStarted, ToolEnded]


def test_a_failed_tool_says_why() -> None:
    call = s.tool("prt_1", "running")
    state = ToolError(input=call.state.input, error="no such file", time=ToolTime(start=s.NOW, end=s.NOW))
    notices = show(s.message(s.assistant()), s.part(replace(call, state=state)))

    assert [ToolEnded("bash", "ls", "no such file", failed=True)] == notices


def test_a_pause_that_the_provider_asked_for_is_shown() -> None:
    status = StatusRetry(attempt=2, message="Too many requests", next=s.NOW)
    event = e.SessionStatusChanged(session_id=s.SESSION, status=status)

    assert [Retrying(2, "Too many requests", s.NOW)] == show(s.started(), event)
    assert show(event) == []


def test_the_error_of_the_last_message_is_the_reason_of_the_end() -> None:
    error = MessageAbortedError(data=ErrorMessage(message="Aborted"))

    notices = show(s.started(), s.message(s.assistant(error=error)), ended("aborted"))

    assert [Ended("aborted", "Aborted")] == notices


def test_a_prompt_that_is_removed_or_loses_its_session_has_ended() -> None:
    removed = e.MessageRemoved(session_id=s.SESSION, message_id=PROMPT)
    deleted = e.SessionDeleted(session_id=s.SESSION, info=s.session())

    assert [Ended("aborted", "The prompt was removed.")] == show(removed, deleted)
    assert [Ended("aborted", "The session was deleted.")] == show(deleted)
