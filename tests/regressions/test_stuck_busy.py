"""A session that stays busy although nothing happens, and whose abort does nothing.

After a tool call, or when a model said nothing more, OpenCode's sessions stayed busy, and Esc did not help. Scripts
that waited for `session.idle` waited for ever, or got it twice. (anomalyco/opencode 40468, 17624)
"""

import asyncio
from pathlib import Path

import pytest

from holdfast.testing.scripted_provider import Script, Stall, call, text
from tests.server.harness import Server, prompt

ALLOW = [{"permission": "bash", "pattern": "*", "action": "allow"}]
STUBBORN = "trap '' TERM HUP INT; echo deaf; sleep 60 & wait; sleep 60"


@pytest.mark.parametrize(
    ("script", "shows"),
    [([*text("So far"), Stall()], "far"), (call("bash", {"command": STUBBORN}), "deaf")],
    ids=["a model that says nothing more", "a tool that is deaf to signals"],
)
async def test_an_abort_ends_the_turn_and_the_session_is_idle_once(tmp_path: Path, script: Script, shows: str) -> None:
    async with Server(tmp_path, tmp_path / "data", [script]) as server:
        await server.listen()
        session = await server.session(permission=ALLOW)
        async with server.events() as events, asyncio.timeout(90):
            await server.api.post(f"/session/{session}/prompt_async", json=prompt("Go"))
            seen = [await events.next()]
            while shows not in seen[-1].data.decode():
                seen.append(await events.next())
            assert (await server.api.post(f"/session/{session}/abort")).json() is True
            seen += await events.until("session.idle")

        assert [frame.type for frame in seen].count("session.idle") == 1
        assert (await server.api.get("/session/status")).json() == {}
        [_, answer] = await server.messages(session)
        assert answer["info"]["error"]["name"] == "MessageAbortedError"
