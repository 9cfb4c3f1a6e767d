"""What the SQLite backend does when the disk does not do what it should. A crash of the process is in `test_sqlite_kill`."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import StorageError
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL, Appended
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.faults import Fault, FaultyDisk
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.store_conformance.base import log
from holdfast.testing.stories import Story

FAULTS: list[Fault] = ["full", "io", "hiccup", "power cut"]


async def open_store(directory: Path, **options: object) -> SqliteStore:
    return await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom, **options)  # pyright: ignore[reportArgumentType]


async def work(store: SqliteStore, acknowledged: list[Appended], rounds: int) -> None:
    """Two sessions that stream, close parts, delete, compact; several appends at once. Ends early, with the error, when the
    store fails."""

    async def one(name: str) -> None:
        story = Story(store.ids.new("ses"), title=name)
        acknowledged.append(await store.append(story.id, story.streaming("prt_0")))
        for number in range(rounds):
            part = f"prt_{number}"
            if number:
                acknowledged.append(await store.append(story.id, [story.part(story.text(part))], key=part))
            for n in range(3):
                acknowledged.append(await store.append(story.id, [story.delta(part, f"{n} " * 50)]))
            text = "".join(f"{n} " * 50 for n in range(3))
            acknowledged.append(await store.append(story.id, [story.part(story.text(part, text, closed=True))]))
            await store.compact(closed_before_ms=0, records_max=5)

    await asyncio.gather(one("a"), one("b"))


async def ends_in_failure(work: Awaitable[object]) -> bool:
    try:
        await work
    except StorageError as error:
        return "holdfast.db" in error.message and bool(error.hint)
    return False


async def assert_sound(directory: Path, acknowledged: list[Appended]) -> None:
    """On a disk that works again, everything acknowledged is there, the state is that of the log, and work goes on."""
    store = await open_store(directory)
    try:
        offsets = [record.offset for record in await log(store)]
        assert {answer.offset for answer in acknowledged} <= set(offsets)
        assert [difference async for difference in store.verify()] == []
        more: list[Appended] = []
        await work(store, more, 1)
        assert all(answer.offset > max(offsets, default=BEGINNING) for answer in more)
    finally:
        await store.close()


@pytest.mark.slow
@settings(max_examples=100)
@given(after=st.integers(0, 260), fault=st.sampled_from(FAULTS), seed=st.integers(0, 1 << 30))
def test_whatever_the_moment_at_which_the_disk_fails_nothing_acknowledged_is_lost(
    after: int, fault: Fault, seed: int
) -> None:
    """The store fails, says so once, accepts nothing more; after a restart all that was acknowledged is there, whole
    appends only, and the state is the fold of the log."""

    async def scenario(directory: Path) -> None:
        disk, failures, acknowledged = FaultyDisk(seed), list[StorageError](), list[Appended]()
        disk.break_after(after, fault)
        try:
            store = await open_store(directory, vfs=disk.name, on_failure=failures.append)
        except StorageError:
            assert disk.broken
        else:
            told = store.subscribe(ALL, after=BEGINNING)
            try:
                if await ends_in_failure(work(store, acknowledged, 3)):
                    assert disk.broken
                    assert len(failures) == 1
                    assert await ends_in_failure(store.append("ses_any", []))
            finally:
                await store.close()
            published = [record.offset async for batch in told for record in batch]
            assert not published or published[-1] <= max(answer.offset for answer in acknowledged)
        if fault == "power cut":
            disk.lose_unsynced()
        await assert_sound(directory, acknowledged)

    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as directory:
        asyncio.run(scenario(Path(directory)))
