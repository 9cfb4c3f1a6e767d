"""What subscriptions cost: a reader costs a cursor, and no reader, however slow, makes a tail remember more than it may."""

import asyncio
import gc
import itertools
from collections.abc import Sequence
from weakref import ref

import pytest

from holdfast.core.offsets import BEGINNING, Offset, to_offset
from holdfast.core.store import ALL, DirectoryScope, Recorded, Scope, SessionScope, first_of
from holdfast.storage import tail
from holdfast.storage.tail import RECORD_OVERHEAD_BYTES, Subscription, Tails


class Remembered(Recorded, frozen=True, weakref=True):
    """A record whose end can be watched."""


class Log:
    """A log that is read rarely enough to count."""

    def __init__(self) -> None:
        self.records: list[Recorded] = []
        self.reads = 0

    def head(self) -> Offset:
        return self.records[-1].offset if self.records else BEGINNING

    async def read(self, scope: Scope, *, after: Offset, limit: int, bytes_max: int) -> Sequence[Recorded]:
        self.reads += 1
        return first_of((record for record in self.records if record.offset > after), limit, bytes_max)


class Source:
    """Commits of records, each of `size` bytes and the overhead of a record."""

    def __init__(self, *, bytes_max: int, size: int = 100) -> None:
        self.log = Log()
        self.tails = Tails(self.log, self._is_over, bytes_max=bytes_max)
        self.size = size

    async def _is_over(self, session_id: str) -> bool:
        return False

    def commit(self, count: int = 1) -> list[Recorded]:
        start = len(self.log.records)
        records: list[Recorded] = [
            Remembered(to_offset(number + 1), "ses_a", "/one", "p", number + 1, "x.1", b"x" * self.size)
            for number in range(start, start + count)
        ]
        self.log.records += records
        self.tails.publish(records)
        return records

    def subscribe(self, scope: Scope = ALL) -> Subscription:
        return self.tails.subscribe(scope, None)


def watched(records: Sequence[Recorded]) -> list[ref[Recorded]]:
    return [ref(record) for record in records]


def alive(references: list[ref[Recorded]]) -> int:
    gc.collect()
    return sum(reference() is not None for reference in references)


async def test_live_readers_share_the_records_and_read_no_disk() -> None:
    source = Source(bytes_max=1 << 20)
    readers = [
        source.subscribe(scope) for scope in (ALL, SessionScope("ses_a"), DirectoryScope("/one")) for _ in range(3)
    ]
    records = source.commit(5)

    for reader in readers:
        batch = await anext(reader)
        assert all(mine is shared for mine, shared in zip(batch, records, strict=True))
    assert source.log.reads == 0


async def test_what_every_reader_has_read_is_forgotten() -> None:
    source = Source(bytes_max=1 << 20)
    readers = [source.subscribe() for _ in range(3)]
    references = watched(source.commit(10))
    source.log.records = source.log.records[-1:]
    for reader in readers:
        await anext(reader)

    assert alive(references) <= 1, "the log of this test has the last one"


async def test_a_reader_that_sleeps_keeps_no_more_than_the_bound() -> None:
    size = 100 + RECORD_OVERHEAD_BYTES
    source = Source(bytes_max=10 * size)
    sleeper, awake = source.subscribe(), source.subscribe()
    references: list[ref[Recorded]] = []
    for _ in range(200):
        references += watched(source.commit())
        await anext(awake)
    everything, source.log.records = source.log.records, source.log.records[-1:]
    del everything

    assert alive(references) <= 10
    del sleeper
    assert alive(references) <= 1


async def test_a_reader_that_was_outrun_comes_back_to_the_live_tail() -> None:
    source = Source(bytes_max=1)
    reader = source.subscribe()
    for _ in range(20):
        source.commit()
    caught_up = [record.version async for batch in _until(reader, 20) for record in batch]
    reads = source.log.reads
    source.commit()

    assert caught_up == list(range(1, 21))
    assert reads > 0
    assert [record.version for record in await anext(reader)] == [21]
    assert source.log.reads == reads


async def _until(reader: Subscription, version: int):
    async for batch in reader:
        yield batch
        if batch[-1].version >= version:
            return


async def test_a_reader_that_catches_up_has_a_few_large_records_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "PAGE_BYTES_MAX", 250)
    source = Source(bytes_max=1, size=100)
    reader = source.subscribe()
    for _ in range(20):
        source.commit()
    batches = [[record.version for record in batch] async for batch in _until(reader, 20)]

    assert [version for batch in batches for version in batch] == list(range(1, 21))
    assert max(map(len, batches)) == 3


async def test_nobody_is_remembered_after_the_last_reader() -> None:
    source = Source(bytes_max=1 << 20)
    reader = source.subscribe()
    waiting = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    del reader, waiting
    references = watched(source.commit(3))
    source.log.records.clear()

    assert alive(references) == 0


async def test_many_waits_that_are_given_up_leave_nothing_behind() -> None:
    """A face may time out every few seconds, to send a heartbeat."""
    source = Source(bytes_max=1 << 20)
    reader = source.subscribe()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(1000):
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        del waiting
    gc.collect()

    assert len(gc.get_objects()) - before < 100


async def _waiting(source: Source, count: int, told: list[int]) -> tuple[list[Subscription], list[asyncio.Task[None]]]:
    """So many who wait for the first record, and say when they have something or are at the end."""

    async def follow(reader: Subscription) -> None:
        async for batch in reader:
            told.append(len(batch))
            break
        else:
            told.append(0)

    readers = [source.subscribe() for _ in range(count)]
    tasks = [asyncio.ensure_future(follow(reader)) for reader in readers]
    await asyncio.sleep(0)
    return readers, tasks


async def test_many_who_are_woken_at_once_leave_turns_of_the_loop_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has waited longest first; what comes meanwhile and one who goes are in nobody's way."""
    monkeypatch.setattr(tail, "WAKES_MAX", 3)
    source, told = Source(bytes_max=1 << 20), list[int]()
    _, tasks = await _waiting(source, 20, told)
    source.commit()
    tasks.pop().cancel()
    seen = [0]
    while len(told) < 19:
        await asyncio.sleep(0)
        seen.append(len(told))
        if len(seen) == 3:
            source.commit()
    await asyncio.gather(*tasks)
    assert max(later - earlier for earlier, later in itertools.pairwise(seen)) <= 3
    assert told == sorted(told), "a later one finds both records"


async def test_one_who_is_closed_wakes_only_himself() -> None:
    source, told = Source(bytes_max=1 << 20), list[int]()
    readers, tasks = await _waiting(source, 3, told)
    await readers[1].aclose()
    await tasks[1]
    assert [waiter.done() for waiter in readers[0]._tail.end.waiters] == [False, False]
    source.commit()
    await asyncio.gather(*tasks)
    assert told == [0, 1, 1]
