"""Port: time is passed in, so that tests decide what time it is. Times are milliseconds since 1970 (UTC)."""

from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall-clock time. May jump; nothing is ordered by it."""
        ...

    async def sleep_until(self, deadline_ms: int) -> None:
        """Return once `now_ms() >= deadline_ms`."""
        ...
