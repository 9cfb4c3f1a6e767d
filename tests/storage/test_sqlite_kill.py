"""kill -9 of a process that appends as fast as it can: all that it was told is durable is there afterwards."""

import asyncio
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.store_conformance.base import log
from holdfast.testing.stories import Story

KILLS = 8

WRITER = """
import asyncio, os, pathlib, sys, time
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.stories import Story

async def main():
    store = await SqliteStore.open(pathlib.Path(sys.argv[1]), now_ms=lambda: time.time_ns() // 10**6, entropy=os.urandom)

    async def write():
        while True:
            story = Story(store.ids.new("ses"))
            await tell(store.append(story.id, story.streaming()))
            for number in range(20):
                await tell(store.append(story.id, [story.delta("prt_1", f"{number} ")]))
            text = "".join(f"{number} " for number in range(20))
            await tell(store.append(story.id, [story.part(story.text("prt_1", text, closed=True)), story.ended()]))
            await store.compact(closed_before_ms=1 << 60, records_max=10)

    async def tell(append):
        os.write(1, f"{(await append).offset}\\n".encode())

    await asyncio.gather(*(write() for _ in range(8)))

asyncio.run(main())
"""


def kill_after(directory: Path, acknowledgements: int) -> list[str]:
    """The offsets that were acknowledged. What the process had not got round to telling, nobody knows of."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout as output:
        told = [output.readline().strip() for _ in range(acknowledgements)]
        process.kill()
        told += [line.strip() for line in output if line.endswith("\n")]
    return told


async def check(directory: Path, told: set[str]) -> None:
    store = await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom)
    try:
        records = await log(store)
        # Deltas of closed parts may have been compacted away; verify holds what is left against the state.
        deltas_gone = told - {record.offset for record in records}
        assert len(deltas_gone) <= 20 * sum(record.tag == "turn.ended.1" for record in records)
        assert max(told) <= store.head()
        assert [difference async for difference in store.verify()] == []
        story = Story(store.ids.new("ses"))
        assert (await store.append(story.id, [story.created()])).offset > max(told)
    finally:
        await store.close()


@pytest.mark.slow
def test_whatever_the_moment_of_the_kill_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    told: set[str] = set()
    chance = random.Random(1)
    for _ in range(KILLS):
        told.update(kill_after(tmp_path, chance.randrange(1, 400)))
        asyncio.run(check(tmp_path, told))
    assert len(told) > KILLS
