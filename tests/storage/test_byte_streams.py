"""What the loop knows of byte streams, and the writing thread looks at meanwhile."""

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from holdfast.core.errors import Invalid, StorageError, Unavailable
from holdfast.core.offsets import to_offset
from holdfast.core.streams import (
    Append,
    Create,
    Page,
    Producer,
    Retention,
    Stream,
    StreamAppended,
    StreamGone,
    StreamNotFound,
)
from holdfast.storage import byte_streams
from holdfast.storage.byte_streams import PAGES_BYTES_MAX, PAGES_OF_STREAM_BYTES_MAX, Access, Backend, Streams
from holdfast.storage.sqlite import SqliteStore
from holdfast.storage.sqlite import byte_streams as sqlite_byte_streams
from holdfast.storage.sqlite.byte_streams import SqliteByteStreams
from holdfast.storage.sqlite.database import Database

NOW_MS = 1_700_000_000_000


class Upkeep:
    """A backend that only hears what was touched."""

    def __init__(self) -> None:
        self.touched: dict[int, int] = {}

    async def upkeep(self, now_ms: int, touched: dict[int, int]) -> None:
        self.touched = touched


async def test_what_was_read_counts_as_read_at_every_moment_of_the_upkeep() -> None:
    """The writing thread may decide in any of them whether a stream is expired, seen here whenever the clock is asked."""
    stream = Stream(id=1, path="s", content_type="text/plain", created_ms=0, touched_ms=0, ttl_seconds=60)
    seen: list[int] = []

    def clock_ms() -> int:
        if looking:
            seen.append(access.newest_ms(stream))
        return NOW_MS

    looking: list[bool] = []
    access, backend = Access(clock_ms), Upkeep()
    access.touch(stream, NOW_MS - 5)
    access.watched[2] = 1
    looking.append(True)

    await Streams(cast(Backend, backend), access).upkeep()

    assert backend.touched == {1: NOW_MS - 5, 2: NOW_MS}
    assert set(seen) == {NOW_MS - 5}
    assert access.touched == {}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = await SqliteStore.open(tmp_path, now_ms=lambda: NOW_MS, entropy=os.urandom)
    await store.byte_streams.create(Create(path="s", content_type="text/plain"))
    yield store
    await store.close()


async def watching(streams: Streams, count: int, times: int, told: list[str]) -> list[asyncio.Task[list[bytes]]]:
    """So many who follow the stream for so long, each when it waits for the first time."""

    async def follow(name: str) -> list[bytes]:
        watch = await streams.watch("s", after=0)
        seen: list[bytes] = []
        waiting.release()
        while len(b"".join(seen)) < times:
            page = await watch.next(bytes_max=1000)
            assert page is not None
            seen.append(page.data)
            told.append(name)
        watch.close()
        return seen

    waiting = asyncio.Semaphore(0)
    tasks = [asyncio.ensure_future(follow(f"watcher {number}")) for number in range(count)]
    for _ in tasks:
        await waiting.acquire()
    await asyncio.sleep(0)
    return tasks


async def test_who_appends_is_answered_before_those_who_are_woken_by_it(store: SqliteStore) -> None:
    told: list[str] = []
    tasks = await watching(store.byte_streams, 20, 1, told)

    async def append() -> None:
        await store.byte_streams.append(Append(path="s", content_type="text/plain", data=b"1"))
        told.append("writer")

    await append()
    await asyncio.gather(*tasks)
    assert told[0] == "writer"
    assert len(told) == 21


async def test_many_who_are_woken_at_once_leave_turns_of_the_loop_to_others(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_streams, "WAKES_MAX", 3)
    told: list[str] = []
    tasks = await watching(store.byte_streams, 20, 1, told)
    await store.byte_streams.append(Append(path="s", content_type="text/plain", data=b"1"))
    seen = [0]
    while len(told) < 20:
        await asyncio.sleep(0)
        seen.append(len(told))
    await asyncio.gather(*tasks)
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 3


