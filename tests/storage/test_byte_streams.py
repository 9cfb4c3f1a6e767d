"""What the loop knows of byte streams, and the writing thread looks at meanwhile."""

from typing import cast

from holdfast.core.streams import Stream
from holdfast.storage.byte_streams import Access, Backend, Streams

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
