"""What must hold of a session after the server died in it, came back, and everything has become quiet."""

import asyncio
import collections
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from holdfast.core.codec import to_json
from holdfast.core.events import PartDelta, TurnEnded, TurnRequested
from holdfast.core.messages import (
    AssistantMessage,
    ReasoningPart,
    TextPart,
    ToolPart,
    ToolRunning,
    is_open,
    is_terminal,
)
from holdfast.core.session import StatusIdle
from tests.kill.arena import Arena


async def check_session(arena: Arena, session: str, prompts: list[str]) -> None:
    """`prompts` are the ids of all messages that were to be answered."""
    fold = arena.folds[session]
    told = [event for event in arena.events[session] if isinstance(event, PartDelta)]
    stored: list[Any] = await arena.call("GET", f"/session/{session}/message")

    # No gap, no repeat: what a resumed subscriber folds is what the server answers.
    same([id for id, count in arena.event_ids.items() if count > 1], [])
    offsets = [seen.offset for seen in arena.watcher.events]
    assert all(a < b for a, b in pairwise(offsets)), "offsets ran backwards"
    same(json.loads(to_json(fold.messages())), stored)
    same(json.loads(to_json(fold.session)), await arena.call("GET", f"/session/{session}"))

    # Every token counts.
    seen: dict[str, str] = collections.defaultdict(str)
    for event in told:
        seen[event.part_id] += event.delta
    texts = {part["id"]: part.get("text", "") for message in stored for part in message["parts"]}
    same({id: text for id, text in seen.items() if not texts[id].startswith(text)}, {})

    # A turn always ends, once, and nothing stays open.
    requested = [event.message_id for event in arena.events[session] if isinstance(event, TurnRequested)]
    ended = [event.message_id for event in arena.events[session] if isinstance(event, TurnEnded)]
    same(sorted(requested), sorted(prompts))
    same(sorted(ended), sorted(requested))
    for message in fold.messages():
        assert not isinstance(message.info, AssistantMessage) or is_terminal(message.info), message.info
        same([part for part in message.parts if is_open(part)], [])
    assert isinstance(fold.status, StatusIdle)
    assert session not in await arena.call("GET", "/session/status")

    same(living_children(session, fold_part_ids(arena, session)), {})


def same(actual: object, expected: object) -> None:
    """Equality that says what differs, also where pytest does not look."""
    if actual != expected:
        a, b = repr(actual), repr(expected)
        at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        near = slice(max(0, at - 100), at + 300)
        raise AssertionError(f"differs at character {at}:\n  is       …{a[near]}\n  expected …{b[near]}")


def is_quiet(arena: Arena, session: str, prompts: list[str]) -> bool:
    """Every prompt has its end, and the session is idle, as far as the subscriber has seen."""
    fold = arena.folds[session]
    ended = {event.message_id for event in arena.events[session] if isinstance(event, TurnEnded)}
    idle = isinstance(fold.status, StatusIdle) and fold.turns.active is None and not fold.turns.queue
    return idle and ended >= set(prompts)


def answer_text(arena: Arena, session: str, prompt: str) -> str:
    """All text with which a prompt was answered."""
    return "".join(part.text for part in answer_parts(arena, session, prompt) if isinstance(part, TextPart))


def answer_reasoning(arena: Arena, session: str, prompt: str) -> list[str]:
    return [part.text for part in answer_parts(arena, session, prompt) if isinstance(part, ReasoningPart)]


def answer_tools(arena: Arena, session: str, prompt: str) -> list[ToolPart]:
    return [part for part in answer_parts(arena, session, prompt) if isinstance(part, ToolPart)]


def is_running(arena: Arena, session: str, output: str) -> bool:
    """A call runs, and has written this."""
    parts = [part for message in arena.folds[session].messages() for part in message.parts]
    states = [part.state for part in parts if isinstance(part, ToolPart) and isinstance(part.state, ToolRunning)]
    return any(output in str(state.metadata) for state in states)


def answer_parts(arena: Arena, session: str, prompt: str) -> list[object]:
    return [
        part
        for message in arena.folds[session].messages()
        if isinstance(message.info, AssistantMessage) and message.info.parent_id == prompt
        for part in message.parts
    ]


def fold_part_ids(arena: Arena, session: str) -> set[str]:
    return {part.id for message in arena.folds[session].messages() for part in message.parts}


async def children_die_with_the_server(arena: Arena, session: str, *, seconds: float = 60) -> None:
    """With the server dead and not started again, its tools' processes end too, and soon."""
    living: dict[int, str] = {}
    try:
        async with asyncio.timeout(seconds):
            while living := living_children(session, fold_part_ids(arena, session)):
                await asyncio.gather(*(_ended(pid) for pid in living))
    except TimeoutError:
        raise AssertionError(f"still running {seconds} s after the server died: {living}") from None


async def _ended(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def living_children(session: str, part_ids: set[str]) -> dict[int, str]:
    """Processes that carry the mark of one of the session's tool calls: Holdfast's own, or the test's (see scenarios)."""
    marks = [f"HOLDFAST_PART={id}".encode() for id in part_ids] + [f"KILL_TEST={session}".encode()]
    living: dict[int, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile, or is another user's
        if any(mark in environment for mark in marks):
            living[int(process.name)] = command
    return living
