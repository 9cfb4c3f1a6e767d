"""Kill the runner between any two awaits: the session ends as without the kill, and no tool call runs twice unless it is
marked repeatable.

A life is an engine behind a `Mortal` store, model and tools. At the n-th thing it does (before or after it has its
effect) the life ends: nothing it tries from then on reaches the store. The next life starts on what is recorded.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.agent.providers.base import ProviderError
from holdfast.agent.runner import Engine
from holdfast.agent.tools import Tool, ToolBox
from holdfast.core import codec
from holdfast.core import events as e
from holdfast.core.fold import Fold
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import (
    AssistantMessage,
    ReasoningPart,
    RetryPart,
    TextPart,
    ToolCompleted,
    ToolError,
    ToolPart,
)
from holdfast.core.offsets import BEGINNING
from holdfast.core.session import IDLE
from holdfast.core.store import SessionScope, SessionStore
from holdfast.testing.manual_clock import ManualClock
from tests.agent.scripts import Call, Counter, Say, ScriptedModel, World
from tests.core import samples as s
from tests.properties.stores import OpenStore, memory, on_every_backend

SCRIPT = (
    Say(reasoning=("hm ", "well "), words=("Let ", "me ", "count. "), calls=(Call("count", {"n": 1}), Call("look"))),
    Say(words=("And ", "again. "), calls=(Call("count", {"n": 2}),)),
    Say(words=("It ", "is ", "two.")),
)
WHOLE = "Let me count. And again. It is two."


class Store(SessionStore, Protocol):
    ids: IdGenerator


class Killed(BaseException):
    """Not an error that code could handle: the process is gone."""


class Life:
    """Counts down; at zero everything stops."""

    def __init__(self, steps: int) -> None:
        self._left = steps
        self.dead = asyncio.Event()

    def tick(self) -> None:
        if self.dead.is_set():
            raise Killed
        self._left -= 1
        if self._left < 0:
            self.dead.set()
            raise Killed

    async def pause(self) -> None:
        self.tick()
        await asyncio.sleep(0)
        self.tick()


class MortalStore:
    """The store as a life sees it: each call may be its last, before or after it had its effect."""

    def __init__(self, store: SessionStore, life: Life) -> None:
        self._store = store
        self._life = life

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._store, name)
        if name in ("subscribe", "head"):
            return method

        async def mortal(*args: Any, **kwargs: Any) -> Any:
            self._life.tick()
            result = await method(*args, **kwargs)
            self._life.tick()
            return result

        return mortal


async def live(store: Store, clock: ManualClock, steps: int, failures: list[ProviderError]) -> list[str]:
    """One life; answers the parts whose `count` tool it began to run."""
    life = Life(steps)
    counter = Counter("count", repeatable=False, pause=life.pause)
    looker = Counter("look", repeatable=True, pause=life.pause)
    model = ScriptedModel(SCRIPT, failures=failures, pause=life.pause)
    engine = Engine(
        store=MortalStore(store, life),  # type: ignore[arg-type]
        clock=clock,
        new_id=store.ids.new,
        jitter=lambda: 0.0,
        environment=World(model, ToolBox((counter, looker))),
        owner="server",
    )
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # what a dead process would have logged
    ended = asyncio.ensure_future(life.dead.wait())
    work = asyncio.ensure_future(_work(engine, clock, life))
    await asyncio.wait({ended, work}, return_when=asyncio.FIRST_COMPLETED)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.gather(ended, work, return_exceptions=True)
    await engine.stop()
    return counter.began


async def _work(engine: Engine, clock: ManualClock, life: Life) -> None:
    try:
        await engine.start()
    except Killed:
        return
    idle = asyncio.ensure_future(engine.idle())
    while not idle.done() and not life.dead.is_set():
        for _ in range(50):
            await asyncio.sleep(0)
        if not idle.done():  # only a clock that moves gets a paused turn on
            clock.advance(1000)


async def one_life(store: SessionStore, clock: ManualClock, steps: int, script: Sequence[Say], *tools: Tool) -> None:
    """One life of a server, which ends after so many calls of its store and its model."""
    life = Life(steps)
    model = ScriptedModel(script, pause=life.pause)
    engine = Engine(
        store=MortalStore(store, life),  # type: ignore[arg-type]
        clock=clock,
        new_id=cast(Store, store).ids.new,
        jitter=lambda: 0.0,
        environment=World(model, ToolBox(tools)),
        owner="server",
    )
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    ended = asyncio.ensure_future(life.dead.wait())
    work = asyncio.ensure_future(_work(engine, clock, life))
    await asyncio.wait({ended, work}, return_when=asyncio.FIRST_COMPLETED)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)  # also what they do in threads: a dead process writes no more
    await engine.stop()


async def story(lives: list[int], failures: int, open_store: OpenStore = memory) -> None:
    clock = ManualClock()
    async with open_store(clock.now_ms) as store:
        await _story(cast(Store, store), clock, lives, failures)


async def _story(store: Store, clock: ManualClock, lives: list[int], failures: int) -> None:
    await store.append(
        s.SESSION, [s.created(), s.message(s.user()), s.part(s.prompt_text("prt_u1", "count")), s.requested()]
    )
    errors = [ProviderError("cut", retryable=True)] * failures
    began: list[str] = []
    for steps in [*lives, 10_000]:
        began += await live(store, clock, steps, list(errors))
        errors = errors[1:]

    records = await store.read(SessionScope(s.SESSION), after=BEGINNING, limit=100_000)
    log = [codec.decode(record.tag, record.data)[1] for record in records]
    fold = Fold(log)
    history = await store.history(s.SESSION)
    assert fold.messages() == history
    assert fold.status == IDLE
    assert [difference async for difference in store.verify()] == []
    assert [event.outcome for event in log if isinstance(event, e.TurnEnded)] == ["completed"]
    answers = [m for m in history if isinstance(m.info, AssistantMessage)]
    assert all(m.info.time.completed for m in answers)  # type: ignore[union-attr]
    said = "".join(part.text for m in answers for part in m.parts if isinstance(part, TextPart))
    assert said == WHOLE
    assert [part.text for m in answers for part in m.parts if isinstance(part, ReasoningPart)] == ["hm well "]
    assert len(began) == len(set(began)), "a call that is not repeatable ran twice"
    calls = [part for m in answers for part in m.parts if isinstance(part, ToolPart)]
    for call in calls:
        assert isinstance(call.state, ToolCompleted | ToolError)
        if isinstance(call.state, ToolCompleted) and call.tool == "count":
            assert call.id in began
    complete = [c for c in calls if not (isinstance(c.state, ToolError) and (c.state.metadata or {}).get("incomplete"))]
    assert [call.tool for call in complete] == ["count", "look", "count"]
    assert all(isinstance(part.attempt, int) for m in answers for part in m.parts if isinstance(part, RetryPart))


@settings(max_examples=150)
@given(st.lists(st.integers(0, 150), max_size=2), st.integers(0, 2))
@example([], 0)
@example([], 2)
def test_a_runner_killed_between_any_two_awaits_ends_the_session_as_without_the_kill(lives: list[int], failures: int):
    asyncio.run(story(lives, failures))


@on_every_backend
def test_a_runner_killed_once_at_every_single_await_ends_the_session_as_without_the_kill(open_store: OpenStore):
    for steps in range(0, 200, 1 if open_store is memory else 9):
        asyncio.run(story([steps], 0, open_store))
