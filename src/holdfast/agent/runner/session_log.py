"""One session's log, as its runner reads and writes it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from holdfast.agent.turn import Stamp
from holdfast.core.clock import Clock
from holdfast.core.codec import type_of
from holdfast.core.events import Event
from holdfast.core.ids import Prefix
from holdfast.core.state import TurnState
from holdfast.core.store import Decide, Lease, Recorded, SessionStore

_REPLIES = frozenset({"permission.replied", "question.replied", "question.rejected"})


async def to_its_end(work: Awaitable[None]) -> None:
    """Wait for it, also if we are cancelled meanwhile; then that is raised, whatever came of the work."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()
        raise cancelled
    task.result()


class SessionLog:
    """`lease` is presented with every append, once there is one.

    An append that is called off in mid-way is made all the same. So nobody is told that it is off before it is made: or what is
    decided next would be decided on a state from before it."""

    def __init__(self, session_id: str, *, store: SessionStore, clock: Clock, new_id: Callable[[Prefix], str]) -> None:
        self.session_id = session_id
        self.store = store
        self.clock = clock
        self.new_id = new_id
        self.lease: Lease | None = None
        self._replied = asyncio.Event()

    async def append(self, events: Sequence[Event] | Decide, *, key: str | None = None) -> None:
        await to_its_end(self._append(events, key))

    async def _append(self, events: Sequence[Event] | Decide, key: str | None) -> None:
        await self.store.append(self.session_id, events, key=key, lease=self.lease)

    async def state(self) -> TurnState:
        return await self.store.turn_state(self.session_id)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    def stamp(self) -> Stamp:
        return Stamp(self.clock.now_ms(), self.new_id)

    def fixed_stamp(self) -> Stamp:
        """A stamp for a `Decide`: it runs elsewhere, perhaps twice, so its ids are made here. One id of a kind."""
        ids: dict[Prefix, str] = {"msg": self.new_id("msg"), "prt": self.new_id("prt")}
        return Stamp(self.clock.now_ms(), ids.__getitem__)

    def saw(self, record: Recorded) -> None:
        """A record of the session became durable: wake whoever waits for the user."""
        if type_of(record.tag) in _REPLIES:
            replied, self._replied = self._replied, asyncio.Event()
            replied.set()

    def next_reply(self) -> asyncio.Event:
        """Set once the next reply of the user is recorded. Take it before reading the state, or a reply may be missed."""
        return self._replied
