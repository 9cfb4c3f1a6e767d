"""What every store has to do, as tests. A backend's test module is three lines (`docs/howto/add-a-storage.md`):

    class TestMyStore(StoreConformance):
        async def open_store(self, directory, clock, **options):
            return await MyStore.open(directory, now_ms=clock, **options)

The suite needs pytest with pytest-asyncio in its auto mode. It checks the docstrings of `holdfast.core.store`.
"""

from holdfast.testing.store_conformance.appends import Appends
from holdfast.testing.store_conformance.base import StoreClock
from holdfast.testing.store_conformance.reads import Reads
from holdfast.testing.store_conformance.subscriptions import Subscriptions
from holdfast.testing.store_conformance.upkeep import Upkeep


class StoreConformance(Appends, Reads, Subscriptions, Upkeep):
    """Subclass it and override `open_store`."""


__all__ = ["StoreClock", "StoreConformance"]
