"""Upkeep: compaction that nobody can tell from the state, verification, closing."""

import asyncio

import pytest

from holdfast.core.errors import Unavailable
from holdfast.core.events import Event
from holdfast.core.fold import Fold
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import SessionScope, SessionStore
from holdfast.testing.store_conformance.base import StoreClock, StoreSuite, assert_state_is, collect, events, log, types
from holdfast.testing.stories import NOW_MS, Story

EVERYTHING = 1_000_000


async def compact(store: SessionStore, before_ms: int = NOW_MS + 1) -> int:
    return await store.compact(closed_before_ms=before_ms, records_max=EVERYTHING)


class Upkeep(StoreSuite):
    async def test_the_deltas_of_a_closed_part_go_away(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), *(story.delta("prt_1", "x") for _ in range(10))])
        assert await compact(store) == 0, "the part is still open"
        await store.append(story.id, [story.part(story.text("prt_1", "x" * 10, closed=True)), story.status()])

        assert await compact(store) == 10
        assert await compact(store) == 0
        assert types(await log(store))[-3:] == ["message.part.updated", "message.part.updated", "session.status"]
        await assert_state_is(Fold(events(await log(store))), store, story.id)

    async def test_updates_of_a_running_tool_go_away_when_it_ended(self, store: SessionStore) -> None:
        story = Story()
        running: list[Event] = [story.part(story.tool("prt_2", "running", "." * n)) for n in range(5)]
        await store.append(story.id, [*story.streaming(), story.part(story.tool("prt_2", "pending")), *running])
        assert await compact(store) == 0
        await store.append(story.id, [story.part(story.tool("prt_2", "completed", "done"))])

        assert await compact(store) == 5
        await assert_state_is(Fold(events(await log(store))), store, story.id)

    async def test_the_record_that_closed_a_part_stays_when_the_part_is_edited(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), story.delta("prt_1", "x"), story.delta("prt_1", "y")])
        for text in ("xy", "edited", "edited again"):
            await store.append(story.id, [story.part(story.text("prt_1", text, closed=True))])

        assert await compact(store) == 2
        assert types(await log(store))[-4:] == ["message.part.updated"] * 4
        await assert_state_is(Fold(events(await log(store))), store, story.id)

    async def test_old_idempotency_keys_are_forgotten_in_batches(self, store: SessionStore, clock: StoreClock) -> None:
        story = Story()
        for day in range(4):
            clock.now_ms = NOW_MS + day * 1000
            await store.append(story.id, story.prompted() if day == 0 else [story.status()], key=f"k{day}")

        assert await store.forget_keys(before_ms=NOW_MS - 1, keys_max=10) == 0
        assert await store.forget_keys(before_ms=NOW_MS + 3000, keys_max=2) == 2
        assert await store.forget_keys(before_ms=NOW_MS + 3000, keys_max=2) == 1
        assert await store.forget_keys(before_ms=NOW_MS + 3000, keys_max=2) == 0
        assert (await store.append(story.id, [story.status()], key="k3")).duplicate
        assert not (await store.append(story.id, [story.status()], key="k0")).duplicate
        assert [difference async for difference in store.verify()] == []

    async def test_a_young_part_is_left_alone(self, store: SessionStore, clock: StoreClock) -> None:
        story = Story()
        for number in range(3):
            clock.now_ms = NOW_MS + number
            part = f"prt_{number}"
            await store.append(story.id, story.streaming(part) if number == 0 else [story.part(story.text(part))])
            await store.append(story.id, [story.delta(part, "x"), story.part(story.text(part, "x", closed=True))])

        assert await compact(store, NOW_MS) == 0
        assert await compact(store, NOW_MS + 2) == 2
        assert await compact(store, NOW_MS + 3) == 1

    async def test_parts_that_are_removed_leave_nothing_to_compact_but_their_beginning(
        self, store: SessionStore
    ) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), story.part(story.reasoning("prt_2"))])
        await store.append(story.id, [story.delta(part, "x") for part in ("prt_1", "prt_2", "prt_1", "prt_2")])
        await store.append(story.id, [story.part_removed("prt_1"), story.removed("msg_a1")])
        await store.append(story.id, [story.message(story.assistant()), story.part(story.text("prt_1"))])
        await store.append(story.id, [story.delta("prt_1", "kept")])

        assert await compact(store) == 4
        await assert_state_is(Fold(events(await log(store))), store, story.id)
        assert (await store.message(story.id, "msg_a1")).parts == (story.text("prt_1", "kept"),)

    async def test_of_a_deleted_session_only_the_deletion_stays(self, store: SessionStore) -> None:
        gone, stays = Story("ses_gone"), Story("ses_stays")
        for story in (gone, stays):
            await store.append(story.id, [*story.streaming(), *(story.delta("prt_1", "x") for _ in range(5))])
        before = await log(store, SessionScope(gone.id))
        await store.append(gone.id, [gone.deleted()])

        assert await compact(store) == 13
        assert types(await log(store, SessionScope(gone.id))) == ["session.deleted"]
        assert len(await log(store, SessionScope(stays.id))) == 13
        assert [difference async for difference in store.verify()] == []
        late = store.subscribe(SessionScope(gone.id), after=before[3].offset)
        assert types(await collect(late, 1)) == ["session.deleted"]

    async def test_batches_are_as_small_as_asked(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), story.part(story.reasoning("prt_2"))])
        await store.append(story.id, [story.delta(part, "x") for _ in range(5) for part in ("prt_1", "prt_2")])
        await store.append(story.id, [story.part(story.text("prt_1", "x" * 5, closed=True))])
        await store.append(story.id, [story.part(story.reasoning("prt_2", "x" * 5, closed=True))])
        sizes: list[int] = []
        while not sizes or sizes[-1]:
            sizes.append(await store.compact(closed_before_ms=NOW_MS + 1, records_max=3))
            assert [difference async for difference in store.verify()] == []

        assert sizes == [3, 3, 3, 1, 0]

    async def test_a_fold_from_any_offset_ends_in_the_same_state_after_compaction(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.streaming())
        for event in (
            story.delta("prt_1", "a"),
            story.part(story.tool("prt_2", "pending")),
            story.delta("prt_1", "b"),
            story.part(story.tool("prt_2", "running")),
            story.part(story.reasoning("prt_3")),
            story.part(story.text("prt_1", "ab!")),
            story.delta("prt_1", "c"),
            story.part(story.text("prt_1", "ab!c", closed=True)),
            story.delta("prt_3", "open"),
            story.part(story.tool("prt_2", "running", "out")),
            story.part(story.tool("prt_2", "error", "failed")),
        ):
            await store.append(story.id, [event])
        before = events(await log(store))
        offsets = [record.offset for record in await log(store)]
        whole = Fold(before)
        assert await compact(store) == 6

        for number, offset in enumerate([BEGINNING, *offsets]):
            resumed = Fold(before[:number])
            for event in events(await log(store, after=offset)):
                resumed.apply(event)
            assert resumed.messages() == whole.messages()
            assert resumed.turn_state() == whole.turn_state()
        await assert_state_is(whole, store, story.id)

    async def test_appends_and_compaction_go_on_together(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.streaming("prt_0"))

        async def write() -> None:
            for number in range(10):
                part = f"prt_{number}"
                if number:
                    await store.append(story.id, [story.part(story.text(part))])
                await asyncio.gather(*(store.append(story.id, [story.delta(part, "x")]) for _ in range(10)))
                await store.append(story.id, [story.part(story.text(part, "x" * 10, closed=True))])

        writer, removed = asyncio.create_task(write()), 0
        while removed < 100:
            removed += await store.compact(closed_before_ms=NOW_MS + 1, records_max=7)
            await asyncio.sleep(0)
        await writer

        assert await compact(store) == 0
        assert [part for message in await store.history(story.id) for part in message.parts[1:]]
        await assert_state_is(Fold(events(await log(store))), store, story.id)

    async def test_a_closed_store_accepts_nothing(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        await store.close()
        await store.close()
        with pytest.raises(Unavailable):
            await store.append(story.id, [story.status()])
