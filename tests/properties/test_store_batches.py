"""Whatever shares a commit, each gets the answer that it would get alone, after those before it; and nothing stops the store."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from holdfast.core.errors import HoldfastError
from holdfast.core.streams import Append, Create, Page, Producer, Retention, Stream
from holdfast.storage.memory import MemoryStore
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.event_strategies import appends, beginning
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.stories import NOW_MS, Story
from tests.properties.stores import memory, sqlite

A, B = Story("ses_a"), Story("ses_b", directory="/elsewhere")
PATHS = ("a", "b", "c")
KINDS = ("text/plain", "application/json")

Store = MemoryStore | SqliteStore


class Step(NamedTuple):
    """`do` is called with the store, and with the positions that were answered so far."""

    name: str
    do: Callable[[Any, Sequence[int]], Awaitable[object]]


def place(told: Sequence[int], choice: int | None) -> int | None:
    """One of the places that somebody was told, or one beyond all of them."""
    return None if choice is None else [0, *told, 1 << 52][choice % (len(told) + 2)]


def data_of(kind: str | None) -> bytes:
    return b'{"x":[1]},2,' if kind == "application/json" else b"text"


def create(
    path: str,
    kind: str | None,
    source: str | None,
    at: int | None,
    sub_offset: int,
    closed: bool,
    ttl_seconds: int | None,
    retention: Retention | None,
    filled: bool,
) -> Step:
    def do(store: Store, told: Sequence[int]) -> Awaitable[object]:
        fork_at = place(told, at) if source is not None else None
        return store.byte_streams.create(
            Create(
                path=path,
                content_type=kind,
                data=data_of(kind) if filled else b"",
                closed=closed,
                ttl_seconds=ttl_seconds,
                retention=retention,
                source_path=source,
                fork_at=fork_at,
                sub_offset=sub_offset if fork_at is not None else 0,
            )
        )

    return Step(f"create {path} {kind} from {source} at {at}+{sub_offset} {closed=} {ttl_seconds=} {retention}", do)


def append(
    path: str, kind: str, close: bool, seq: str | None, producer: Producer | None, expected: int | None, filled: bool
) -> Step:
    def do(store: Store, told: Sequence[int]) -> Awaitable[object]:
        return store.byte_streams.append(
            Append(
                path=path,
                content_type=kind,
                data=data_of(kind) if filled or not close else b"",
                close=close,
                seq=seq,
                producer=producer,
                expected_tail=place(told, expected),
            )
        )

    return Step(f"append {path} {kind} {close=} {seq=} {producer} {expected=}", do)


def delete(path: str) -> Step:
    return Step(f"delete {path}", lambda store, told: store.byte_streams.delete(path))


def append_events(story: Story, events: list[Any], key: str | None, expected: int | None) -> Step:
    return Step(
        f"{story.id} {[event.type for event in events]} {key=} {expected=}",
        lambda store, told: store.append(story.id, events, key=key, expected=expected),
    )


def claim(story: Story, owner: str) -> Step:
    return Step(
        f"claim {story.id} {owner}", lambda store, told: store.claim(story.id, owner, now_ms=NOW_MS, ttl_ms=1000)
    )


# All at once: of several, a backend may take any first.
COMPACT = Step("compact", lambda store, told: store.compact(closed_before_ms=NOW_MS + 10**9, records_max=1000))
FORGET = Step("forget keys", lambda store, told: store.forget_keys(before_ms=NOW_MS + 10**9, keys_max=1000))

paths, kinds = st.sampled_from(PATHS), st.sampled_from(KINDS)
places = st.none() | st.integers(0, 20)
retentions = st.none() | st.builds(
    Retention, records=st.none() | st.integers(1, 2), bytes=st.none() | st.integers(1, 20), seconds=st.just(5)
)
producers = st.none() | st.builds(Producer, st.sampled_from("pq"), st.integers(0, 1), st.integers(0, 2))
stories = st.sampled_from([A, A, B])


def session_steps(story: Story) -> SearchStrategy[Step]:
    return st.builds(
        append_events,
        st.just(story),
        appends(story, deletions=True) | st.just(beginning(story)),
        st.sampled_from([None, None, "k", "l"]),
        st.sampled_from([None, None, None, 0, 17]),
    )


steps = st.one_of(
    st.builds(
        create,
        paths,
        st.none() | kinds,
        st.none() | paths,
        places,
        st.sampled_from([0, 0, 1, 2, 9]),
        st.sampled_from([False, False, True]),
        st.sampled_from([None, None, 0, 5]),
        retentions,
        st.booleans(),
    ),
    st.builds(
        append,
        paths,
        kinds,
        st.sampled_from([False, False, False, True]),
        st.sampled_from([None, None, "1", "2"]),
        producers,
        places,
        st.booleans(),
    ),
    st.builds(append, paths, kinds, st.just(False), st.none(), st.none(), st.none(), st.just(True)),
    st.builds(delete, paths),
    stories.flatmap(session_steps),
    st.builds(claim, stories, st.sampled_from("xy")),
    st.sampled_from([COMPACT, FORGET]),
)


class Batch(NamedTuple):
    """`later_ms`: how much later than the one before. `upkeep`: after it."""

    steps: list[Step]
    later_ms: int
    upkeep: bool


batches = st.lists(
    st.builds(Batch, st.lists(steps, min_size=1, max_size=8), st.sampled_from([0, 1, 3000, 6000]), st.booleans()),
    min_size=1,
    max_size=8,
)


async def outcome(step: Awaitable[object]) -> object:
    """What a caller sees of it. Leases have tokens of their own in each store."""
    try:
        found = await step
    except HoldfastError as error:
        return type(error), error.message
    return type(found).__name__ if type(found).__name__ == "Lease" else found


def note(told: list[int], outcomes: Sequence[object]) -> None:
    for found in outcomes:
        stream = getattr(found, "stream", None)
        if isinstance(stream, Stream):
            told.append(stream.tail)


async def differences(store: Store) -> list[object]:
    return [difference async for difference in store.verify()]


async def contents(store: Store) -> list[object]:
    found: list[object] = []
    for path in PATHS:
        found.append(await outcome(store.byte_streams.head(path)))
        page = await outcome(store.byte_streams.read(path, after=0, bytes_max=1 << 20))
        found.append((page.next, page.data, page.at_tail, page.at_end) if isinstance(page, Page) else page)
    return found


@settings(max_examples=40)
@given(batches=batches)
@example(
    batches=[
        Batch([create("a", "text/plain", None, None, 0, False, 5, None, False)], 0, False),
        Batch([append("a", "text/plain", False, None, None, None, True)], 1, True),
    ]
)
@example(
    batches=[
        Batch([append_events(A, beginning(A), "k", None)], 0, False),
        Batch(
            [append_events(A, [A.deleted()], None, None), COMPACT, append_events(A, beginning(A), "k", None)], 0, False
        ),
    ]
)
def test_whatever_shares_a_commit_gets_the_answer_it_would_get_alone(batches: list[Batch]) -> None:
    """In SQLite in one commit, in memory one after the other: the answers are the same, and so is what can be read then."""

    async def scenario() -> None:
        clock, told = StoreClock(), list[int]()
        async with memory(clock) as one, sqlite(clock) as other:
            assert isinstance(one, MemoryStore)
            for batch in batches:
                clock.now_ms += batch.later_ms
                expected = [await outcome(step.do(one, told)) for step in batch.steps]
                found = await asyncio.gather(*(outcome(step.do(other, told)) for step in batch.steps))
                for step, mine, theirs in zip(batch.steps, expected, found, strict=True):
                    assert mine == theirs, step.name
                note(told, found)
                if batch.upkeep:
                    await one.byte_streams.upkeep()
                    await other.byte_streams.upkeep()
                assert await contents(one) == await contents(other)
            assert await differences(other) == []

    asyncio.run(scenario())
