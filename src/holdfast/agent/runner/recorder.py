"""Appends a stream of events without making the stream wait for each commit.

While one append is on its way to the disk, events collect; the next append takes all of them. So a slow token costs
one commit, and a burst of thousands costs a few.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from holdfast.agent.runner.session_log import to_its_end
from holdfast.core.events import Event

WAITING_MAX = 64
"""Events that may wait for the disk before the stream has to. A stream that is faster would keep the interpreter from the
thread that writes, and so its own first words from those who watch (decision 0155)."""


class Recorder:
    def __init__(self, append: Callable[[Sequence[Event]], Awaitable[object]]) -> None:
        self._append = append
        self._waiting: list[Event] = []
        self._flushing: asyncio.Task[None] | None = None

    async def add(self, events: Sequence[Event]) -> None:
        """Record the events soon, in order. Raises what an earlier append raised."""
        self._waiting.extend(events)
        if self._flushing is None or self._flushing.done():
            if self._flushing is not None:
                self._flushing.result()
            self._flushing = asyncio.create_task(self._flush())
        if len(self._waiting) > WAITING_MAX:
            await asyncio.shield(self._flushing)

    async def drain(self) -> None:
        """Return once everything added is durable; not before, even if we are cancelled. Raises what the append raised."""
        if self._flushing is not None:
            await to_its_end(self._flushing)

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            await self._append(batch)
