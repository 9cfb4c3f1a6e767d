"""The stock TUI, `opencode attach`, as npm has it, in a terminal, on a real server."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.events import PartUpdated, SessionCreated, SessionUpdated
from holdfast.core.messages import TextPart
from holdfast.testing.stock_opencode import opencode_environment
from tests.clients.tui import Tui
from tests.kill.arena import Arena, opencode_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PLACEHOLDER = "Ask anything"
WORKING = "esc interrupt"
PERMISSION = "Permission required"
ENTER, RIGHT, DOWN, ESCAPE, CLEAR = "\r", "\x1b[C", "\x1b[B", "\x1b", "\x15"


class Person:
    """Sits at the terminal: acts only on what the screen shows."""

    def __init__(self, tui: Tui) -> None:
        self._tui = tui

    async def sees(self, *what: str | Callable[[str], bool]) -> str:
        """All of it at the same time: what is looked for on a screen that shows one thing may be drawn a moment later."""
        return await asyncio.to_thread(self._tui.wait_for, *what)

    async def no_longer_sees(self, what: str) -> str:
        return await self.sees(Without(what))

    def presses(self, *keys: str) -> None:
        for key in keys:
            self._tui.type(key)

    async def says(self, prompt: str, *, recognised_by: str | None = None) -> None:
        """`recognised_by` is a piece of it that stands in one line, if all of it does not."""
        self.presses(prompt)
        await self.sees(recognised_by or prompt)
        self.presses(ENTER)

    async def commands(self, name: str, description: str) -> None:
        """A slash command, once the menu offers it."""
        self.presses(CLEAR, f"/{name}")
        await self.sees(description)
        self.presses(ENTER)


@pytest.fixture
async def person(arena: Arena, opencode: Path, tmp_path: Path) -> AsyncIterator[Person]:
    """In front of a TUI that is ready. Commands of the agent need permission."""
    configure(
        arena,
        permission={"bash": "ask"},
        command={"greet": {"template": "Greet $ARGUMENTS [[tokens=2]]", "description": "Say hello"}},
    )
    async with at_the_tui(arena, opencode, tmp_path / "home") as person:
        yield person


@contextlib.asynccontextmanager
async def at_the_tui(arena: Arena, opencode: Path, home: Path) -> AsyncIterator[Person]:
    home.mkdir()
    command = [str(opencode), "attach", arena.process.url]
    with Tui(command, cwd=arena.work, env=opencode_environment(home)) as tui:
        person = Person(tui)
        await person.sees(PLACEHOLDER)
        yield person


def configure(arena: Arena, **more: Any) -> None:
    (arena.work / "opencode.json").write_text(json.dumps({**opencode_json(arena.model.url), **more}))


def make_repository(directory: Path) -> None:
    """What is taken back in a work tree of git is the files too."""
    subprocess.run(["git", "init", "-q"], cwd=directory, check=True)


def bash(command: str) -> str:
    return f"[[tool=bash {json.dumps({'command': command})}]]"


class Without:
    """It is not, or no longer, on the screen."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, screen: str) -> bool:
        return self._text not in screen

    def __repr__(self) -> str:
        return f"no {self._text!r}"


class Answered:
    """The whole answer is there, each token once and in order, and the TUI no longer shows that it is working."""

    def __init__(self, tokens: int) -> None:
        self._expected = [f"tok{i}" for i in range(tokens)]

    def __call__(self, screen: str) -> bool:
        shown = [word for word in screen.split() if word.startswith("tok")]
        return shown == self._expected and WORKING not in screen

    def __repr__(self) -> str:
        return f"{len(self._expected)} tokens without {WORKING!r}"


