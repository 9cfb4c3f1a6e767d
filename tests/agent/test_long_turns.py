"""A turn of hundreds of steps: the last one costs what the first did, and nothing of the earlier ones is forgotten."""

from collections.abc import Sequence
from typing import Any

from holdfast.agent.providers.base import Chunk
from holdfast.core.permissions import PermissionRule
from holdfast.core.store import MessagePage
from holdfast.storage.memory import MemoryStore
from holdfast.testing.scripted_provider import ScriptedProvider, Stall, call, text
from tests.agent.scripts import ALLOW_ALL, Counter
from tests.agent.test_runner import Server, serving
from tests.core import samples as s

STEPS = 40


def counted(number: int) -> list[Chunk]:
    return call("count", {"n": number}, call_id=f"call_{number}")


def noting_reads(store: MemoryStore) -> list[int]:
    """How many messages each page had that was read forwards, as the runner reads the steps that are over."""
    read: list[int] = []
    message_page = store.message_page

    async def noting(session_id: str, **keywords: Any) -> MessagePage:
        page = await message_page(session_id, **keywords)
        if keywords.get("after") is not None:
            read.append(len(page.messages))
        return page

    store.message_page = noting
    return read


async def test_no_step_reads_all_the_steps_before_it():
    """What the runner reads at a time is the step in progress, and at most the one that was just completed."""
    provider = ScriptedProvider(*map(counted, range(STEPS)), [text("Done.")])
    async with serving(provider, Counter("count", repeatable=True)) as server:
        read = noting_reads(server.store)
        await server.prompt()
        await server.engine.idle()
        assert len(await server.answers()) == STEPS + 1
        assert max(read) == 2


async def test_calls_alike_are_counted_over_a_restart():
    """Two of three in a row were made before it."""
    stall = Stall()
    scripts: Sequence[Sequence[Chunk | Stall]] = [counted(1), counted(1), [stall]]
    rules = (ALLOW_ALL, PermissionRule(permission="doom_loop", pattern="*", action="ask"))
    async with serving(ScriptedProvider(*scripts), Counter("count", repeatable=True), rules=rules) as server:
        await server.prompt()
        await stall.reached.wait()
        await server.engine.stop()
        again = ScriptedProvider(counted(1))
        second = Server(again, counter := Counter("count", repeatable=True), store=server.store, rules=rules)
        await second.engine.start()
        await second.until("permission.asked")
        (entry,) = (await second.store.turn_state(s.SESSION)).permissions
        assert entry.request.permission == "doom_loop"
        assert counter.began == []
        await second.engine.stop()
