"""What was allowed to one agent was allowed to its subagents, too.

A session whose rules allow everything passed them on to the sessions of its tasks, where they came after the agent's own:
`explore`, which only reads, could change files. A denial of the prompt's `tools` reached a task as a rule of another name.
"""

from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.scripted_provider import call, text
from tests.server.harness import Server

ALLOW_ALL = {"permission": "*", "pattern": "*", "action": "allow"}


def task(agent: str) -> dict[str, Any]:
    return {"description": "look", "prompt": "Look around", "subagent_type": agent}


async def child_of(server: Server, session: str) -> dict[str, Any]:
    [child] = (await server.api.get(f"/session/{session}/children")).json()
    return child


async def tools_of(server: Server, session: str) -> list[dict[str, Any]]:
    messages = await server.messages(session)
    return [part for message in messages for part in message["parts"] if part["type"] == "tool"]


@pytest.mark.parametrize("agent", ["explore", "general"])
async def test_a_session_that_allows_everything_does_not_let_the_agent_that_only_reads_write(
    tmp_path: Path, agent: str
) -> None:
    wanted = {"filePath": str(tmp_path / "new"), "content": "x"}
    scripts = [call("task", task(agent)), call("write", wanted), text("Done."), text("Thanks.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server:
        session = await server.session(permission=[ALLOW_ALL])
        await server.prompt(session, "Have somebody look around")
        child = await child_of(server, session)
        assert ALLOW_ALL not in child["permission"]
        [made] = await tools_of(server, child["id"])
        assert (made["tool"], (tmp_path / "new").exists()) == (
            ("invalid", False) if agent == "explore" else ("write", True)
        )


async def test_what_the_parents_rules_deny_and_say_of_other_directories_holds_for_a_subagent(tmp_path: Path) -> None:
    outside = {"permission": "external_directory", "pattern": "/elsewhere/*", "action": "allow"}
    denied = {"permission": "bash", "pattern": "rm *", "action": "deny"}
    scripts = [call("task", task("general")), call("bash", {"command": "rm it"}), text("Done."), text("Thanks.")]
    (tmp_path / "it").touch()
    async with Server(tmp_path, tmp_path / "data", scripts) as server:
        rules = [ALLOW_ALL, outside, denied]
        session = await server.session(permission=rules)
        await server.prompt(session, "Have somebody look around")
        child = await child_of(server, session)
        assert child["permission"][:2] == [outside, denied]
        [made] = await tools_of(server, child["id"])
        assert "forbids" in made["state"]["error"]
        assert (tmp_path / "it").exists()


async def test_tools_that_the_prompt_turns_off_are_off_for_its_subagents_and_those_it_turns_on_are_not_on(
    tmp_path: Path,
) -> None:
    wanted = {"filePath": str(tmp_path / "new"), "content": "x"}
    scripts = [call("task", task("general")), call("write", wanted), text("Done."), text("Thanks.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server:
        session = await server.session()
        await server.prompt(session, "Have somebody look around", tools={"write": False, "bash": True})
        child = await child_of(server, session)
        assert not any(rule["action"] == "allow" for rule in child["permission"])
        [made] = await tools_of(server, child["id"])
        assert made["tool"] == "invalid"
        assert not (tmp_path / "new").exists()


async def test_always_is_for_every_agent_that_would_have_to_ask_and_for_none_that_may_not(tmp_path: Path) -> None:
    """A custom agent whose rules forbid some commands is not helped by an `always` that was said to another agent."""
    config = """{"permission": {"bash": "ask"}, "agent": {"careful": {"mode": "subagent", "permission": {
        "bash": {"*": "deny", "ls *": "ask"}}}}}"""
    (tmp_path / "opencode.json").write_text(config)
    commands = ("touch made", "ls made")
    scripts = [call("bash", {"command": "touch first"}), call("bash", {"command": "ls first"})]
    scripts += [call("task", task("careful"))]
    scripts += [call("bash", {"command": command}) for command in commands]
    scripts += [text("Done."), text("Thanks.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server:
        session = await server.session()
        await server.api.post(f"/session/{session}/prompt_async", json={"parts": [{"type": "text", "text": "go"}]})
        for asked in (1, 2):
            await server.recorded("permission.asked", asked)
            [request] = (await server.api.get("/permission")).json()
            await server.api.post(f"/permission/{request['id']}/reply", json={"reply": "always"})
        await server.recorded("turn.ended", 2)
        touched, listed = await tools_of(server, (await child_of(server, session))["id"])
        assert "forbids" in touched["state"]["error"]
        assert listed["state"]["status"] == "completed"
        assert not (tmp_path / "made").exists()


async def test_a_subagent_uses_the_model_that_is_configured_for_it(tmp_path: Path) -> None:
    (tmp_path / "opencode.json").write_text('{"agent": {"explore": {"model": "scripted/other"}}}')
    scripts = [call("task", task("explore")), text("Done."), text("Thanks.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server:
        session = await server.session()
        await server.prompt(session, "Have somebody look around")
        child = await child_of(server, session)
        assert child["model"]["id"] == "other"
        assert [message["info"].get("modelID") for message in await server.messages(child["id"])] == [None, "other"]
