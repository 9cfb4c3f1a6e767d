"""Folding the log gives the stored state, at every offset, on every backend."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import HoldfastError
from holdfast.core.events import Event
from holdfast.core.fold import Fold
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import SessionScope, SessionStore
from holdfast.testing.event_strategies import Model, appends, beginning
from holdfast.testing.store_conformance.base import assert_state_is, events, log
from holdfast.testing.stories import NOW_MS, Story
from tests.properties.stores import OpenStore, memory, on_every_backend, sqlite

A, B = Story("ses_a"), Story("ses_b", directory="/elsewhere")
COMPACT = "compact"

Steps = list[tuple[Story, list[Event]] | str]

steps = st.lists(
    st.one_of(
        st.tuples(st.just(A), appends(A, deletions=True)),
        st.tuples(st.just(A), appends(A)),
        st.tuples(st.just(B), appends(B)),
        st.just(COMPACT),
    ),
    min_size=4,
    max_size=25,
)


async def outcome(store: SessionStore, story: Story, events: list[Event]) -> int | type[HoldfastError]:
    try:
        return (await store.append(story.id, events)).recorded
    except HoldfastError as error:
        return type(error)


async def assert_log_folds_to(model: Model, store: SessionStore) -> None:
    """The stored log, whatever compaction left of it, ends in the model's state."""
    if not model.deleted:
        stored = Fold(events(await log(store, SessionScope(model.story.id))))
        assert stored.messages() == model.fold.messages()
        assert stored.turn_state() == model.fold.turn_state()
        assert stored.todos == model.fold.todos


@on_every_backend
@settings(max_examples=60)
@given(steps=steps)
def test_folding_the_log_gives_the_stored_state_at_every_offset(open_store: OpenStore, steps: Steps) -> None:
    """Whatever events come, late, twice and wrong ones too, in one append or several, with compaction at any time: the
    store records what the reducer lets through, refuses what it refuses, and its state is the fold of its log."""

    async def scenario() -> None:
        models = {story.id: Model(story) for story in (A, B)}
        async with open_store() as store:
            for story in (A, B):
                assert await outcome(store, story, beginning(story)) == models[story.id].outcome(beginning(story))
            for step in steps:
                if isinstance(step, str):
                    await store.compact(closed_before_ms=NOW_MS + 1, records_max=3)
                    touched = list(models.values())
                else:
                    story, appended = step
                    model = models[story.id]
                    assert await outcome(store, story, appended) == model.outcome(appended)
                    touched = [model]
                for model in touched:
                    if not model.deleted:
                        await assert_state_is(model.fold, store, model.story.id)
                    await assert_log_folds_to(model, store)

    asyncio.run(scenario())


@on_every_backend
@settings(max_examples=40)
@given(steps=st.lists(appends(A), min_size=3, max_size=20), keep=st.floats(0, 1))
def test_a_fold_resumed_at_any_offset_ends_in_the_stored_state_even_after_compaction(
    open_store: OpenStore, steps: list[list[Event]], keep: float
) -> None:
    """A client that has folded the log up to some offset, and reads on after the records behind it were compacted away,
    ends where the store is."""

    async def scenario() -> None:
        async with open_store() as store:
            await store.append(A.id, beginning(A))
            for appended in steps:
                await outcome(store, A, appended)
            records = await log(store)
            known = 1 + int(keep * (len(records) - 1))
            client = Fold(events(records[:known]))
            while await store.compact(closed_before_ms=NOW_MS + 1, records_max=5):
                pass
            for event in events(await log(store, after=records[known - 1].offset)):
                client.apply(event)

            await assert_state_is(client, store, A.id)
            await assert_state_is(Fold(events(await log(store, after=BEGINNING))), store, A.id)

    asyncio.run(scenario())


@settings(max_examples=40)
@given(steps=steps)
def test_both_backends_give_the_same_answers(steps: Steps) -> None:
    """What a face would show does not depend on the backend."""

    async def answers(store: SessionStore) -> list[object]:
        for story in (A, B):
            await store.append(story.id, beginning(story))
        for step in steps:
            if not isinstance(step, str):
                await outcome(store, *step)
        pages = [await store.message_page(B.id, limit=limit) for limit in (None, 1, 2)]
        snapshot = await store.snapshot(SessionScope(B.id), changed_since_ms=0, sessions_max=9, messages_max=9)
        return [
            await store.statuses(),
            list(await store.unfinished()),
            list(await store.pending_permissions()),
            list(await store.pending_questions()),
            list(await store.directories()),
            list(await store.approvals(A.info.project_id)),
            pages,
            [session.messages for session in snapshot.sessions],
            [(record.session_id, record.version, record.tag) for record in await log(store)],
        ]

    async def scenario() -> None:
        async with memory() as one, sqlite() as other:
            assert await answers(one) == await answers(other)

    asyncio.run(scenario())
