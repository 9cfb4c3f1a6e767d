"""Appends: all or nothing, once, in order; leases."""

import asyncio
from pathlib import Path

import pytest

from holdfast.core.codec import decode
from holdfast.core.errors import Conflict, LeaseLost, NotFound, VersionConflict
from holdfast.core.events import Event
from holdfast.core.offsets import BEGINNING, parse_offset
from holdfast.core.reducer import Get
from holdfast.core.state import TODO, TodoList
from holdfast.core.store import ALL, Lease, SessionScope, SessionStore
from holdfast.testing.store_conformance.base import StoreClock, StoreSuite, collect, events, log, types
from holdfast.testing.stories import NOW_MS, Story


class Appends(StoreSuite):
    async def test_an_append_answers_the_place_of_its_last_record(self, store: SessionStore) -> None:
        story = Story()
        first = await store.append(story.id, story.prompted())
        second = await store.append(story.id, [story.started()])
        records = await log(store)

        assert (first.version, first.recorded, first.duplicate) == (4, 4, False)
        assert (second.version, second.recorded) == (5, 1)
        assert [record.version for record in records] == [1, 2, 3, 4, 5]
        assert (records[3].offset, records[4].offset) == (first.offset, second.offset)
        assert store.head() == second.offset

    async def test_offsets_are_in_the_form_that_clients_know_and_grow(self, store: SessionStore) -> None:
        assert store.head() == BEGINNING
        for number in range(3):
            story = Story(f"ses_{number}")
            await store.append(story.id, story.prompted())
        offsets = [record.offset for record in await log(store)]

        assert offsets == sorted(set(offsets))
        assert all(parse_offset(offset) > BEGINNING for offset in offsets)

    async def test_records_carry_the_wire_json_an_ascending_id_and_the_place_of_the_session(
        self, store: SessionStore
    ) -> None:
        story = Story(directory="/home/dev/here", project_id="here")
        appended: list[Event] = [*story.streaming(), story.delta("prt_1", "Hällo\n\0")]
        await store.append(story.id, appended)
        records = await log(store)
        ids = [decode(record.tag, record.data)[0] for record in records]

        assert events(records) == appended
        assert all(id.startswith("evt_") for id in ids)
        assert ids == sorted(set(ids))
        assert {(r.session_id, r.directory, r.project_id) for r in records} == {(story.id, "/home/dev/here", "here")}
        assert records[-1].tag == "message.part.delta.1"
        assert records[-1].data.startswith(b'{"id":"evt_')
        assert b'"type":"message.part.delta","properties":{"sessionID":"ses_story",' in records[-1].data

    async def test_the_first_event_of_a_session_is_its_creation(self, store: SessionStore) -> None:
        story = Story()
        for beginning in ([story.status()], [story.delta("prt_1", "x")], [], [story.status(), story.created()]):
            with pytest.raises(NotFound):
                await store.append(story.id, beginning)

        assert await log(store) == []
        assert (await store.append(story.id, [story.created()])).version == 1

    async def test_late_and_repeated_events_are_not_recorded(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.streaming())
        closed = story.text("prt_1", "Hello", closed=True)
        answer = await store.append(
            story.id, [story.part(closed), story.delta("prt_1", "late"), story.started("msg_other"), story.todo("a")]
        )
        nothing = await store.append(story.id, [story.delta("prt_1", "later still")])

        assert answer.recorded == 2
        assert types(await log(store))[-2:] == ["message.part.updated", "todo.updated"]
        assert (nothing.recorded, nothing.offset, nothing.version) == (0, answer.offset, answer.version)
        assert (await store.message(story.id, "msg_a1")).parts == (closed,)

    async def test_a_refused_append_records_nothing(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.streaming())
        before = await log(store)
        with pytest.raises(NotFound):
            await store.append(story.id, [story.todo("a"), story.delta("prt_1", "x"), story.delta("prt_unknown", "x")])
        with pytest.raises(Conflict):
            other = story.assistant("msg_a2")
            await store.append(story.id, [story.message(other), story.part(story.text("prt_1", message="msg_a2"))])

        assert await log(store) == before
        assert await store.todos(story.id) == ()
        assert len(await store.history(story.id)) == 2
        assert [difference async for difference in store.verify()] == []

    async def test_a_refused_append_leaves_its_neighbours_alone(self, store: SessionStore) -> None:
        """They may share a transaction with it."""
        story = Story()
        await store.append(story.id, story.streaming())
        results = await asyncio.gather(
            *(
                store.append(story.id, [story.delta("prt_1" if number % 3 else "prt_unknown", f"{number} ")])
                for number in range(30)
            ),
            return_exceptions=True,
        )

        assert [isinstance(result, NotFound) for result in results] == [number % 3 == 0 for number in range(30)]
        (part,) = (await store.message(story.id, "msg_a1")).parts
        assert part == story.text("prt_1", "".join(f"{number} " for number in range(30) if number % 3))

    async def test_an_event_of_another_session_is_a_defect_and_records_nothing(self, store: SessionStore) -> None:
        story, other = Story(), Story("ses_other")
        await store.append(story.id, [story.created()])
        for wrong in (other.status(), other.created()):
            with pytest.raises(AssertionError):
                await store.append(story.id, [wrong])

        assert types(await log(store)) == ["session.created"]
        await store.append(story.id, [story.status()])

    async def test_concurrent_appends_are_recorded_in_the_order_in_which_they_were_made(
        self, store: SessionStore
    ) -> None:
        story = Story()
        await store.append(story.id, story.streaming())
        answers = await asyncio.gather(
            *(store.append(story.id, [story.delta("prt_1", f"{number} ")]) for number in range(100))
        )

        assert [answer.version for answer in answers] == [9 + number for number in range(100)]
        (part,) = (await store.message(story.id, "msg_a1")).parts
        assert part == story.text("prt_1", "".join(f"{number} " for number in range(100)))

    async def test_a_cancelled_append_still_commits(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.streaming())
        subscription = store.subscribe(SessionScope(story.id))
        cancelled = asyncio.create_task(store.append(story.id, [story.todo("a")]))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])

        assert types(await collect(subscription, 1)) == ["todo.updated"]
        assert len(await store.todos(story.id)) == 1

    # --- conditions

    async def test_an_append_that_expects_another_version_is_refused(self, store: SessionStore) -> None:
        story = Story()
        assert (await store.append(story.id, [story.created()], expected=0)).version == 1
        assert (await store.append(story.id, [story.status()], expected=1)).version == 2
        for wrong in (0, 1, 3):
            with pytest.raises(VersionConflict):
                await store.append(story.id, [story.status()], expected=wrong)
        with pytest.raises(VersionConflict):
            await store.append("ses_unknown", [Story("ses_unknown").created()], expected=1)

        assert len(await log(store)) == 2

    async def test_of_two_writers_that_expect_the_same_version_one_wins(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        results = await asyncio.gather(
            *(store.append(story.id, [story.todo(str(number))], expected=1) for number in range(10)),
            return_exceptions=True,
        )

        assert [isinstance(result, VersionConflict) for result in results].count(False) == 1
        assert len(await log(store)) == 2

    async def test_an_append_with_a_key_happens_once_and_answers_the_same_again(
        self, store: SessionStore, tmp_path: Path, clock: StoreClock
    ) -> None:
        story = Story()
        first = await store.append(story.id, story.prompted(), key="prompt:1")
        await store.append(story.id, [story.started()])
        again = await store.append(story.id, [story.todo("other")], key="prompt:1")
        conflicting = await store.append(story.id, [story.todo("other")], key="prompt:1", expected=0)
        decided = await store.append(story.id, lambda get: [story.todo("other")], key="prompt:1")

        for answer in (again, conflicting, decided):
            assert answer.duplicate
            assert (answer.offset, answer.version, answer.recorded) == (first.offset, first.version, first.recorded)
        assert len(await log(store)) == 5

    async def test_concurrent_appends_with_one_key_happen_once(self, store: SessionStore) -> None:
        story = Story()
        answers = await asyncio.gather(*(store.append(story.id, [story.created()], key="new") for _ in range(10)))

        assert [answer.duplicate for answer in answers] == [False] + [True] * 9
        assert len({answer.offset for answer in answers}) == 1
        assert len(await log(store)) == 1

    async def test_a_key_belongs_to_its_session_and_is_not_used_up_by_a_refused_append(
        self, store: SessionStore
    ) -> None:
        story, other = Story(), Story("ses_other")
        await store.append(story.id, [story.created()])
        await store.append(other.id, [other.created()], key="k")
        with pytest.raises(NotFound):
            await store.append(story.id, [story.delta("prt_unknown", "x")], key="k")

        assert (await store.append(story.id, [story.todo("a")], key="k")).recorded == 1

    async def test_a_deleted_session_takes_no_events(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.streaming())
        with pytest.raises(NotFound):
            await store.append(story.id, [story.deleted(), story.created()])
        await store.append(story.id, [story.todo("a"), story.deleted()])
        for late in ([story.created()], [story.status()], [story.delta("prt_1", "x")], []):
            with pytest.raises(NotFound):
                await store.append(story.id, late)

        assert types(await log(store))[-2:] == ["todo.updated", "session.deleted"]

    # --- decided events

    async def test_events_can_be_decided_from_the_state_they_will_meet(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])

        def count(get: Get) -> list[Event]:
            todos = get(TODO)
            assert isinstance(todos, TodoList)
            return [story.todo(*(todo.content for todo in todos.todos), str(len(todos.todos)))]

        await asyncio.gather(*(store.append(story.id, count) for _ in range(20)))

        assert [todo.content for todo in await store.todos(story.id)] == [str(number) for number in range(20)]

    async def test_a_decision_may_be_for_nothing_or_refuse(self, store: SessionStore) -> None:
        story = Story()

        def refuse(get: Get) -> list[Event]:
            raise Conflict("Not now.")

        created = await store.append(story.id, lambda get: [story.created()])
        nothing = await store.append(story.id, lambda get: [])
        with pytest.raises(Conflict, match="Not now"):
            await store.append(story.id, refuse)
        with pytest.raises(NotFound):
            await store.append("ses_unknown", lambda get: [])

        assert (nothing.recorded, nothing.offset, nothing.version) == (0, created.offset, 1)
        assert len(await log(store)) == 1

    # --- leases

    async def test_a_lease_is_one_owners_until_it_expires(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        lease = await store.claim(story.id, "a", now_ms=NOW_MS, ttl_ms=100)
        assert lease is not None

        assert (lease.session_id, lease.owner) == (story.id, "a")
        assert await store.claim(story.id, "b", now_ms=NOW_MS + 99, ttl_ms=100) is None
        assert await store.claim(story.id, "a", now_ms=NOW_MS + 99, ttl_ms=100) == lease, "a renewal"
        assert await store.claim(story.id, "b", now_ms=NOW_MS + 198, ttl_ms=100) is None, "it was renewed"
        taken = await store.claim(story.id, "b", now_ms=NOW_MS + 199, ttl_ms=100)
        assert taken is not None
        assert taken.token > lease.token

    async def test_an_append_under_a_lease_that_is_not_the_newest_is_refused(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        old = await store.claim(story.id, "a", now_ms=NOW_MS, ttl_ms=0)
        assert old is not None
        await store.append(story.id, [story.status()], lease=old)
        new = await store.claim(story.id, "b", now_ms=NOW_MS, ttl_ms=100)
        with pytest.raises(LeaseLost):
            await store.append(story.id, [story.todo("a")], lease=old)
        with pytest.raises(LeaseLost):
            await store.append(story.id, [story.todo("a")], lease=Lease(story.id, "c", 0))
        await store.append(story.id, [story.todo("b")], lease=new)
        await store.append(story.id, [story.todo("b")])

        assert [todo.content for todo in await store.todos(story.id)] == ["b"]

    async def test_a_released_lease_can_be_claimed_at_once(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        old = await store.claim(story.id, "a", now_ms=NOW_MS, ttl_ms=1_000_000)
        assert old is not None
        await store.release(old)
        new = await store.claim(story.id, "b", now_ms=NOW_MS, ttl_ms=1_000_000)
        assert new is not None
        await store.release(old)

        assert new.token > old.token
        assert await store.claim(story.id, "c", now_ms=NOW_MS, ttl_ms=1) is None, "the old one gives nothing back"

    async def test_there_is_no_lease_of_a_session_that_is_not_there(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created(), story.deleted()])
        for session_id in (story.id, "ses_unknown"):
            with pytest.raises(NotFound):
                await store.claim(session_id, "a", now_ms=NOW_MS, ttl_ms=1)

        assert (await store.read(ALL, after=BEGINNING))[-1].tag == "session.deleted.1"
