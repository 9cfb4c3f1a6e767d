"""Holdfast is killed while MCP servers run for it: none outlives it, and no call is made twice."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.turn.outcomes import OUTCOME_UNKNOWN
from holdfast.testing.other_processes import is_alive, read, until
from tests.agent.mcp.servers import local, raw
from tests.kill.arena import Arena


def describe(arena: Arena, mcp: dict[str, Any]) -> None:
    file = arena.work / "opencode.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "mcp": mcp}))


async def described(arena: Arena, mcp: dict[str, Any]) -> None:
    describe(arena, mcp)
    await arena.call("POST", "/instance/dispose")


async def called(arena: Arena, tool: str) -> str:
    """The session of a turn that calls it."""
    session = await arena.new_session()
    parts = [{"type": "text", "text": f"[[tool={tool} {{}}]] [[tokens=3]]"}]
    await arena.call("POST", f"/session/{session}/prompt_async", {"parts": parts})
    return session


async def outcome(arena: Arena, session: str) -> dict[str, Any]:
    """The call's state, once the turn is over."""
    await arena.watcher.until(lambda: any(event.type == "turn.ended" for event in arena.events[session]))
    messages = await arena.call("GET", f"/session/{session}/message")
    [part] = [part for message in messages for part in message["parts"] if part["type"] == "tool"]
    return part["state"]


@pytest.mark.slow
async def test_the_programs_of_servers_and_what_they_started_die_with_a_killed_holdfast(tmp_path: Path):
    log = tmp_path / "log"
    async with Arena(tmp_path) as arena:
        await described(arena, {"raw": local(raw(log))})
        state = await outcome(arena, await called(arena, "raw_child"))
        pids = [int(pid) for pid in state["output"].split()]
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        await arena.kill()
        await until(lambda: not any(map(is_alive, pids)))
        await arena.start()
        state = await outcome(arena, await called(arena, "raw_child"))
        pids = [int(pid) for pid in state["output"].split()]
        await arena.stop()
        assert not any(map(is_alive, pids))


@pytest.mark.slow
async def test_a_call_found_running_has_an_unknown_outcome_and_only_one_that_reads_is_made_again(tmp_path: Path):
    log = tmp_path / "log"
    async with Arena(tmp_path) as arena:
        await described(arena, {"raw": local(raw(log))})
        hang, look = await called(arena, "raw_hang"), await called(arena, "raw_look")
        await until(lambda: len(re.findall("call (hang|look)", read(log))) == 2)
        await arena.kill()
        describe(arena, {"raw": local(raw(log), timeout=10_000)})
        await arena.start()
        hung, looked = await outcome(arena, hang), await outcome(arena, look)

        assert hung["status"] == "error"
        assert hung["error"] == OUTCOME_UNKNOWN
        assert "did not answer within 10 seconds" in looked["error"]  # it was asked again, and is as deaf as before
        assert (read(log).count("call hang"), read(log).count("call look")) == (1, 2)
