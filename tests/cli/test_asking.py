"""What a turn asks, answered in the terminal that watches it."""

import asyncio
import io
import json
import os
import pty
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from rich.console import Console

from holdfast.cli.asking import Asker, answer_of, lines_of
from holdfast.cli.terminal import Terminal
from holdfast.cli.turn_view import AnswerWanted, TurnView
from holdfast.client import Client, Refused
from holdfast.core import events as e
from holdfast.core.messages import ToolPart, ToolRunning
from holdfast.core.permissions import PermissionRequest
from holdfast.core.questions import Question, QuestionOption, QuestionRequest
from holdfast.testing.server_process import holdfast_command
from holdfast.testing.stories import Story, ToolStatus
from tests.cli.place import Place, text_of

COLOURS = tuple(QuestionOption(label=label, description="A colour") for label in ("Red", "Dark green"))
QUESTION = Question(question="Which colour?", header="Colour", options=COLOURS)


def permission(id: str = "per_1", **fields: Any) -> PermissionRequest:
    return PermissionRequest(
        **{
            "id": id,
            "session_id": "ses_a",
            "permission": "bash",
            "patterns": ("rm x",),
            "metadata": {},
            "always": ("rm *",),
        }
        | fields
    )


class World:
    """A view of requests, a client that notes what it is to say, and a user who types `lines`."""

    def __init__(self, *requests: PermissionRequest | QuestionRequest) -> None:
        self.wanted: dict[str, PermissionRequest | QuestionRequest] = {request.id: request for request in requests}
        self.said: list[Any] = []
        self.refusal: Refused | None = None
        self.lines: asyncio.Queue[str | None] = asyncio.Queue()
        self.screen = io.StringIO()
        terminal = Terminal(io.StringIO(), Console(file=self.screen, soft_wrap=True), answers_here=True)
        self.asker = Asker(self, terminal, self.lines.get)  # type: ignore[arg-type]

    async def types(self, *lines: str | None) -> None:
        for line in lines:
            self.lines.put_nowait(line)
        self.asker.changed(self)
        for _ in range(20):
            await asyncio.sleep(0)

    async def reply_permission(self, request_id: str, reply: str, *, message: str | None = None) -> None:
        self._note(request_id, reply, message)

    async def reply_question(self, request_id: str, answers: Any) -> None:
        self._note(request_id, answers)

    async def reject_question(self, request_id: str) -> None:
        self._note(request_id, None)

    def _note(self, *said: Any) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.said.append(said)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["o"], ("per_1", "once", None)),
        (["", "what", " YES "], ("per_1", "once", None)),
        (["a"], ("per_1", "always", None)),
        (["r", ""], ("per_1", "reject", None)),
        (["no", "Use git rm"], ("per_1", "reject", "Use git rm")),
    ],
)
async def test_a_permission_is_given_or_refused_with_a_line(lines: list[str], said: Any):
    world = World(permission())
    await world.types(*lines)

    assert world.said == [said]


async def test_what_cannot_be_allowed_for_good_is_not_offered_so():
    world = World(permission(always=()))
    await world.types("a", "o")

    assert world.said == [("per_1", "once", None)]
    assert "always" not in world.screen.getvalue()


@pytest.mark.parametrize(
    ("question", "line", "answer"),
    [
        ({}, "1", ("Red",)),
        ({}, "dark GREEN", ("Dark green",)),
        ({}, "Something blue, please", ("Something blue, please",)),
        ({"custom": False}, "blue", None),
        ({"custom": False}, "3", None),
        ({"multiple": True}, "2, 1,2", ("Dark green", "Red")),
        ({"multiple": True, "custom": False}, "1, blue", None),
    ],
)
def test_a_question_is_answered_by_number_by_name_or_in_own_words(
    question: dict[str, bool], line: str, answer: tuple[str, ...] | None
):
    asked = Question(question="?", header="?", options=COLOURS, **question)

    assert answer_of(asked, line) == answer


async def test_questions_are_asked_one_after_the_other_and_answered_together():
    world = World(QuestionRequest(id="que_1", session_id="ses_a", questions=(QUESTION, QUESTION)))
    await world.types("1", "my own")

    assert world.said == [("que_1", [("Red",), ("my own",)])]


async def test_a_question_may_be_dismissed():
    world = World(QuestionRequest(id="que_1", session_id="ses_a", questions=(QUESTION,)))
    await world.types("")

    assert world.said == [("que_1", None)]


async def test_what_was_answered_elsewhere_is_not_asked_any_more():
    world = World(permission("per_1"), permission("per_2"))
    await world.types()
    del world.wanted["per_1"]
    await world.types("o")

    assert world.said == [("per_2", "once", None)]
    assert "Answered." in world.screen.getvalue()


async def test_an_answer_that_comes_too_late_is_said_to_be():
    world = World(permission())
    world.refusal = Refused(404, "The turn is over.")
    await world.types("o")

    assert "Too late: The turn is over." in world.screen.getvalue()


