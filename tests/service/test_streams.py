"""The upkeep of byte streams goes on whatever happens in it."""

import asyncio
from typing import cast

from holdfast.core.errors import Unavailable
from holdfast.core.streams import ByteStreamStore, StreamReader
from holdfast.service.streams import StreamService


class Store:
    """Fails in every way, one after the other."""

    def __init__(self) -> None:
        self.errors: list[Exception] = [Unavailable("Later."), ValueError("a defect")]
        self.kept_up = asyncio.Event()

    async def upkeep(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.kept_up.set()


async def test_upkeep_that_failed_is_tried_again() -> None:
    store = Store()
    unused = cast(StreamReader, None)
    service = StreamService(cast(ByteStreamStore, store), unused, unused, upkeep_seconds=0)
    await service.start()
    async with asyncio.timeout(60):
        await store.kept_up.wait()
    await service.stop()
