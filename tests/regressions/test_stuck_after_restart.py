"""Sessions that are busy for ever after a restart.

Users of OpenCode whose server died in a turn found the session "busy" when it was back, and after the next reboot
too: half a message without an end, a tool that is running although no process is, and no way to go on. Nothing took
up what was left. (anomalyco/opencode 19023, 43277)
"""

import asyncio
from pathlib import Path

import pytest

from tests.kill.arena import Arena
from tests.kill.checks import check_session, is_quiet, is_running

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "prompt",
    ["[[tokens=20]] [[stall=8]] [[times=1]]", '[[tool=bash {"command":"echo begun; sleep 30"}]] [[tokens=3]]'],
    ids=["in the middle of a text", "in the middle of a tool"],
)
async def test_a_turn_in_which_the_server_died_comes_to_its_end_without_anybody_asking(
    tmp_path: Path, prompt: str
) -> None:
    async with Arena(tmp_path) as arena, asyncio.timeout(90):
        session, asked = await arena.new_session(), arena.new_message_id()
        body = {"messageID": asked, "parts": [{"type": "text", "text": prompt}]}
        await arena.call("POST", f"/session/{session}/prompt_async", body)
        if "stall" in prompt:
            await arena.model.until(lambda model: bool(model.answers) and model.answers[-1].stalled)
        else:
            await arena.watcher.until(lambda: is_running(arena, session, "begun"))
        await arena.kill()
        await arena.start()

        await arena.watcher.until(lambda: is_quiet(arena, session, [asked]))
        await check_session(arena, session, [asked])
        await arena.stop()
        await arena.start()
        assert await arena.call("GET", "/session/status") == {}


async def test_a_session_that_was_just_created_is_there_after_a_crash(tmp_path: Path) -> None:
    """Sessions that never reached the database before a crash (35505)."""
    async with Arena(tmp_path) as arena, asyncio.timeout(90):
        created = await arena.call("POST", "/session", {"title": "acknowledged"})
        await arena.kill()
        await arena.start()

        assert await arena.call("GET", f"/session/{created['id']}") == created