async def test_the_end_of_the_input_leaves_the_rest_to_others():
    world = World(permission("per_1"))
    await world.types(None)
    world.wanted = {"per_2": permission("per_2")}
    await world.types("o")

    assert world.said == []
    assert "other clients" in world.screen.getvalue()


def test_the_view_knows_what_waits_for_the_user():
    story, view = Story(), TurnView("msg_u1")
    for event in (story.permission_asked("per_0"), story.started(), story.permission_asked("per_1")):
        view.apply(event)
    view.apply(story.question_asked("que_1"))
    assert list(view.wanted) == ["per_1", "que_1"]
    assert view.apply(story.permission_asked("per_1")) == []
    view.apply(story.permission_replied("per_1"))
    assert list(view.wanted) == ["que_1"]
    view.apply(e.TurnEnded(session_id=story.id, message_id="msg_u1", outcome="completed"))
    assert view.wanted == {}


def test_the_view_knows_what_subagents_want_while_they_work():
    story, child, view = Story(), Story("ses_child"), TurnView("msg_u1")
    for event in (story.started(), story.message(story.assistant()), story.part(delegating(story, "running"))):
        view.apply(event)
    assert list(view.children.values()) == ["ses_child"]
    (notice,) = view.apply_of_child(child.permission_asked("per_1"))
    assert isinstance(notice, AnswerWanted)
    assert "subagent" in notice.what
    assert view.apply_of_child(child.permission_asked("per_1")) == []
    view.apply_of_child(child.question_asked("que_1"))
    view.apply_of_child(child.permission_replied("per_1"))
    assert list(view.wanted) == ["que_1"]
    view.apply(story.part(delegating(story, "completed")))
    assert view.children == {}
    assert view.wanted == {}


def delegating(story: Story, status: ToolStatus) -> ToolPart:
    part = story.tool("prt_task", status)
    if isinstance(part.state, ToolRunning):
        part = replace(part, state=replace(part.state, metadata={"sessionId": "ses_child"}))
    return replace(part, tool="task")


async def test_a_wait_for_a_line_can_be_given_up():
    reading, writing = os.pipe()
    read_line = lines_of(reading)
    waiting = asyncio.ensure_future(read_line())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    os.write(writing, b"first\nsec")
    assert await read_line() == "first"
    os.write(writing, "önd\n".encode())
    assert await read_line() == "secönd"
    os.close(writing)
    assert await read_line() is None
    os.close(reading)


# --- the whole command ------------------------------------------------------------------------------------------


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place(tmp_path) as place:
        yield place


async def answered(place: Place, prompt: str, asked: bytes, answer: bytes) -> tuple[int | None, bytes, bytes]:
    """Exit code, what was shown, and stdout of a run in a terminal, where what is asked gets this answer."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *holdfast_command("run", prompt, "--server", place.server.url),
        cwd=place.work,
        stdin=theirs,
        stdout=asyncio.subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        async with asyncio.timeout(60):
            while asked not in shown:
                shown += await asyncio.to_thread(os.read, ours, 4096)
            os.write(ours, answer + b"\n")
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
        os.close(ours)
    return process.returncode, shown, out


@pytest.mark.slow
async def test_run_asks_in_a_terminal_and_the_turn_goes_on_with_the_answer(place: Place):
    question = '{"questions":[{"question":"Which way?","header":"Way","options":[{"label":"Left","description":"l"}]}]}'
    code, shown, out = await answered(place, f"[[tool=question {question}]] [[tokens=2]]", b"own words", b"1")

    assert code == 0, shown
    assert b"Which way?" in shown
    assert b"tok0 tok1" in out
    assert any("Left" in str(message) for message in await place.messages(await place.session()))
    assert text_of((await place.messages(await place.session()))[-1])


@pytest.mark.slow
async def test_run_asks_what_a_subagent_wants_to_know(place: Place):
    config = json.loads((place.work / "opencode.json").read_text())
    (place.work / "opencode.json").write_text(json.dumps({**config, "permission": {"bash": "ask"}}))
    command = json.dumps({"command": "echo was here", "description": "say"})
    task = (
        json.dumps(
            {"description": "look", "prompt": f"[[tool=bash {command}]] [[tokens=2]]", "subagent_type": "general"}
        )
        .replace("[[", "\\u005b\\u005b")
        .replace("]]", "\\u005d\\u005d")
    )  # or they would be the prompt's own
    code, shown, _ = await answered(place, f"[[tool=task {task}]] [[tokens=3]]", b"[o]nce", b"o")

    assert code == 0, shown
    assert b"for a subagent" in shown
    async with Client(place.server.url, directory=str(place.work)) as client:
        (child,) = [session.id for session in await client.sessions() if session.parent_id is not None]
    assert "was here" in str(await place.messages(child))
