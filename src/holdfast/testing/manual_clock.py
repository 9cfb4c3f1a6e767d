"""A clock that stands still until a test moves it, so that no test waits for time to pass."""

import asyncio
from typing import Final

START_MS: Final = 1_750_000_000_000


class ManualClock:
    """Meets `core.clock.Clock`. A test first waits until the code under test sleeps (`until_sleeping`), then moves time."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self._now_ms = now_ms
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()

    def now_ms(self) -> int:
        return self._now_ms

    async def sleep_until(self, deadline_ms: int) -> None:
        if deadline_ms <= self._now_ms:
            await asyncio.sleep(0)
            return
        sleeper = (deadline_ms, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        self._changed.set()
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    @property
    def deadlines(self) -> list[int]:
        """Until when somebody sleeps now, earliest first."""
        return sorted(deadline for deadline, future in self._sleepers if not future.done())

    async def until_sleeping(self, deadline_ms: int | None = None) -> int:
        """Return once somebody sleeps until that time (any, without one); answers the earliest such deadline."""
        while True:
            for deadline in self.deadlines:
                if deadline_ms is None or deadline == deadline_ms:
                    return deadline
            self._changed.clear()
            await self._changed.wait()

    def advance(self, milliseconds: int) -> None:
        """Let time pass; who slept long enough wakes, the earliest first."""
        self.advance_to(self._now_ms + milliseconds)

    def advance_to(self, now_ms: int) -> None:
        """Time may also be set back: nobody wakes then."""
        self._now_ms = now_ms
        for deadline, future in sorted(self._sleepers, key=lambda sleeper: sleeper[0]):
            if deadline <= now_ms and not future.done():
                future.set_result(None)
