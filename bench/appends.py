"""What an append costs in CPU time: a delta, a prompt, an answer. `python bench/appends.py [DIR]`

CPU time of the whole process per append, the best of three: on a busy machine it says more than the clock on the wall.
"""

import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.stories import Story

RUNS = 3
SESSIONS = 8
TEXT = "The quick brown fox jumps over the lazy dog; see src/holdfast/core/store.py:12 for more. " * 22
WORDS = [f"word{random.randrange(20_000)}" for _ in range(300)]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def measure(what: str, count: int, append: Callable[[int], Awaitable[object]]) -> None:
    best = float("inf")
    for run in range(RUNS):
        start = time.process_time()
        for number in range(run * count, (run + 1) * count):
            await append(number)
        best = min(best, (time.process_time() - start) / count)
    print(f"| {what} | {best * 1e6:,.0f} µs |")


async def main(directory: Path) -> None:
    store = await SqliteStore.open(directory, now_ms=now_ms, entropy=os.urandom)
    stories = [Story(store.ids.new("ses")) for _ in range(SESSIONS)]
    for story in stories:
        await store.append(story.id, [story.created()])
    first = stories[0]
    await store.append(
        first.id, [first.message(first.assistant("msg_d")), first.part(first.text("prt_d", message="msg_d"))]
    )

    async def delta(number: int) -> None:
        await store.append(first.id, [first.delta("prt_d", "token ", "msg_d")])

    async def prompt(number: int) -> None:
        story, message = stories[number % SESSIONS], f"msg_{number}"
        text = f"Please fix {WORDS[number % 300]} in {WORDS[number * 7 % 300]}"
        await store.append(
            story.id,
            [
                story.updated(at=now_ms()),
                story.message(story.user(message)),
                story.part(story.prompt(f"prt_{number}", text, message)),
            ],
        )

    async def answer(number: int) -> None:
        story, message, part = stories[number % SESSIONS], f"msg_a{number}", f"prt_a{number}"
        text = TEXT + " ".join(WORDS[number % 100 : number % 100 + 50])
        await store.append(
            story.id, [story.message(story.assistant(message)), story.part(story.text(part, message=message))]
        )
        for _ in range(10):
            await store.append(story.id, [story.delta(part, "token ", message)])
        await store.append(
            story.id,
            [
                story.part(story.text(part, text, message=message, closed=True)),
                story.message(story.assistant(message, completed=True)),
            ],
        )

    print("| append | CPU |\n| --- | --- |")
    await measure("a delta", 3000, delta)
    await measure("a prompt: session, message, part", 600, prompt)
    await measure("an answer: ten deltas, a closed text of 2.3 kB", 300, answer)
    await store.close()


if __name__ == "__main__":
    made = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    try:
        asyncio.run(main(made))
    finally:
        shutil.rmtree(made)
