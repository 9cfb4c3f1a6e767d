"""What each event means, as the story of one session."""

import pytest

from holdfast.core import events as e
from holdfast.core.errors import Conflict, NotFound
from holdfast.core.fold import Fold
from holdfast.core.messages import TextPart, ToolPart
from holdfast.core.session import BUSY, IDLE, Todo
from holdfast.core.state import ActiveTurn, Key
from tests.core import samples as s


def story(*events: e.Event) -> Fold:
    return Fold([s.created(), *events])


def asked() -> Fold:
    return story(s.message(s.user()), s.part(s.prompt_text("prt_u1", "hi")), s.requested())


def answering() -> Fold:
    fold = asked()
    fold.apply(s.started())
    fold.apply(s.message(s.assistant()))
    return fold


def test_a_new_session_is_idle_and_empty():
    fold = story()
    assert fold.status == IDLE
    assert fold.messages() == ()
    assert fold.turns.queue == ()


def test_nothing_can_be_recorded_for_a_session_that_does_not_exist():
    with pytest.raises(NotFound, match="Session not found: ses_1"):
        Fold().apply(s.message(s.user()))


def test_a_session_is_created_once():
    assert not story().apply(s.created())


def test_a_deleted_session_leaves_nothing_and_nothing_can_follow():
    fold = answering()
    fold.apply(e.SessionDeleted(session_id=s.SESSION, info=s.session()))
    assert fold.entities == {}
    with pytest.raises(NotFound):
        fold.apply(e.SessionUpdated(session_id=s.SESSION, info=s.session()))


def test_messages_keep_the_order_in_which_they_were_added_whatever_their_ids_say():
    fold = story(s.message(s.user("msg_z")), s.message(s.user("msg_a")), s.message(s.user("msg_z")))
    assert [m.info.id for m in fold.messages()] == ["msg_z", "msg_a"]


def test_text_grows_by_deltas_while_its_part_is_open():
    fold = answering()
    fold.apply(s.part(s.text("prt_1")))
    for piece in ("Hel", "lo ", "wörld"):
        assert fold.apply(s.delta("prt_1", piece))
    (part,) = fold.messages()[1].parts
    assert part == s.text("prt_1", "Hello wörld")


def test_a_delta_for_a_closed_part_comes_too_late():
    fold = answering()
    fold.apply(s.part(s.text("prt_1", "all of it", end=s.NOW)))
    assert not fold.apply(s.delta("prt_1", "more"))
    assert isinstance(part := fold.get(Key("part", "prt_1")), TextPart)
    assert part.text == "all of it"


def test_a_delta_for_a_part_nobody_knows_is_refused():
    with pytest.raises(NotFound, match="Part not found: prt_1"):
        answering().apply(s.delta("prt_1", "x"))


def test_a_part_of_a_message_nobody_knows_is_refused():
    with pytest.raises(NotFound, match="Message not found: msg_a1"):
        story().apply(s.part(s.text("prt_1")))


def test_a_part_cannot_move_to_another_message():
    fold = answering()
    fold.apply(s.part(s.text("prt_1")))
    with pytest.raises(Conflict):
        fold.apply(s.part(s.text("prt_1", message="msg_u1")))


def test_a_closed_part_cannot_be_opened_again_but_can_be_edited():
    fold = answering()
    fold.apply(s.part(s.text("prt_1", "done", end=s.NOW)))
    assert not fold.apply(s.part(s.text("prt_1", "again")))
    assert fold.apply(s.part(s.text("prt_1", "edited", end=s.NOW)))


def test_a_tool_that_completed_never_runs_again():
    fold = answering()
    for status in ("pending", "running", "completed"):
        assert fold.apply(s.part(s.tool("prt_t", status)))
    assert not fold.apply(s.part(s.tool("prt_t", "running")))
    assert isinstance(part := fold.get(Key("part", "prt_t")), ToolPart)
    assert part.state == s.tool("prt_t", "completed").state


def test_a_terminal_assistant_message_is_final():
    fold = answering()
    fold.apply(s.message(s.completed(s.assistant())))
    assert not fold.apply(s.message(s.assistant(finish="length")))


def test_a_removed_message_goes_with_its_parts_and_is_not_answered():
    fold = asked()
    assert fold.apply(e.MessageRemoved(session_id=s.SESSION, message_id="msg_u1"))
    assert fold.messages() == ()
    assert fold.get(Key("part", "prt_u1")) is None
    assert fold.turns.queue == ()
    assert not fold.apply(e.MessageRemoved(session_id=s.SESSION, message_id="msg_u1"))


def test_a_removed_part_is_gone_once():
    fold = asked()
    removed = e.PartRemoved(session_id=s.SESSION, message_id="msg_u1", part_id="prt_u1")
    assert fold.apply(removed)
    assert not fold.apply(removed)


def test_todos_and_status_are_replaced_as_a_whole():
    fold = story(
        e.TodoUpdated(session_id=s.SESSION, todos=(Todo(content="a", status="pending", priority="low"),)),
        e.TodoUpdated(session_id=s.SESSION, todos=()),
        e.SessionStatusChanged(session_id=s.SESSION, status=BUSY),
    )
    assert fold.todos.todos == ()
    assert fold.status == BUSY


