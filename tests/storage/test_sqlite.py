import os
from pathlib import Path
from typing import Any

from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.store_conformance import StoreClock, StoreConformance


class TestSqliteStore(StoreConformance):
    async def open_store(self, directory: Path, clock: StoreClock, **options: Any) -> SqliteStore:
        return await SqliteStore.open(directory, now_ms=clock, entropy=os.urandom, **options)
