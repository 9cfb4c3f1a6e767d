"""Offsets never run backwards and are never used twice; ids grow: over restarts, restores, and clocks that jump."""

import asyncio
import shutil
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.core.store import ALL
from holdfast.core.streams import Append, Create, Retention
from holdfast.storage.memory import MemoryStore
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.store_conformance.base import log
from holdfast.testing.stories import NOW_MS, Story
from tests.properties.stores import OpenStore, on_every_backend, sqlite


def event_id(data: bytes) -> str:
    return data[7:].partition(b'"')[0].decode()


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 5)),
            st.tuples(st.just("restart"), st.just(0)),
            st.tuples(st.just("clock"), st.integers(-10_000, 10_000)),
            st.tuples(st.just("delete"), st.just(0)),
            st.tuples(st.just("compact"), st.just(0)),
        ),
        min_size=3,
        max_size=20,
    )
)
def test_offsets_and_ids_grow_over_restarts_deletes_and_clocks_that_are_set_back(steps: list[tuple[str, int]]) -> None:
    """Every offset, and every id, is greater than all that anybody was told before."""

    async def scenario(directory: Path) -> None:
        clock = StoreClock()
        told: list[str] = []
        event_ids: list[str] = []
        session_ids: list[str] = []
        remaining = list(steps)
        while remaining:
            async with sqlite(clock, directory) as store:
                story = Story(store.ids.new("ses"))
                session_ids.append(story.id)
                told.append((await store.append(story.id, [story.created()])).offset)
                event_ids.append(event_id((await log(store))[-1].data))
                while remaining:
                    action, number = remaining.pop(0)
                    match action:
                        case "append":
                            for _ in range(number):
                                told.append((await store.append(story.id, [story.status()])).offset)
                                event_ids.append(event_id((await log(store))[-1].data))
                        case "clock":
                            clock.now_ms += number
                        case "delete":
                            told.append((await store.append(story.id, [story.deleted()])).offset)
                            event_ids.append(event_id((await log(store))[-1].data))
                            story = Story(store.ids.new("ses"))
                            session_ids.append(story.id)
                            told.append((await store.append(story.id, [story.created()])).offset)
                            event_ids.append(event_id((await log(store))[-1].data))
                        case "compact":
                            await store.compact(closed_before_ms=clock.now_ms + 1, records_max=100)
                        case _:
                            break
        assert told == sorted(set(told))
        assert event_ids == sorted(set(event_ids))
        assert session_ids == sorted(set(session_ids), reverse=True), "session ids fall, so that the newest is first"

    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as directory:
        asyncio.run(scenario(Path(directory)))


@settings(max_examples=15)
@given(before=st.integers(0, 5), lost=st.integers(1, 30), pause_ms=st.integers(1, 100))
def test_offsets_grow_over_the_restore_of_an_older_copy(before: int, lost: int, pause_ms: int) -> None:
    """A client that was told an offset which the restore lost still gets everything that is recorded after it."""

    async def scenario(directory: Path, copy: Path) -> None:
        clock, story = StoreClock(NOW_MS), Story()
        async with sqlite(clock, directory) as store:
            await store.append(story.id, [story.created(), *(story.status() for _ in range(before))])
        shutil.copytree(directory, copy)
        clock.now_ms += pause_ms
        async with sqlite(clock, directory) as store:
            for _ in range(lost):
                await store.append(story.id, [story.todo("lost")])
            told = store.head()
        clock.now_ms += pause_ms
        async with sqlite(clock, copy) as store:
            subscription = store.subscribe(ALL, after=told)
            restored = await store.append(story.id, [story.todo("new")])
            assert restored.offset > told
            assert [record.offset for record in await anext(subscription)] == [restored.offset]

    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as directory:
        asyncio.run(scenario(Path(directory, "data"), Path(directory, "copy")))


@settings(max_examples=40)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 3)),
            st.tuples(st.sampled_from(["restart", "upkeep", "delete"]), st.just(0)),
            st.tuples(st.just("clock"), st.sampled_from([-10_000, -1, 1, 2_000, 10_000])),
        ),
        min_size=3,
        max_size=20,
    )
)
@example([("append", 1), ("clock", 2_000), ("upkeep", 0), ("clock", -10_000), ("restart", 0), ("append", 1)])
@example([("append", 1), ("delete", 0), ("upkeep", 0), ("clock", -10_000), ("restart", 0), ("append", 1)])
def test_offsets_of_a_stream_grow_whatever_is_removed_and_restarted_under_whatever_clock(
    steps: list[tuple[str, int]],
) -> None:
    """What is appended is read by whoever reads on from any place that was told before, in any life of the path."""

    async def scenario(directory: Path) -> None:
        clock, told, remaining = StoreClock(), [0], list(steps)
        command = Create(path="s", content_type="text/plain", retention=Retention(seconds=1))
        while remaining:
            async with sqlite(clock, directory) as store:
                streams = store.byte_streams
                await streams.create(command)
                while remaining:
                    action, number = remaining.pop(0)
                    match action:
                        case "append":
                            for _ in range(number):
                                appended = await streams.append(Append(path="s", content_type="text/plain", data=b"x"))
                                page = await streams.read("s", after=told[-1], bytes_max=100)
                                assert (page.data, page.next) == (b"x", appended.stream.tail)
                                told.append(appended.stream.tail)
                        case "clock":
                            clock.now_ms += number
                        case "upkeep":
                            await streams.upkeep()
                        case "delete":
                            await streams.delete("s")
                            told.append((await streams.create(command)).stream.id)
                        case _:
                            break
                assert [difference async for difference in store.verify()] == []
        assert told == sorted(set(told))

    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as directory:
        asyncio.run(scenario(Path(directory)))


@on_every_backend
async def test_a_clock_from_another_age_does_not_use_up_the_offsets(open_store: OpenStore) -> None:
    """An offset has sixteen digits, whatever the clock says for a moment."""
    clock, story = StoreClock(), Story()
    async with open_store(clock) as store:
        assert isinstance(store, MemoryStore | SqliteStore)
        streams = store.byte_streams
        await store.append(story.id, [story.created()])
        await streams.create(Create(path="s", content_type="text/plain"))
        append = Append(path="s", content_type="text/plain", data=b"x")
        for now_ms in (NOW_MS, 10**14, -(10**14), NOW_MS + 1):
            clock.now_ms = now_ms
            tail = (await streams.append(append)).stream.tail
            offset = (await store.append(story.id, [story.status()])).offset
            assert len(str(tail)) == 16
            assert offset.endswith("_0000000000000000")
