"""A defect of ours in a place where the turn cannot even be failed: the worker dies of it, and the session must not stay busy."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from holdfast.agent.runner.engine import DEATHS_MAX
from holdfast.core import events as e
from holdfast.core.messages import AssistantMessage, UnknownError
from holdfast.core.offsets import Offset
from holdfast.core.session import IDLE
from holdfast.core.state import TurnState
from holdfast.core.store import Recorded, Scope
from holdfast.storage.memory import MemoryStore
from holdfast.testing.scripted_provider import ScriptedProvider, Stall, call, text
from tests.agent.scripts import Counter
from tests.agent.test_runner import Server, said, serving
from tests.agent.test_runner_asks import reply
from tests.core import samples as s


class Defect:
    """`left` times, the state of the session cannot be read."""

    def __init__(self, store: MemoryStore) -> None:
        self.left = 0
        self._turn_state = store.turn_state
        store.turn_state = self._read

    async def _read(self, session_id: str) -> TurnState:
        if self.left:
            self.left -= 1
            raise RuntimeError("mistake 4711")
        return await self._turn_state(session_id)


@asynccontextmanager
async def broken(*scripts: Any) -> AsyncGenerator[tuple[Server, Defect], None]:
    server = Server(ScriptedProvider(*scripts))
    await server.store.append(s.SESSION, [s.created()])
    yield server, Defect(server.store)
    await server.engine.stop()
    assert [difference async for difference in server.store.verify()] == []


def outcomes(log: Sequence[e.Event]) -> list[str]:
    return [event.outcome for event in log if isinstance(event, e.TurnEnded)]


async def test_a_worker_that_died_is_followed_by_one_that_answers():
    async with broken(text("Hello.")) as (server, defect):
        defect.left = DEATHS_MAX
        await server.prompt()
        await server.engine.idle()
        assert outcomes(await server.log()) == ["completed"]
        assert said((await server.answers())[-1]) == "Hello."


async def test_a_turn_whose_workers_die_again_and_again_is_given_up_and_the_session_is_idle():
    async with broken() as (server, defect):
        defect.left = DEATHS_MAX + 1
        await server.prompt()
        await server.engine.idle()
        log = await server.log()
        assert outcomes(log) == ["failed"]
        assert (await server.store.turn_state(s.SESSION)).status == IDLE
        (error,) = [event.error for event in log if isinstance(event, e.SessionErrored)]
        assert isinstance(error, UnknownError)
        assert error.data.ref
        assert "4711" not in error.data.message, "what went wrong is for the log of the server"


async def test_after_a_turn_was_given_up_the_queue_is_answered():
    async with broken(text("Second.")) as (server, defect):
        defect.left = DEATHS_MAX + 1
        await server.prompt()
        await server.prompt("msg_u2", "again")
        await server.engine.idle()
        assert outcomes(await server.log()) == ["failed", "completed"]
        assert said((await server.answers())[-1]) == "Second."


async def test_a_message_that_was_begun_keeps_its_text_and_carries_the_error():
    stall = Stall()
    async with broken([*text("Half a "), stall, *text("sentence.")]) as (server, defect):
        await server.prompt()
        await stall.reached.wait()
        await server.until("message.part.delta", count=2)
        await server.abort()  # after which the state is read again
        defect.left = DEATHS_MAX + 1
        await server.engine.idle()
        (answer,) = await server.answers()
        assert isinstance(answer.info, AssistantMessage)
        assert answer.info.time.completed is not None
        assert isinstance(answer.info.error, UnknownError)
        assert said(answer) == "Half a "
        assert outcomes(await server.log()) == ["failed"]
        assert (await server.store.turn_state(s.SESSION)).status == IDLE


async def test_a_worker_that_hears_of_nothing_any_more_is_followed_by_one_that_does():
    """Else nobody would hear of the reply for which the turn waits, nor of an abort."""
    provider = ScriptedProvider([call("count", {"n": 1})], [text("Done.")])
    async with serving(provider, counter := Counter("count", repeatable=False), rules=()) as server:
        broken, subscribe = asyncio.Event(), server.store.subscribe

        async def deaf() -> AsyncGenerator[Sequence[Recorded], None]:
            await broken.wait()
            server.store.subscribe = subscribe
            raise RuntimeError("mistake 4711")
            yield ()

        def subscribed(scope: Scope, *, after: Offset | None = None) -> AsyncIterator[Sequence[Recorded]]:
            return deaf() if after is None else subscribe(scope, after=after)

        setattr(server.store, "subscribe", subscribed)  # noqa: B010 - pyright wants the very class
        await server.prompt()
        await server.until("permission.asked")
        broken.set()
        await server.until("turn.started", count=2)
        await reply(server, "once")
        await asyncio.wait_for(server.engine.idle(), 60)
        assert len(counter.began) == 1
        assert outcomes(await server.log()) == ["completed"]


async def test_a_turn_that_cannot_even_be_given_up_is_left_for_the_next_prompt_to_wake():
    async with broken(text("Hello."), text("Again.")) as (server, defect):
        defect.left = DEATHS_MAX + 2
        await server.prompt()
        await server.engine.idle()
        assert outcomes(await server.log()) == []
        await server.prompt("msg_u2", "again")
        await server.engine.idle()
        assert outcomes(await server.log()) == ["completed", "completed"]
