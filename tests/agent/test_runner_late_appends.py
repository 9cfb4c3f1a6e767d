"""An append that the store has taken over is made, whether its writer still waits for it or not. An abort that comes in between
must not have the turn go on from a state without it. Found by a server under random requests: a turn that was ended twice,
and calls that stayed pending for ever in a message that was over."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from holdfast.core.events import TurnEnded
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import AssistantMessage, ToolPart, is_open
from holdfast.core.store import Appended, Lease
from holdfast.storage.memory import MemoryStore
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.scripted_provider import Script, ScriptedProvider, Stall, call, cut, text
from tests.agent.scripts import Counter
from tests.agent.test_runner import Server
from tests.core import samples as s

LOOP_TURNS = 200
"""In so many, a runner that does not wait has long gone on."""


class SlowStore(MemoryStore):
    """Makes the runner's next append after `go`, once `holds` is set: as a thread does that has taken it over."""

    holds = False

    def __init__(self) -> None:
        clock = ManualClock()
        super().__init__(clock.now_ms, IdGenerator(clock.now_ms, os.urandom))
        self.reached, self.go = asyncio.Event(), asyncio.Event()
        self._late: set[asyncio.Task[Appended]] = set()

    async def append(self, session_id: str, events: Any, *, lease: Lease | None = None, **more: Any) -> Appended:
        if lease is None or not self.holds:
            return await super().append(session_id, events, lease=lease, **more)
        self.holds = False
        late = asyncio.create_task(self._append_late(session_id, events, lease, more))
        self._late.add(late)
        return await asyncio.shield(late)

    async def _append_late(self, session_id: str, events: Any, lease: Lease, more: dict[str, Any]) -> Appended:
        self.reached.set()
        await self.go.wait()
        return await super().append(session_id, events, lease=lease, **more)


@asynccontextmanager
async def aborted_in_mid_append(script: Sequence[Any], stall: Stall) -> AsyncGenerator[Server]:
    """After `stall`, the next append is held; while it is, the turn is aborted."""
    store = SlowStore()
    scripts: list[Script] = [script]
    server = Server(ScriptedProvider(*scripts), Counter("count", repeatable=False), store=store)
    await store.append(s.SESSION, [s.created()])
    await server.prompt()
    await stall.reached.wait()
    await server.until("message.part.delta")
    store.holds = True
    stall.release()
    await store.reached.wait()
    await server.abort()
    for _ in range(LOOP_TURNS):
        await asyncio.sleep(0)
    store.go.set()
    await server.engine.idle()
    yield server
    await server.engine.stop()
    assert [difference async for difference in store.verify()] == []


async def test_an_abort_that_comes_when_the_end_is_on_its_way_is_too_late():
    stall = Stall()
    async with aborted_in_mid_append([*text("Hello."), stall], stall) as server:
        (answer,) = await server.answers()

        assert isinstance(answer.info, AssistantMessage)
        assert answer.info.error is None
        assert [event.outcome for event in await server.log() if isinstance(event, TurnEnded)] == ["completed"]


async def test_a_call_that_was_on_its_way_when_the_stream_broke_and_the_user_aborted_is_closed():
    stall = Stall()
    async with aborted_in_mid_append([*text("Half a "), stall, *call("count", {}), cut()], stall) as server:
        (answer,) = await server.answers()

        assert [part.tool for part in answer.parts if isinstance(part, ToolPart)] == ["count"]
        assert [part for part in answer.parts if is_open(part)] == []
        assert [event.outcome for event in await server.log() if isinstance(event, TurnEnded)] == ["aborted"]
