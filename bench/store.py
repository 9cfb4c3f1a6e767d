"""How fast is the SQLite store alone: appends of one delta each, batches, fan-out, reads. `python bench/store.py [DIR]`

Prints a Markdown table: the median of RUNS runs, and their spread. The database is made in DIR (default: the system's
temporary directory): a tmpfs has no fsync, so the numbers mean something on a real disk only.
"""

import asyncio
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from holdfast.core.store import SessionScope
from holdfast.storage.sqlite import SqliteStore
from holdfast.storage.tail import Subscription
from holdfast.testing.stories import Story

RUNS = 5

Measurement = Callable[[SqliteStore], Awaitable[float]]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def stories(store: SqliteStore, count: int) -> list[Story]:
    """Sessions with an open text part."""
    made = [Story(store.ids.new("ses")) for _ in range(count)]
    await asyncio.gather(*(store.append(story.id, story.streaming()) for story in made))
    return made


async def append_alone(store: SqliteStore) -> float:
    """One writer, one delta after the other: the median time of an append, in µs."""
    (story,) = await stories(store, 1)
    times: list[float] = []
    for _ in range(2000):
        start = time.perf_counter()
        await store.append(story.id, [story.delta("prt_1", "token ")])
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def append_together(writers: int, appends: int) -> Measurement:
    """So many sessions, each appending one delta after the other: appends/s."""

    async def measure(store: SqliteStore) -> float:
        made = await stories(store, writers)

        async def write(story: Story) -> None:
            for _ in range(appends):
                await store.append(story.id, [story.delta("prt_1", "token ")])

        start = time.perf_counter()
        await asyncio.gather(*map(write, made))
        return writers * appends / (time.perf_counter() - start)

    return measure


async def append_batches(store: SqliteStore) -> float:
    """2,000 deltas in appends of 20: deltas/s."""
    (story,) = await stories(store, 1)
    start = time.perf_counter()
    for _ in range(100):
        await store.append(story.id, [story.delta("prt_1", "token ") for _ in range(20)])
    return 2000 / (time.perf_counter() - start)


def fan_out(deltas_each: int) -> Measurement:
    """100 subscribers of a session that appends 4,000 deltas, so many at a time: deliveries/s."""
    deltas, readers = 4000, 100

    async def measure(store: SqliteStore) -> float:
        (story,) = await stories(store, 1)

        async def follow(subscription: Subscription) -> None:
            seen = 0
            async for batch in subscription:
                seen += len(batch)
                if seen == deltas:
                    return

        tasks = [asyncio.create_task(follow(store.subscribe(SessionScope(story.id)))) for _ in range(readers)]
        await asyncio.sleep(0)
        start = time.perf_counter()
        for _ in range(deltas // deltas_each):
            await store.append(story.id, [story.delta("prt_1", "token ") for _ in range(deltas_each)])
        await asyncio.gather(*tasks)
        return deltas * readers / (time.perf_counter() - start)

    return measure


async def create_sessions(store: SqliteStore) -> float:
    """New sessions, one after the other: sessions/s."""
    start = time.perf_counter()
    for _ in range(300):
        await store.append((story := Story(store.ids.new("ses"))).id, [story.created()])
    return 300 / (time.perf_counter() - start)


async def big_session(store: SqliteStore) -> Story:
    story = Story(store.ids.new("ses"))
    await store.append(story.id, [story.created()])
    for n in range(500):
        message = f"msg_{n:04d}"
        await store.append(
            story.id,
            [story.message(story.user(message)), story.part(story.prompt(f"prt_{n:04d}", "word " * 60, message))],
        )
    return story


def read(what: Callable[[SqliteStore, Story], Awaitable[object]]) -> Measurement:
    """A session of 500 messages with a part each, and a turn under way: the median time of a read, in µs."""

    async def measure(store: SqliteStore) -> float:
        story = await big_session(store)
        await store.append(story.id, [story.message(story.user()), story.requested(), story.started()])
        await store.append(story.id, [story.message(story.assistant()), story.part(story.text("prt_1"))])
        await store.append(story.id, [story.delta("prt_1", "token ") for _ in range(200)])
        times: list[float] = []
        for _ in range(100):
            start = time.perf_counter()
            await what(store, story)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6

    return measure


MEASUREMENTS: list[tuple[str, str, Measurement]] = [
    ("one append, alone, p50", "µs", append_alone),
    ("16 writers", "appends/s", append_together(16, 500)),
    ("256 writers", "appends/s", append_together(256, 60)),
    ("2,000 deltas in appends of 20", "deltas/s", append_batches),
    ("100 subscribers, a delta per append", "deliveries/s", fan_out(1)),
    ("100 subscribers, 20 deltas per append", "deliveries/s", fan_out(20)),
    ("new session", "sessions/s", create_sessions),
    ("session()", "µs", read(lambda store, story: store.session(story.id))),
    ("turn_state(), 200 deltas in an open part", "µs", read(lambda store, story: store.turn_state(story.id))),
    ("message_page() of 500", "µs", read(lambda store, story: store.message_page(story.id, limit=500))),
    ("message_page() of 100", "µs", read(lambda store, story: store.message_page(story.id, limit=100))),
]


async def run_once(measurement: Measurement, parent: Path) -> float:
    directory = Path(tempfile.mkdtemp(prefix="holdfast-bench-", dir=parent))
    store = await SqliteStore.open(directory, now_ms=now_ms, entropy=os.urandom)
    try:
        gc.collect()
        return await measurement(store)
    finally:
        await store.close()
        shutil.rmtree(directory)


def main() -> None:
    parent = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    print("| what | median | spread |\n| --- | --- | --- |")
    for what, unit, measurement in MEASUREMENTS:
        if only in what:
            values = sorted(uvloop.run(run_once(measurement, parent)) for _ in range(RUNS))
            print(
                f"| {what} | {statistics.median(values):,.0f} {unit} | {values[0]:,.0f} – {values[-1]:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
