"""Both backends, to be opened as often as a property needs."""

import os
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.ids import IdGenerator
from holdfast.core.store import SessionStore
from holdfast.storage.memory import MemoryStore
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.store_conformance import StoreClock

OpenStore = Callable[..., AbstractAsyncContextManager[SessionStore]]


@asynccontextmanager
async def memory(clock: StoreClock | None = None, **options: Any) -> AsyncGenerator[SessionStore]:
    clock = clock or StoreClock()
    store = MemoryStore(clock, IdGenerator(clock, bytes), **options)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def sqlite(
    clock: StoreClock | None = None, directory: Path | None = None, **options: Any
) -> AsyncGenerator[SqliteStore]:
    """In a directory of its own, unless one is given."""
    with tempfile.TemporaryDirectory(prefix="holdfast-test-") as own:
        store = await SqliteStore.open(
            directory or Path(own), now_ms=clock or StoreClock(), entropy=os.urandom, **options
        )
        try:
            yield store
        finally:
            await store.close()


on_every_backend = pytest.mark.parametrize("open_store", [memory, sqlite], ids=["memory", "sqlite"])
