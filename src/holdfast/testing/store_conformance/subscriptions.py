"""Subscriptions: every later event once, in order, over the handover from disk to memory."""

import asyncio

import pytest

from holdfast.core.errors import NotFound
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL, DirectoryScope, Recorded, Scope, SessionScope, SessionStore
from holdfast.testing.store_conformance.base import TOO_LONG_SECONDS, StoreSuite, collect, collect_all, log, types
from holdfast.testing.stories import Story

DELTAS = 40


class Subscriptions(StoreSuite):
    async def test_a_subscriber_gets_what_is_recorded_and_then_what_comes(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.prompted())
        subscription = store.subscribe(ALL, after=BEGINNING)
        assert len(await collect(subscription, 4)) == 4
        await store.append(story.id, [story.started()])

        assert types(await collect(subscription, 1)) == ["turn.started"]

    async def test_from_now_is_when_it_is_called(self, store: SessionStore) -> None:
        """And not when somebody starts to iterate."""
        story = Story()
        await store.append(story.id, [story.created()])
        subscription = store.subscribe(ALL)
        await store.append(story.id, [story.status()])
        await store.append(story.id, [story.todo("a")])

        assert types(await collect(subscription, 2)) == ["session.status", "todo.updated"]

    async def test_a_subscriber_gets_the_events_of_its_scope_only(self, store: SessionStore) -> None:
        a, b = Story("ses_a", directory="/one"), Story("ses_b", directory="/one")
        c = Story("ses_c", directory="/two")
        scopes: list[Scope] = [ALL, DirectoryScope("/one"), DirectoryScope("/two"), SessionScope("ses_b")]
        live = [store.subscribe(scope) for scope in scopes]
        for story in (a, b, c):
            await store.append(story.id, [story.created()])
        await asyncio.gather(*(store.append(story.id, [story.status()]) for story in (c, b, a)))
        late = [store.subscribe(scope, after=BEGINNING) for scope in scopes]

        for subscriptions in (live, late):
            found = [
                "".join(record.session_id[-1] for record in await collect(subscription, count))
                for subscription, count in zip(subscriptions, (6, 4, 2, 2), strict=True)
            ]
            assert found == ["abccba", "abba", "cc", "bb"]

    async def test_it_can_resume_from_any_offset(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), *(story.delta("prt_1", str(n)) for n in range(10))])
        records = await log(store)
        for number, record in enumerate(records[:-1]):
            resumed = await collect(
                store.subscribe(SessionScope(story.id), after=record.offset), len(records) - 1 - number
            )
            assert resumed == records[number + 1 :]

    async def test_the_subscription_of_a_session_ends_after_its_deletion(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        live = store.subscribe(SessionScope(story.id), after=BEGINNING)
        await collect(live, 1)
        everything = store.subscribe(ALL, after=BEGINNING)
        await store.append(story.id, [story.status(), story.deleted()])

        assert types(await collect_all(live)) == ["session.status", "session.deleted"]
        late = store.subscribe(SessionScope(story.id), after=BEGINNING)
        assert types(await collect_all(late)) == ["session.created", "session.status", "session.deleted"]
        assert await collect_all(store.subscribe(SessionScope(story.id))) == []
        assert len(await collect(everything, 3)) == 3

    async def test_a_session_may_be_subscribed_to_just_before_it_is_created(self, store: SessionStore) -> None:
        story = Story()
        subscription = store.subscribe(SessionScope(story.id))
        await store.append(story.id, [story.created()])
        assert types(await collect(subscription, 1)) == ["session.created"]

        with pytest.raises(NotFound):
            await anext(store.subscribe(SessionScope("ses_unknown")))

    async def test_every_subscription_ends_when_the_store_closes(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        waiting = [
            asyncio.create_task(collect_all(store.subscribe(scope)))
            for scope in (ALL, DirectoryScope(story.info.directory), SessionScope(story.id))
        ]
        await asyncio.sleep(0)
        accepted = asyncio.create_task(store.append(story.id, [story.status()]))
        await asyncio.sleep(0)
        await store.close()

        assert (await accepted).recorded == 1
        for task in waiting:
            assert types(await task) == ["session.status"], "what was accepted is told before the end"
        for scope in (ALL, SessionScope(story.id)):
            assert await collect_all(store.subscribe(scope)) == []

    async def test_a_reader_that_lags_behind_misses_and_repeats_nothing(self, narrow_store: SessionStore) -> None:
        """Readers of all speeds, while events come, with a memory that holds next to nothing."""
        store, story = narrow_store, Story()
        await store.append(story.id, story.streaming())
        scopes: list[Scope] = [ALL, SessionScope(story.id), DirectoryScope(story.info.directory)]

        async def follow(scope: Scope, pace: int) -> list[Recorded]:
            found: list[Recorded] = []
            async for batch in store.subscribe(scope, after=BEGINNING):
                found += batch
                for _ in range(pace):
                    await asyncio.sleep(0)
                if found[-1].tag.startswith("todo."):
                    break
            return found

        followers = [asyncio.create_task(follow(scope, pace)) for scope in scopes for pace in (0, 1, 7, 100)]
        for number in range(DELTAS):
            await store.append(story.id, [story.delta("prt_1", f"{number} ")])
        await store.append(story.id, [story.todo("the end")])
        records = await log(store)

        async with asyncio.timeout(TOO_LONG_SECONDS):
            for follower in followers:
                assert await follower == records

    async def test_a_reader_that_sleeps_is_outrun_and_catches_up(self, narrow_store: SessionStore) -> None:
        store, story = narrow_store, Story()
        await store.append(story.id, story.streaming())
        sleeper = store.subscribe(SessionScope(story.id))
        for number in range(DELTAS):
            await store.append(story.id, [story.delta("prt_1", f"{number} ")])

        assert [record.version for record in await collect(sleeper, DELTAS)] == [9 + number for number in range(DELTAS)]
        await store.append(story.id, [story.delta("prt_1", "end")])
        assert len(await collect(sleeper, 1)) == 1

    async def test_a_cancelled_reader_wakes_nobody_and_loses_nothing(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        subscription, other = store.subscribe(ALL), store.subscribe(ALL)
        bystander = asyncio.create_task(collect(other, 1))
        for _ in range(3):
            waiting = asyncio.create_task(collect(subscription, 1))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert not bystander.done()
        await store.append(story.id, [story.status()])

        assert types(await collect(subscription, 1)) == types(await bystander) == ["session.status"]

    async def test_a_subscriber_sees_an_event_only_once_it_can_be_read(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, story.streaming())
        subscription = store.subscribe(ALL)
        appends = asyncio.gather(*(store.append(story.id, [story.delta("prt_1", str(n))]) for n in range(20)))
        seen = 0
        while seen < 20:
            batch = await anext(subscription)
            seen += len(batch)
            assert store.head() >= batch[-1].offset
            assert (await log(store))[: 8 + seen][-1] == batch[-1]
        await appends
