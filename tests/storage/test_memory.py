from pathlib import Path
from typing import Any

from holdfast.core.ids import IdGenerator
from holdfast.storage.memory import MemoryStore
from holdfast.testing.store_conformance import StoreClock, StoreConformance


class TestMemoryStore(StoreConformance):
    async def open_store(self, directory: Path, clock: StoreClock, **options: Any) -> MemoryStore:
        return MemoryStore(clock, IdGenerator(clock, bytes), **options)