async def test_those_who_are_woken_in_turns_miss_nothing_that_is_appended_meanwhile(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor are they kept from it by one who goes, or by others who are quicker to come back."""
    monkeypatch.setattr(byte_streams, "WAKES_MAX", 2)
    tasks = await watching(store.byte_streams, 15, 8, [])
    for number in range(8):
        await store.byte_streams.append(Append(path="s", content_type="text/plain", data=b"%d" % number))
        if number == 2:
            tasks.pop().cancel()
    async with asyncio.timeout(60):
        assert [b"".join(seen) for seen in await asyncio.gather(*tasks)] == [b"01234567"] * 14


async def test_a_page_too_large_to_be_kept_is_shared_while_somebody_has_it(store: SqliteStore) -> None:
    data = b"x" * (PAGES_BYTES_MAX // 4 + 1)
    await store.byte_streams.append(Append(path="s", content_type="text/plain", data=data))

    async def read() -> Page:
        return await store.byte_streams.read("s", after=0, bytes_max=1000)

    first = await read()
    assert (await read()).data is first.data
    await store.byte_streams.append(Append(path="s", content_type="text/plain", data=b"y"))
    second = await read()
    assert (first.at_tail, second.at_tail) == (True, False)
    assert (await read()).data is second.data
    pages = store.byte_streams._pages._large
    del first, second
    assert not pages


async def read_late(store: SqliteStore, path: str, after: int, meanwhile: Callable[[], Awaitable[object]]) -> Page:
    """A read that reaches the disk when something else has happened there."""
    backend = cast(SqliteByteStreams, store.byte_streams._backend)
    query, asked, may_go_on = backend._query, asyncio.Event(), asyncio.Event()

    async def late(question: Callable[[Database], Any]) -> Any:
        asked.set()
        await may_go_on.wait()
        return await query(question)

    backend._query = late
    reading = asyncio.ensure_future(store.byte_streams.read(path, after=after, bytes_max=1000))
    await asked.wait()
    await meanwhile()
    may_go_on.set()
    return await reading


async def test_a_stream_that_is_deleted_while_it_is_read_is_not_found(store: SqliteStore) -> None:
    """A fork, and with it what it was forked from; neither an end nor a gap is shown."""
    streams = store.byte_streams
    await streams.append(Append(path="s", content_type="text/plain", data=b"1"))
    await streams.create(Create(path="fork", source_path="s"))
    await streams.delete("s")

    async def delete() -> None:
        await streams.delete("fork")
        await streams.upkeep()

    with pytest.raises(StreamNotFound):
        await read_late(store, "fork", 0, delete)


@pytest.mark.parametrize("is_beginning", [True, False])
async def test_a_place_that_retention_passes_while_it_is_read_is_gone(store: SqliteStore, is_beginning: bool) -> None:
    """Who reads from the beginning gets what is kept."""
    streams = store.byte_streams
    await streams.create(Create(path="kept", content_type="text/plain", retention=Retention(records=1)))
    tails = [
        (await streams.append(Append(path="kept", content_type="text/plain", data=data))).stream.tail
        for data in (b"1", b"2", b"3")
    ]
    reading = read_late(store, "kept", 0 if is_beginning else tails[0], streams.upkeep)
    if is_beginning:
        assert (await reading).data == b"3"
    else:
        with pytest.raises(StreamGone) as raised:
            await reading
        assert raised.value.earliest == to_offset(tails[1])


async def test_a_fork_that_is_refused_costs_nobody_else_anything(store: SqliteStore) -> None:
    """It has to see what others in its batch left to be written, and is refused after that: it changed nothing itself."""
    streams = store.byte_streams
    overshooting = Create(path="fork", source_path="s", fork_at=0, sub_offset=1000)
    outcomes = await asyncio.gather(
        streams.append(Append(path="s", content_type="text/plain", data=b"1", producer=Producer("p", 0, 0))),
        streams.create(overshooting),
        streams.append(Append(path="s", content_type="text/plain", data=b"2")),
        streams.create(overshooting),
        streams.delete("none"),
        return_exceptions=True,
    )

    assert [type(outcome) for outcome in outcomes] == [StreamAppended, Invalid, StreamAppended, Invalid, StreamNotFound]
    assert (await streams.read("s", after=0, bytes_max=100)).data == b"12"


async def test_readers_at_many_places_of_a_watched_stream_leave_little_behind(store: SqliteStore) -> None:
    """Each has nearly all that the others have."""
    streams, places = store.byte_streams, [0]
    watch = await streams.watch("s", after=0)
    for _ in range(100):
        appended = await streams.append(Append(path="s", content_type="text/plain", data=b"x" * 5000))
        places.append(appended.stream.tail)
    for after in places:
        page = await streams.read("s", after=after, bytes_max=1 << 20)
        assert len(page.data) == 5000 * (len(places) - 1 - places.index(after))
    pages = streams._feeds["s"]._pages.values()
    assert pages
    assert sum(len(page.data) for page in pages) <= PAGES_OF_STREAM_BYTES_MAX
    watch.close()


async def test_what_the_disk_says_on_the_loop_is_an_error_of_the_store(store: SqliteStore) -> None:
    store._readers[0].close()
    with pytest.raises(StorageError):
        await store.byte_streams.head("unheard of")
    await store.close()
    with pytest.raises(Unavailable):
        await store.byte_streams.head("unheard of")


async def test_upkeep_looks_at_the_records_it_lets_go_and_the_next_one(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a stream has: it holds up all that is written meanwhile."""
    streams = store.byte_streams
    rows = cast(SqliteByteStreams, streams._backend)._rows
    oldest, looked_at = rows._oldest, list[int]()

    def counting(stream_id: int) -> Iterator[tuple[int, int]]:
        for position, size in oldest(stream_id):
            looked_at.append(position)
            yield position, size

    monkeypatch.setattr(rows, "_oldest", counting)
    await streams.create(Create(path="kept", content_type="text/plain", retention=Retention(records=50)))
    for _ in range(52):
        await streams.append(Append(path="kept", content_type="text/plain", data=b"x"))
    await streams.upkeep()
    assert len(looked_at) == 3
    await streams.upkeep()
    assert len(looked_at) == 4


async def test_an_access_that_is_written_down_wakes_nobody(store: SqliteStore) -> None:
    streams = store.byte_streams
    await streams.create(Create(path="ttl", content_type="text/plain", ttl_seconds=60))
    watch = await streams.watch("ttl", after=0)
    waiting = asyncio.ensure_future(watch.next(bytes_max=100))
    await asyncio.sleep(0)
    feed = streams._feeds["ttl"]
    (waiter,) = feed.waiters
    feed.advance(replace(feed.stream, touched_ms=NOW_MS + 1), (), 100)
    assert feed.stream.touched_ms == NOW_MS + 1
    assert not waiter.done()
    await streams.append(Append(path="ttl", content_type="text/plain", close=True))
    page = await waiting
    assert page is not None
    assert page.at_end
    watch.close()


async def test_of_a_stream_with_many_producers_some_go_at_a_time(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_byte_streams, "UPKEEP_ROWS_MAX", 3)
    for number in range(10):
        producer = Producer(f"p{number}", 0, 0)
        await store.byte_streams.append(Append(path="s", content_type="text/plain", data=b"x", producer=producer))
    await store.byte_streams.delete("s")
    rows = cast(SqliteByteStreams, store.byte_streams._backend)._rows
    left: list[int] = []
    while await store._writer.submit(rows.clear_dropped):
        left.append(store._readers[0].one("SELECT count(*) FROM byte_producer")[0])
    assert left[-5:] == [7, 4, 1, 0, 0]
    assert store._readers[0].all("SELECT * FROM byte_dropped") == []