# --- turns ------------------------------------------------------------------------------------------------------


def test_a_turn_is_requested_started_and_ended_each_once():
    fold = asked()
    assert not fold.apply(s.requested())
    assert fold.apply(s.started())
    assert fold.turns.active == ActiveTurn(message_id="msg_u1", running=True)
    assert fold.apply(s.ended())
    assert not fold.apply(s.ended())
    assert fold.turns.active is None


def test_prompts_are_answered_in_the_order_in_which_they_came():
    fold = asked()
    fold.apply(s.message(s.user("msg_u2")))
    fold.apply(s.requested("msg_u2"))
    assert not fold.apply(s.started("msg_u2"))
    fold.apply(s.started("msg_u1"))
    fold.apply(s.ended("msg_u1"))
    assert fold.apply(s.started("msg_u2"))


def test_a_turn_for_a_message_nobody_knows_is_refused():
    with pytest.raises(NotFound):
        story().apply(s.requested("msg_none"))


def test_a_turn_taken_up_again_without_being_suspended_has_died_once_more():
    fold = asked()
    for _ in range(3):
        fold.apply(s.started())
    assert fold.turns.active is not None
    assert fold.turns.active.deaths == 2


def test_a_turn_suspended_by_a_graceful_stop_has_not_died():
    fold = asked()
    for _ in range(3):
        fold.apply(s.started())
        fold.apply(e.TurnSuspended(session_id=s.SESSION, message_id="msg_u1"))
    assert fold.turns.active == ActiveTurn(message_id="msg_u1", running=False)


def test_a_turn_may_be_extended_by_prompts_that_no_user_wrote():
    fold = answering()
    fold.apply(s.message(s.user("msg_c")))
    extended = e.TurnExtended(session_id=s.SESSION, message_id="msg_u1", prompt_id="msg_c")
    assert fold.apply(extended)
    assert not fold.apply(extended)
    fold.apply(s.message(s.assistant("msg_a2", "msg_c")))
    state = fold.turn_state()
    assert state.user is not None
    assert state.user.info.id == "msg_c"
    assert state.step is not None
    assert state.step.info.id == "msg_a2"


def test_an_abort_reaches_the_active_turn_and_leaves_the_queue():
    fold = asked()
    fold.apply(s.message(s.user("msg_u2")))
    fold.apply(s.requested("msg_u2"))
    fold.apply(s.started())
    abort = e.TurnAbortRequested(session_id=s.SESSION, message_id="msg_u1")
    assert fold.apply(abort)
    assert not fold.apply(abort)
    assert fold.turns.active is not None
    assert fold.turns.active.abort
    assert fold.turns.queue == ("msg_u2",)


def test_an_abort_that_comes_before_the_turn_started_is_not_lost():
    fold = asked()
    assert fold.apply(e.TurnAbortRequested(session_id=s.SESSION, message_id="msg_u1"))
    assert fold.turns.active == ActiveTurn(message_id="msg_u1", running=False, abort=True)


def test_an_abort_that_comes_after_the_turn_ended_does_nothing():
    fold = asked()
    fold.apply(s.started())
    fold.apply(s.ended())
    assert not fold.apply(e.TurnAbortRequested(session_id=s.SESSION, message_id="msg_u1"))


# --- requests ---------------------------------------------------------------------------------------------------


def permission(id: str = "per_1") -> e.PermissionAsked:
    return e.PermissionAsked(
        session_id=s.SESSION, id=id, permission="bash", patterns=("ls",), metadata={}, always=("ls *",)
    )


def test_a_permission_is_asked_once_and_answered_once():
    fold = answering()
    assert fold.apply(permission())
    assert not fold.apply(permission())
    assert fold.apply(e.PermissionReplied(session_id=s.SESSION, request_id="per_1", reply="once"))
    assert not fold.apply(e.PermissionReplied(session_id=s.SESSION, request_id="per_1", reply="reject"))
    assert [entry.reply for entry in fold.permissions()] == ["once"]


def test_a_question_is_answered_once_or_rejected_once():
    fold = answering()
    fold.apply(e.QuestionAsked(session_id=s.SESSION, id="que_1", questions=()))
    assert fold.apply(e.QuestionReplied(session_id=s.SESSION, request_id="que_1", answers=(("A",),)))
    assert not fold.apply(e.QuestionRejected(session_id=s.SESSION, request_id="que_1"))
    assert [entry.answers for entry in fold.questions()] == [(("A",),)]


def test_an_answer_to_nothing_is_refused():
    with pytest.raises(NotFound):
        answering().apply(e.PermissionReplied(session_id=s.SESSION, request_id="per_x", reply="once"))
    with pytest.raises(NotFound):
        answering().apply(e.QuestionRejected(session_id=s.SESSION, request_id="que_x"))


def test_requests_are_forgotten_when_their_turn_ends():
    fold = answering()
    fold.apply(permission())
    fold.apply(e.QuestionAsked(session_id=s.SESSION, id="que_1", questions=()))
    fold.apply(s.ended())
    assert fold.permissions() == ()
    assert fold.questions() == ()
