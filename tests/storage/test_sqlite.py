"""The SQLite backend keeps the promises of the store, and its own upkeep."""

import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.streams import Append, Create, Retention
from holdfast.storage.sqlite import SqliteStore, byte_streams
from holdfast.testing.store_conformance import StoreClock, StoreConformance


class TestSqliteStore(StoreConformance):
    async def open_store(self, directory: Path, clock: StoreClock, **options: Any) -> SqliteStore:
        return await SqliteStore.open(directory, now_ms=clock, entropy=os.urandom, **options)


async def test_every_stream_with_a_retention_has_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: a round of upkeep looks at a number of them."""
    monkeypatch.setattr(byte_streams, "UPKEEP_ROWS_MAX", 2)
    store = await SqliteStore.open(tmp_path, now_ms=lambda: 1_700_000_000_000, entropy=os.urandom)
    streams, paths = store.byte_streams, [f"s{n}" for n in range(5)]
    try:
        for path in paths:
            await streams.create(Create(path=path, content_type="text/plain", retention=Retention(records=1)))

        for _ in range(2):
            for path in paths:
                await streams.append(Append(path=path, content_type="text/plain", data=b"a"))
                await streams.append(Append(path=path, content_type="text/plain", data=b"b"))
            for _ in range(6):
                await streams.upkeep()

            assert [(await streams.read(path, after=0, bytes_max=100)).data for path in paths] == [b"b"] * 5
    finally:
        await store.close()