class InTheDialog:
    """The question says what is asked for, not only the conversation above it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, screen: str) -> bool:
        return self._text in screen.partition(PERMISSION)[2]

    def __repr__(self) -> str:
        return f"{self._text!r} below {PERMISSION!r}"


async def test_it_starts_sends_a_prompt_and_shows_the_answer(person: Person) -> None:
    await person.says("hello [[tokens=20]] [[delay=20]]")
    await person.sees(Answered(tokens=20), "hello")


async def test_it_heals_after_the_server_was_killed_in_the_middle_of_a_turn(arena: Arena, person: Person) -> None:
    """It never asks again for what it missed: the server tells it on its own when it connects again. The turn goes on
    meanwhile, so that some of the text is from before the kill, some from while nobody was connected, some from after.
    (For some seconds the TUI also says that its own call failed, over a part of the text.)"""
    await person.says("hello [[tokens=150]] [[delay=20]]")
    await person.sees("tok30")
    await arena.kill()
    await arena.start()
    await person.sees(Answered(tokens=150))


async def test_a_command_runs_once_it_is_allowed(person: Person) -> None:
    await person.says(f"go {bash('echo made-$((1+1))')} [[tokens=3]]")
    screen = await person.sees(PERMISSION)
    assert "made-2" not in screen
    await person.sees(InTheDialog("$ echo made-$((1+1))"))
    await person.sees("Allow once")
    person.presses(ENTER)
    await person.sees(Answered(tokens=3), "made-2")


async def test_what_is_allowed_always_is_not_asked_again(person: Person) -> None:
    await person.says(f"go {bash('printf made-%s one')} [[tokens=3]]")
    await person.sees(PERMISSION, "Allow once")
    person.presses(RIGHT, ENTER)
    await person.sees("Always allow", "printf *")
    person.presses(ENTER)
    await person.sees(Answered(tokens=3))
    await person.says(f"again {bash('printf made-%s two')} [[tokens=1]]")
    screen = await person.sees("made-two")
    assert PERMISSION not in screen


async def test_a_rejected_command_does_not_run_and_the_turn_is_over(person: Person) -> None:
    await person.says(f"go {bash('echo made-$((1+1))')} [[tokens=3]]")
    await person.sees(PERMISSION, "Allow once")
    person.presses(RIGHT, RIGHT, ENTER)
    await person.no_longer_sees(PERMISSION)
    screen = await person.no_longer_sees(WORKING)
    assert "made-2" not in screen
    assert "tok0" not in screen


async def test_a_permission_is_still_asked_for_after_the_server_was_killed(arena: Arena, person: Person) -> None:
    await person.says(f"go {bash('echo made-$((1+1))')} [[tokens=3]]")
    await person.sees(PERMISSION, "Allow once")
    await arena.kill()
    await arena.start()
    await person.sees(PERMISSION, "Allow once")
    person.presses(ENTER)
    await person.sees(Answered(tokens=3), "made-2")


def everything(arena: Arena) -> list[Any]:
    return [event for events in arena.events.values() for event in events]


async def test_a_question_is_answered_with_a_key(person: Person) -> None:
    options = [{"label": "Red", "description": "like a rose"}, {"label": "Blue", "description": "like the sky"}]
    questions = [{"question": "Which colour?", "header": "Colour", "options": options}]
    await person.says(
        f"[[tool=question {json.dumps({'questions': questions})}]] [[tokens=3]]", recognised_by="[[tokens=3]]"
    )
    await person.sees("like the sky", "enter submit")
    person.presses(DOWN, ENTER)
    await person.sees(Answered(tokens=3), "Blue")


async def test_the_list_of_tasks_is_shown(person: Person) -> None:
    todos = [
        {"content": "write the test", "status": "in_progress", "priority": "high"},
        {"content": "run it", "status": "pending", "priority": "low"},
    ]
    await person.says(f"[[tool=todowrite {json.dumps({'todos': todos})}]] [[tokens=3]]", recognised_by="[[tokens=3]]")
    await person.sees(Answered(tokens=3), "[•] write the test", "[ ] run it")


async def test_escape_twice_aborts_and_keeps_what_was_said(arena: Arena, person: Person) -> None:
    await person.says("hello [[tokens=200]] [[stall=20]]")
    await person.sees("tok19")
    person.presses(ESCAPE)
    await person.sees("esc again to interrupt")
    person.presses(ESCAPE)
    await person.sees("interrupted", "tok19")
    await person.says("go on [[tokens=2]]")
    await person.sees(lambda screen: screen.count("tok1 ") + screen.count("tok1\n") == 2)


async def test_undo_takes_the_files_back_and_redo_brings_them_again(arena: Arena, person: Person) -> None:
    make_repository(arena.work)
    await person.says('[[tool=write {"filePath":"made.txt","content":"made"}]] [[tokens=3]]')
    await person.sees(Answered(tokens=3))
    made = arena.work / "made.txt"
    assert made.exists()
    await person.commands("undo", "Undo previous message")
    await person.sees("1 message reverted", "made.txt -1")
    assert not made.exists()
    await person.commands("redo", "Redo")
    await person.sees(Answered(tokens=3))
    assert made.exists()


async def test_sessions_are_named_switched_and_copied(arena: Arena, person: Person) -> None:
    await person.says("the first one [[tokens=3]]")
    await person.sees(Answered(tokens=3))
    await person.commands("rename", "Rename session")
    await person.sees("enter submit")
    person.presses(CLEAR, "Kelp")
    await person.sees("Kelp")
    person.presses(ENTER)
    await arena.watcher.until(lambda: "Kelp" in titles(arena))
    await person.commands("new", "New session")
    await person.sees(PLACEHOLDER)
    await person.says("the second one [[tokens=2]]")
    await person.sees(Answered(tokens=2))

    await person.commands("sessions", "Switch session")
    await person.sees("Kelp")
    person.presses("Kel")
    await person.sees(Without("Fake title"), "Kelp")
    person.presses(ENTER)
    await person.sees("the first one", Without("the second one"))

    await person.commands("fork", "Fork session")
    await person.sees("Full session")
    person.presses(ENTER)
    await arena.watcher.until(lambda: "Kelp (fork #1)" in titles(arena))
    # Nothing on the screen tells when the TUI has gone over to the copy, which looks the same: so nothing more is typed.
    await arena.watcher.until(lambda: "the first one [[tokens=3]]" in texts_of(arena, "Kelp (fork #1)"))


def texts_of(arena: Arena, title: str) -> set[str]:
    """What stands in the sessions that were created under this title."""
    ids = {e.session_id for e in everything(arena) if isinstance(e, SessionCreated) and e.info.title == title}
    parts = [event.part for event in everything(arena) if isinstance(event, PartUpdated)]
    return {part.text for part in parts if isinstance(part, TextPart) and part.session_id in ids}


def titles(arena: Arena) -> set[str]:
    """All that sessions were ever called."""
    return {event.info.title for event in everything(arena) if isinstance(event, SessionCreated | SessionUpdated)}


async def test_a_command_of_the_persons_own_runs_at_once(person: Person) -> None:
    person.presses("!")
    await person.sees("exit shell mode")
    await person.says("echo own-$((1+2))")
    screen = await person.sees("own-3")
    assert PERMISSION not in screen


async def test_it_obeys_who_controls_it_from_outside(arena: Arena, person: Person) -> None:
    """A program next to it types a prompt, sends it off, and shows a message."""
    await arena.call("POST", "/tui/append-prompt", {"text": "hello [[tokens=20]]"})
    await person.sees("hello [[tokens=20]]")
    await arena.call("POST", "/tui/submit-prompt")
    await person.sees(Answered(tokens=20))
    await arena.call("POST", "/tui/show-toast", {"message": "Look here", "variant": "info", "duration": 60_000})
    await person.sees("Look here")


async def test_a_slash_command_of_the_project_is_a_prompt(person: Person) -> None:
    person.presses("/gre")
    await person.sees("Say hello")
    person.presses(ENTER)
    await person.no_longer_sees("Say hello")
    await person.says("kelp")
    await person.sees(Answered(tokens=2), "Greet kelp")
