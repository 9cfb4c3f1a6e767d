"""A subscriber from any offset sees each later event once, in order, over the catch-up/live handover."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.offsets import BEGINNING, Offset
from holdfast.core.store import ALL, DirectoryScope, Recorded, Scope, SessionScope, SessionStore
from holdfast.storage.tail import RECORD_OVERHEAD_BYTES
from holdfast.testing.stories import Story
from tests.properties.stores import OpenStore, on_every_backend

STORIES = [Story("ses_a", directory="/one"), Story("ses_b", directory="/one"), Story("ses_c", directory="/two")]
SCOPES: list[Scope] = [
    ALL,
    DirectoryScope("/one"),
    DirectoryScope("/two"),
    SessionScope("ses_a"),
    SessionScope("ses_c"),
]
TOO_LONG_SECONDS = 30

# What happens, one after the other: an append by one of the sessions (of so many events, begun but not waited for), a
# reader of a scope that joins (from now, from the beginning, or from a record), a reader that takes a batch, a pause.
actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("append"), st.integers(0, 2), st.integers(1, 4)),
        st.tuples(st.just("join"), st.integers(0, len(SCOPES) - 1), st.integers(-2, 20)),
        st.tuples(st.just("take"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("give up"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("pause"), st.integers(0, 5), st.just(0)),
        st.tuples(st.just("settle"), st.just(0), st.just(0)),
    ),
    min_size=5,
    max_size=60,
)


class Reader:
    """Takes a batch whenever it is told to, and waits in between."""

    def __init__(self, store: SessionStore, scope: Scope, after: Offset | None) -> None:
        self.scope = scope
        self.after = store.head() if after is None else after
        self.subscription = store.subscribe(scope, after=after)
        self.found: list[Recorded] = []
        self.taking: asyncio.Task[None] | None = None

    async def _take(self) -> None:
        self.found += await anext(self.subscription)

    def take(self) -> None:
        if self.taking is None or self.taking.done():
            self.taking = asyncio.create_task(self._take())

    async def give_up(self) -> None:
        """Cancelled while it waits, as a client that goes away or a timeout does it."""
        if self.taking is not None:
            self.taking.cancel()
            await asyncio.wait([self.taking])

    async def take_up_to(self, last: Recorded) -> None:
        while not self.found or self.found[-1].offset < last.offset:
            self.take()
            assert self.taking is not None
            await self.taking


@on_every_backend
@settings(max_examples=60)
@given(
    actions=actions,
    tail_bytes_max=st.sampled_from([1, 3 * (RECORD_OVERHEAD_BYTES + 150), 1 << 20]),
    page_records=st.sampled_from([1, 2, 1000]),
)
def test_a_subscriber_sees_each_later_event_once_and_in_order(
    open_store: OpenStore, actions: list[tuple[str, int, int]], tail_bytes_max: int, page_records: int
) -> None:
    """Whatever the speed of the readers, the moment at which they join, the offset they join from, how often they are
    cancelled, and however little the memory between disk and readers holds."""

    async def scenario() -> None:
        async with open_store(tail_bytes_max=tail_bytes_max, page_records=page_records) as store:
            for story in STORIES:
                await store.append(story.id, [story.created()])
            readers: list[Reader] = []
            appends: list[asyncio.Task[object]] = []
            for action, which, number in actions:
                match action:
                    case "append":
                        story = STORIES[which]
                        events = [story.todo(f"{len(appends)}.{n}") for n in range(number)]
                        appends.append(asyncio.ensure_future(store.append(story.id, events)))
                    case "join":
                        known = await store.read(ALL, after=BEGINNING)
                        after = (
                            None if number == -2 else BEGINNING if number == -1 else known[number % len(known)].offset
                        )
                        readers.append(Reader(store, SCOPES[which], after))
                    case "take" if readers:
                        readers[which % len(readers)].take()
                    case "give up" if readers:
                        await readers[which % len(readers)].give_up()
                    case "settle":
                        await asyncio.gather(*appends)
                    case _:
                        for _ in range(which):
                            await asyncio.sleep(0)
            await asyncio.gather(*appends)
            for story in STORIES:
                await store.append(story.id, [story.todo("the end")])

            whole = await store.read(ALL, after=BEGINNING, limit=1_000_000)
            async with asyncio.timeout(TOO_LONG_SECONDS):
                for reader in readers:
                    expected = [
                        record for record in whole if record.offset > reader.after and is_in(reader.scope, record)
                    ]
                    await reader.take_up_to(expected[-1])
                    assert reader.found == expected

    asyncio.run(scenario())


def is_in(scope: Scope, record: Recorded) -> bool:
    match scope:
        case SessionScope():
            return record.session_id == scope.session_id
        case DirectoryScope():
            return record.directory == scope.directory
        case _:
            return True
