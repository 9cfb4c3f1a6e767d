"""Does a step of a long turn stay quick? `python -m bench.turn [STEPS] [OUTPUT_BYTES] [DIR]`

One turn of so many steps (300) with a tool whose output is so large (20,000 bytes), on SQLite; the LLM is scripted and answers
at once. Prints the CPU time of a step, by thirties of steps: all of it, what reading the turn's state has of it
(`SessionStore.turn_state`), and what reading the conversation for the LLM has of it, which grows with what the LLM is to see and
is bounded by what it can take (the scripted one never has its conversation summarised).
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.providers.base import Chunk, ModelRequest
from holdfast.agent.runner import Engine, worker
from holdfast.agent.tools import ToolBox, ToolContext, ToolResult
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import ToolPart
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.scripted_provider import call, finished, text
from holdfast.testing.stories import Story
from tests.agent.scripts import World

GROUP = 30


class Large:
    """A tool that has much to say."""

    id = "large"
    description = "Says much."
    repeatable = True

    def __init__(self, size: int) -> None:
        self.parameters: dict[str, Any] = {"type": "object", "properties": {}}
        self._size = size

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        return ToolResult(title="said", output="word " * (self._size // 5), metadata={})

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return [Ask(permission=self.id, patterns=("*",))]

    async def clean_up(self, part: ToolPart) -> None:
        pass


class Talker:
    """An LLM that calls the tool again and again. `asked`: the CPU time used before each of its steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.asked: list[float] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        self.asked.append(time.process_time())
        number = len(self.asked)
        if number <= self._steps:
            yield [*text(f"Step {number}. "), *call("large", {"n": number}, call_id=f"call_{number}")]
        else:
            yield text("Done.")
        yield [finished("tool-calls" if number <= self._steps else "stop")]


def spent_in(work: Callable[..., Awaitable[Any]], asked: list[float], spent: dict[int, float]) -> Callable[..., Any]:
    """The same work, with the CPU time that it takes added to the step that it is done in."""

    async def watched(*arguments: Any, **keywords: Any) -> Any:
        before = time.process_time()
        answer = await work(*arguments, **keywords)
        spent[len(asked)] = spent.get(len(asked), 0.0) + time.process_time() - before
        return answer

    return watched


async def run(steps: int, size: int, directory: Path) -> None:
    clock = ManualClock()
    store = await SqliteStore.open(directory, now_ms=clock.now_ms, entropy=os.urandom)
    story, model = Story(directory=str(directory)), Talker(steps)
    state: dict[int, float] = {}
    conversation: dict[int, float] = {}
    store.turn_state = spent_in(store.turn_state, model.asked, state)
    worker.since_summary = spent_in(worker.since_summary, model.asked, conversation)
    ids = IdGenerator(clock.now_ms, os.urandom)
    engine = Engine(
        store=store,
        clock=clock,
        new_id=ids.new,
        jitter=lambda: 0.0,
        environment=World(model, ToolBox([Large(size)])),
        owner="bench",
    )
    await store.append(story.id, story.prompted("go"))
    engine.wake(story.id)
    await engine.idle()
    await store.close()
    print(f"{'steps':>9} {'a step':>9} {'state':>9} {'history':>9}  (ms of CPU time)")
    for first in range(0, steps, GROUP):
        last = min(first + GROUP, steps)
        count = last - first
        whole = model.asked[last] - model.asked[first]
        parts = [sum(spent.get(n, 0.0) for n in range(first + 1, last + 1)) for spent in (state, conversation)]
        row = " ".join(f"{1000 * seconds / count:9.2f}" for seconds in (whole, *parts))
        print(f"{first + 1:>4}-{last:<4} {row}")


def main() -> None:
    steps, size, place = [*sys.argv[1:], *("300", "20000", "")[len(sys.argv) - 1 :]]
    with tempfile.TemporaryDirectory(dir=place or None) as directory:
        asyncio.run(run(int(steps), int(size), Path(directory)))


if __name__ == "__main__":
    main()
