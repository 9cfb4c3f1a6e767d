"""A subagent's request for permission that nobody ever saw.

The request of a child session was dropped, the parent waited for the child for ever, and to abort or to interrupt it
did nothing. Sessions without a user interface hung in the same way. (anomalyco/opencode 44747, 13715, 36868, 37694,
16367)
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.scripted_provider import call, text
from tests.server.harness import Server, texts

TASK = {"description": "look", "prompt": "Look around", "subagent_type": "general"}


async def asked(server: Server) -> tuple[str, asyncio.Task[Any], dict[str, Any]]:
    """A parent whose child waits for permission."""
    session = await server.session()
    waiting = asyncio.create_task(server.prompt(session, "Have somebody look around"))
    await server.recorded("permission.asked")
    [request] = (await server.api.get("/permission")).json()
    return session, waiting, request


def project(tmp_path: Path) -> Path:
    (tmp_path / "opencode.json").write_text('{"permission": {"bash": "ask"}}')
    return tmp_path


@pytest.mark.parametrize(("reply", "done"), [("once", "completed"), ("reject", "error")])
async def test_a_subagents_request_is_shown_and_its_answer_lets_the_parent_go_on(
    tmp_path: Path, reply: str, done: str
) -> None:
    scripts = [call("task", TASK), call("bash", {"command": "echo seen"}), text("The child is done."), text("Thanks.")]
    async with Server(project(tmp_path), tmp_path / "data", scripts) as server, asyncio.timeout(90):
        session, waiting, request = await asked(server)
        assert request["sessionID"] != session
        await server.api.post(f"/permission/{request['id']}/reply", json={"reply": reply, "message": "Go on without"})
        await waiting

        [_, child, *_] = await server.messages(request["sessionID"])
        assert [part["state"]["status"] for part in child["parts"] if part["type"] == "tool"] == [done]
        assert texts((await server.messages(session))[-1]) == "Thanks."
        assert (await server.api.get("/session/status")).json() == {}


async def test_an_abort_of_the_parent_ends_the_child_that_waits(tmp_path: Path) -> None:
    scripts = [call("task", TASK), call("bash", {"command": "echo seen"})]
    async with Server(project(tmp_path), tmp_path / "data", scripts) as server, asyncio.timeout(90):
        session, waiting, _ = await asked(server)
        await server.api.post(f"/session/{session}/abort")
        await waiting
        await server.recorded("turn.ended", 2)

        assert (await server.api.get("/permission")).json() == []
        assert (await server.api.get("/session/status")).json() == {}
