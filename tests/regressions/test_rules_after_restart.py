"""A restarted server knows the project's rules before it runs the tools that were waiting.

The torture run found a turn that never ended: the server had died after the model had finished its message and before
the tools ran. The restarted server went straight to the tools, and judged them before anybody had read the project's
configuration. Without any rule "ask" is the answer, so an allowed command waited for a permission that nobody was
there to give. (A forbidden one would have been asked for, too.)
"""

import asyncio
import json
from pathlib import Path

import pytest

from holdfast.core.messages import ToolCompleted
from tests.kill.arena import Arena
from tests.kill.checks import answer_tools, check_session, is_quiet


@pytest.mark.slow
async def test_a_call_that_waited_when_the_server_died_is_judged_by_the_projects_rules(tmp_path: Path) -> None:
    """The rule says "ask", which holds the call; the server dies; meanwhile the rule is changed to "allow"."""
    async with Arena(tmp_path) as arena, asyncio.timeout(90):
        await arena.stop()
        permit(arena, "ask")
        await arena.start()
        session, prompt = await arena.new_session(), arena.new_message_id()
        parts = [{"type": "text", "text": '[[tool=bash {"command":"echo over"}]] [[tokens=3]]'}]
        await arena.call("POST", f"/session/{session}/prompt_async", {"messageID": prompt, "parts": parts})
        await arena.watcher.until(lambda: len(arena.folds[session].permissions()) == 1)
        await arena.kill()
        permit(arena, "allow")
        await arena.start()

        await arena.watcher.until(lambda: is_quiet(arena, session, [prompt]))
        await check_session(arena, session, [prompt])
        (call,) = answer_tools(arena, session, prompt)
    assert isinstance(call.state, ToolCompleted)


def permit(arena: Arena, action: str) -> None:
    file = arena.work / "opencode.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "permission": {"bash": action}}))
