"""What every part of the suite starts from: a store, a clock that stands still, and ways to collect events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.codec import decode
from holdfast.core.events import Event
from holdfast.core.fold import Fold
from holdfast.core.offsets import BEGINNING, Offset
from holdfast.core.store import ALL, Recorded, Scope, SessionStore
from holdfast.testing.stories import NOW_MS

TOO_LONG_SECONDS = 60


class StoreClock:
    """Call it for the time in ms. It moves when a test moves it."""

    def __init__(self, now_ms: int = NOW_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class StoreSuite:
    """`open_store` is what a backend has to give. Options are `tail_bytes_max` and `page_records`: how far a subscriber may
    lag behind before it reads from disk, and how much it reads at once. A second `open_store` with the same directory,
    after the first store was closed, answers the same store (or a new one, if nothing lasts longer than the process)."""

    async def open_store(self, directory: Path, clock: StoreClock, **options: Any) -> SessionStore:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> StoreClock:
        return StoreClock()

    @pytest.fixture
    async def store(self, tmp_path: Path, clock: StoreClock) -> AsyncGenerator[SessionStore]:
        store = await self.open_store(tmp_path, clock)
        yield store
        await store.close()

    @pytest.fixture
    async def narrow_store(self, tmp_path: Path, clock: StoreClock) -> AsyncGenerator[SessionStore]:
        """A store whose subscribers read from disk as soon as they are one commit late."""
        store = await self.open_store(tmp_path, clock, tail_bytes_max=1, page_records=2)
        yield store
        await store.close()


async def collect(subscription: AsyncIterator[Sequence[Recorded]], count: int) -> list[Recorded]:
    """The next `count` records of a subscription; fails if there are more in the last batch, or too few."""
    found: list[Recorded] = []
    async with asyncio.timeout(TOO_LONG_SECONDS):
        while len(found) < count:
            found += await anext(subscription)
    assert len(found) == count
    return found


async def collect_all(subscription: AsyncIterator[Sequence[Recorded]]) -> list[Recorded]:
    """Until the subscription ends by itself."""
    async with asyncio.timeout(TOO_LONG_SECONDS):
        return [record async for batch in subscription for record in batch]


async def log(store: SessionStore, scope: Scope = ALL, after: Offset = BEGINNING) -> list[Recorded]:
    """The whole log."""
    return list(await store.read(scope, after=after, limit=1_000_000))


def events(records: Sequence[Recorded]) -> list[Event]:
    return [decode(record.tag, record.data)[1] for record in records]


def types(records: Sequence[Recorded]) -> list[str]:
    """`session.created`, …"""
    return [record.tag.rpartition(".")[0] for record in records]


async def assert_state_is(fold: Fold, store: SessionStore, session_id: str) -> None:
    """Everything the store answers about a session is what the fold says, and `verify` agrees."""
    assert await store.session(session_id) == fold.session
    assert await store.history(session_id) == fold.messages()
    assert await store.todos(session_id) == fold.todos.todos
    assert await store.turn_state(session_id) == fold.turn_state()
    assert [difference async for difference in store.verify()] == []
