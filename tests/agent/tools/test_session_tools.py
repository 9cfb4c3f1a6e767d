"""Tools that work on the session: `todowrite`, `todoread`, `question`, `task`, and `invalid`."""

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.base import Subagent
from holdfast.agent.tools.invalid import Invalid
from holdfast.agent.tools.question import Question
from holdfast.agent.tools.task import Task
from holdfast.agent.tools.todoread import TodoRead
from holdfast.agent.tools.todowrite import TodoWrite
from holdfast.core.session import Todo
from tests.agent.tools.hosts import Session

TODOS = [
    {"content": "a", "status": "pending", "priority": "high"},
    {"content": "b", "status": "completed", "priority": "low"},
]


async def test_todos_are_written_and_read_in_the_shape_clients_know(session: Session) -> None:
    written = await session.call(TodoWrite(), todos=TODOS)

    assert session.host.list[0] == Todo(content="a", status="pending", priority="high")
    assert json.loads(written.output) == TODOS
    assert written.output.startswith('[\n  {\n    "content": "a",\n')
    assert written.metadata == {"todos": TODOS, "truncated": False}
    assert written.title == "1 todos"
    assert await session.call(TodoRead()) == written
    for tool, input in ((TodoWrite(), {"todos": TODOS}), (TodoRead(), {})):
        (ask,) = await tool.asks(input, session.context)
        assert (ask.permission, ask.patterns) == (tool.id, ("*",))


QUESTIONS = [
    {"question": "Which?", "header": "Pick", "options": [{"label": "A", "description": "first"}]},
    {"question": "How?", "header": "Way", "options": [], "multiple": True},
]


async def test_a_question_gives_the_answers_to_the_llm(session: Session) -> None:
    session.host.answers = (("A",), ("x", "y"))

    result = await session.call(Question(), questions=QUESTIONS)

    assert [question.question for question in session.host.asked] == ["Which?", "How?"]
    assert session.host.asked[0].options[0].description == "first"
    assert [question.multiple for question in session.host.asked] == [None, True]
    assert result.title == "Asked 2 questions"
    assert result.output == 'The user answered: "Which?" = "A"; "How?" = "x, y".'
    assert result.metadata == {"answers": [["A"], ["x", "y"]], "truncated": False}


async def test_a_question_without_an_answer_says_so(session: Session) -> None:
    session.host.answers = ((),)

    result = await session.call(Question(), questions=QUESTIONS)

    assert result.output == 'The user answered: "Which?" = "(no answer)"; "How?" = "(no answer)".'


async def test_a_question_that_is_dismissed_fails(session: Session) -> None:
    session.host.answers = None

    with pytest.raises(ToolFailure, match="dismissed"):
        await session.call(Question(), questions=QUESTIONS)


TASK = {"description": "child work", "prompt": "do child", "subagent_type": "general"}


async def test_a_task_answers_the_last_words_of_the_subagent(session: Session) -> None:
    session.host.answer = "done it"

    result = await session.call(Task(), **TASK)

    assert session.host.subagents == [Subagent(description="child work", prompt="do child", agent="general")]
    assert result.title == "child work"
    assert result.output == ('<task id="ses_child" state="completed">\n<task_result>\ndone it\n</task_result>\n</task>')
    assert result.metadata == {"parentSessionId": "ses_1", "sessionId": "ses_child", "truncated": False}
    (ask,) = await Task().asks(TASK, session.context)
    assert (ask.permission, ask.patterns, ask.always) == ("task", ("general",), ("*",))


async def test_a_task_with_an_id_goes_on_with_that_session(session: Session) -> None:
    await session.call(Task(), **TASK, task_id="ses_earlier")
    await session.call(Task(), **TASK, task_id="")

    assert [subagent.session_id for subagent in session.host.subagents] == ["ses_earlier", None]


async def test_a_task_that_is_run_again_keeps_what_was_recorded_of_its_subagent(session: Session) -> None:
    context = replace(session.next_context(), recorded={"sessionId": "ses_child", "promptId": "msg_child"})

    await Task().run(TASK, context)

    assert session.host.recorded[0] == {
        "sessionId": "ses_child",
        "promptId": "msg_child",
        "parentSessionId": "ses_1",
    }


async def test_a_long_report_is_shortened_and_kept_in_a_file(session: Session) -> None:
    session.host.answer = "line\n" * 100_000

    result = await session.call(Task(), **TASK)

    assert len(result.output) < 60_000
    assert result.output.startswith('<task id="ses_child"')
    assert result.output.endswith("</task>")
    assert result.metadata["truncated"] is True
    assert session.host.answer in Path(result.metadata["outputPath"]).read_text()


async def test_a_wrong_call_is_answered_with_what_is_wrong(session: Session) -> None:
    result = await session.call(Invalid(), tool="nope", error="There is no tool 'nope'.")

    assert result.output == "This call is not possible: There is no tool 'nope'."
    assert await Invalid().asks({}, session.context) == []
