"""The stock TUI, `opencode attach`, as npm has it, in a terminal, on a real server."""

import asyncio
from pathlib import Path

import pytest

from holdfast.testing.stock_opencode import opencode_environment
from tests.clients.tui import Tui
from tests.kill.arena import Arena

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

PLACEHOLDER = "Ask anything"
WORKING = "esc interrupt"


def attach(opencode: Path, arena: Arena, home: Path) -> Tui:
    home.mkdir()
    return Tui([str(opencode), "attach", arena.process.url], cwd=arena.work, env=opencode_environment(home))


class Answered:
    """The whole answer is there, each token once and in order, and the TUI no longer shows that it is working."""

    def __init__(self, tokens: int) -> None:
        self._expected = [f"tok{i}" for i in range(tokens)]

    def __call__(self, screen: str) -> bool:
        shown = [word for word in screen.split() if word.startswith("tok")]
        return shown == self._expected and WORKING not in screen

    def __repr__(self) -> str:
        return f"{len(self._expected)} tokens without {WORKING!r}"


async def send(tui: Tui, prompt: str) -> None:
    await asyncio.to_thread(tui.wait_for, PLACEHOLDER)
    tui.type(prompt)
    await asyncio.to_thread(tui.wait_for, prompt)
    tui.type("\r")


async def test_it_starts_sends_a_prompt_and_shows_the_answer(arena: Arena, opencode: Path, tmp_path: Path) -> None:
    with attach(opencode, arena, tmp_path / "home") as tui:
        await send(tui, "hello [[tokens=20]] [[delay=20]]")
        screen = await asyncio.to_thread(tui.wait_for, Answered(tokens=20))
    assert "hello" in screen


async def test_it_heals_after_the_server_was_killed_in_the_middle_of_a_turn(
    arena: Arena, opencode: Path, tmp_path: Path
) -> None:
    """It never asks again for what it missed: the server tells it on its own when it connects again. The turn goes on
    meanwhile, so that some of the text is from before the kill, some from while nobody was connected, some from after.
    (For some seconds the TUI also says that its own call failed, over a part of the text.)"""
    with attach(opencode, arena, tmp_path / "home") as tui:
        await send(tui, "hello [[tokens=150]] [[delay=20]]")
        await asyncio.to_thread(tui.wait_for, "tok30")
        await arena.kill()
        await arena.start()
        await asyncio.to_thread(tui.wait_for, Answered(tokens=150))


async def test_it_obeys_who_controls_it_from_outside(arena: Arena, opencode: Path, tmp_path: Path) -> None:
    """A program next to it types a prompt, sends it off, and shows a message."""
    with attach(opencode, arena, tmp_path / "home") as tui:
        await asyncio.to_thread(tui.wait_for, PLACEHOLDER)
        await arena.call("POST", "/tui/append-prompt", {"text": "hello [[tokens=20]]"})
        await asyncio.to_thread(tui.wait_for, "hello [[tokens=20]]")
        await arena.call("POST", "/tui/submit-prompt")
        await asyncio.to_thread(tui.wait_for, Answered(tokens=20))
        await arena.call("POST", "/tui/show-toast", {"message": "Look here", "variant": "info", "duration": 60_000})
        await asyncio.to_thread(tui.wait_for, "Look here")
