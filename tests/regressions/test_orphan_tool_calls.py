"""A call without a result, for which the provider refuses the whole session from then on.

A tool that was cut off left OpenCode's history with a `tool_use` that has no `tool_result`: 44 sessions of one user
could not be used any more. A call that the model never finished to write hung for nine minutes. (anomalyco/opencode
10616, 27871)
"""

import asyncio
import json
from pathlib import Path

import pytest

from holdfast.agent.providers.base import ToolCallChunk
from holdfast.testing.scripted_provider import cut, text
from tests.kill.arena import Arena
from tests.kill.checks import is_quiet, is_running
from tests.server.harness import Server, texts


@pytest.mark.slow
async def test_the_provider_gets_a_result_for_every_call_though_the_server_died_in_one(tmp_path: Path) -> None:
    async with Arena(tmp_path) as arena, asyncio.timeout(90):
        session, asked = await arena.new_session(), arena.new_message_id()
        command = json.dumps({"command": "echo begun; sleep 30"})
        text = f"[[tool=bash {command}]][[tool=bash {command}]] [[tokens=3]]"
        body = {"messageID": asked, "parts": [{"type": "text", "text": text}]}
        await arena.call("POST", f"/session/{session}/prompt_async", body)
        await arena.watcher.until(lambda: is_running(arena, session, "begun"))
        await arena.kill()
        await arena.start()
        await arena.watcher.until(lambda: is_quiet(arena, session, [asked]))
        sent = arena.model.answers[-1].messages

    calls = [call["id"] for message in sent for call in message.get("tool_calls") or ()]
    results = [message["tool_call_id"] for message in sent if message["role"] == "tool"]
    assert len(calls) == 2
    assert sorted(results) == sorted(calls)


@pytest.mark.slow
async def test_a_call_that_the_model_never_finished_is_closed_and_the_turn_goes_on(tmp_path: Path) -> None:
    begun = ToolCallChunk(call_id="call_1", name="bash", arguments='{"comm')
    async with Server(tmp_path, tmp_path / "data", [[begun, cut()], text("Never mind.")]) as server:
        session = await server.session()
        async with asyncio.timeout(60):
            await server.prompt(session)

        [_, *answers] = await server.messages(session)
        states = [part["state"]["status"] for answer in answers for part in answer["parts"] if part["type"] == "tool"]
        assert states == ["error"]
        assert texts(answers[-1]) == "Never mind."
