"""Subscriptions: cursors over the log that read what is recorded (catch-up), then what is being recorded (live).

Owns the memory between a commit and its readers. Each scope that has subscribers has a *tail*: a chain of links, one per
commit. A reader holds the link up to which it has read, so what every reader has read is freed by itself, and a reader
costs a cursor. Knows nothing of any backend: it is given a way to read the log.

Rules
 1. Only what is durable is published, in commit order, from the event loop.
 2. A reader that falls `bytes_max` behind is cut off from the chain and reads the log until it has caught up; so a tail
    never keeps more than that (or one commit, if that is larger), however slow its readers are.
 3. A cursor moves only when records are handed out: cancelling a reader that waits loses nothing and repeats nothing.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Protocol
from weakref import WeakValueDictionary, ref

from holdfast.core.offsets import Offset
from holdfast.core.store import ALL, DirectoryScope, Recorded, Scope, SessionScope, is_full

BYTES_MAX = 1 << 20
PAGE_RECORDS = 1000
PAGE_BYTES_MAX = 4 << 20
"""A reader who takes his time has so much in memory, and the record that goes beyond it."""
RECORD_OVERHEAD_BYTES = 200
WAKES_MAX = 128
"""Readers that are woken in one turn of the loop, as those of byte streams are: the others have the next ones (decision 0132)."""


class Log(Protocol):
    """What subscriptions need of a store, beside being told of commits."""

    def head(self) -> Offset: ...

    async def read(self, scope: Scope, *, after: Offset, limit: int, bytes_max: int) -> Sequence[Recorded]: ...


class Tails:
    """The tails of all scopes that have subscribers. `is_over` tells of a session whether it was deleted; it raises
    NotFound for one that never was."""

    def __init__(
        self,
        log: Log,
        is_over: Callable[[str], Awaitable[bool]],
        *,
        bytes_max: int = BYTES_MAX,
        page_records: int = PAGE_RECORDS,
    ) -> None:
        self.log = log
        self.is_over = is_over
        self.bytes_max = bytes_max
        self.page_records = page_records
        self.closed = False
        self._tails: WeakValueDictionary[Scope, _Tail] = WeakValueDictionary()

    def subscribe(self, scope: Scope, after: Offset | None) -> "Subscription":
        tail = self._tails.get(scope)
        if tail is None:
            tail = self._tails[scope] = _Tail(self.bytes_max)
        return Subscription(self, tail, scope, self.log.head() if after is None else after)

    def publish(self, records: Sequence[Recorded]) -> None:
        """Tell the subscribers. Call it on the event loop, once per commit, when `head` already answers the new offset."""
        if not self._tails or not records:
            return
        scopes: dict[tuple[bool, str], list[Recorded]] = {}
        for record in records:
            scopes.setdefault((True, record.session_id), []).append(record)
            scopes.setdefault((False, record.directory), []).append(record)
        for (is_session, name), some in scopes.items():
            tail = self._tails.get(SessionScope(name) if is_session else DirectoryScope(name))
            if tail is not None:
                tail.extend(some)
        tail = self._tails.get(ALL)
        if tail is not None:
            tail.extend(records)

    def close(self) -> None:
        """End every subscription, after what its reader has in memory."""
        self.closed = True
        for tail in list(self._tails.values()):
            tail.end.wake()


class Subscription:
    """An endless iterator of batches, at a place that was fixed when it was made."""

    def __init__(self, tails: Tails, tail: "_Tail", scope: Scope, after: Offset) -> None:
        self._tails = tails
        self._tail = tail
        self._scope = scope
        self._cursor = after
        self._over = False
        self._checked = not isinstance(scope, SessionScope)
        self._deleted = False
        self._waiter: asyncio.Future[None] | None = None
        self._join()

    def _join(self) -> None:
        """Go on at the end of the chain. All records of the scope up to `_live_after` are only in the log."""
        self._link = self._tail.end
        self._live_after = self._tails.log.head()

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Sequence[Recorded]:
        while not self._over:
            if not self._checked and not self._tails.closed:
                assert isinstance(self._scope, SessionScope)
                self._deleted = await self._tails.is_over(self._scope.session_id)
                self._checked = True
            if self._link.cut:
                self._join()
            if self._cursor < self._live_after:
                if self._tails.closed:
                    break  # the rest is in the log, for the next subscription
                limit, bytes_max = self._tails.page_records, PAGE_BYTES_MAX
                page = await self._tails.log.read(self._scope, after=self._cursor, limit=limit, bytes_max=bytes_max)
                reached = page[-1].offset if page else self._cursor
                self._cursor = reached if is_full(page, limit, bytes_max) else max(reached, self._live_after)
                if page:
                    return self._hand_out(page)
                continue
            records = self._follow_chain()
            if records:
                return self._hand_out(records)
            if self._link.cut:
                continue
            if self._tails.closed or self._deleted:
                break
            await self._wait()
        self._over = True
        raise StopAsyncIteration

    async def _wait(self) -> None:
        """Until there is a next link, or the end. A future for each reader, so that one that is cancelled or closed wakes only
        itself (one shared future would have to be shielded, which costs each reader a future and a loop turn more)."""
        link = self._link
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        link.waiters[waiter] = None
        try:
            await waiter
        finally:
            link.waiters.pop(waiter, None)

    def _follow_chain(self) -> list[Recorded]:
        """Everything that waits in the chain, at most a page (and the rest of its last link)."""
        found: list[Recorded] = []
        while self._link.next is not None and len(found) < self._tails.page_records:
            records = self._link.records
            self._link = self._link.next
            if records[0].offset <= self._cursor:  # a page from the log may reach beyond where the chain was joined
                records = [record for record in records if record.offset > self._cursor]
            found += records
        if found:
            self._cursor = found[-1].offset
        return found

    def _hand_out(self, records: Sequence[Recorded]) -> Sequence[Recorded]:
        if isinstance(self._scope, SessionScope) and records[-1].tag.startswith("session.deleted."):
            self._over = True
        return records

    async def aclose(self) -> None:
        self._over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Link:
    """A place in the chain, and the records that lead from it to the next."""

    __slots__ = ("__weakref__", "cut", "next", "records", "waiters")

    def __init__(self) -> None:
        self.records: Sequence[Recorded] = ()
        self.next: _Link | None = None
        self.cut = False
        self.waiters: dict[asyncio.Future[None], None] = {}
        """Who has waited longest comes first. Nobody comes any more once there is a next link."""

    def wake(self) -> None:
        for waiter in list(islice(self.waiters, WAKES_MAX)):
            del self.waiters[waiter]
            if not waiter.done():
                waiter.set_result(None)
        if self.waiters:
            asyncio.get_running_loop().call_soon(self.wake)


class _Tail:
    """The chain's end, and how much lies behind each of its recent places."""

    def __init__(self, bytes_max: int) -> None:
        self.end = _Link()
        self._bytes_max = bytes_max
        self._bytes = 0
        self._recent: deque[tuple[ref[_Link], int]] = deque()

    def extend(self, records: Sequence[Recorded]) -> None:
        before = self.end
        before.records = records
        self.end = before.next = _Link()
        before.wake()
        size = sum(len(record.data) + RECORD_OVERHEAD_BYTES for record in records)
        self._recent.append((ref(before), size))
        self._bytes += size
        while self._bytes > self._bytes_max and len(self._recent) > 1:
            place, size = self._recent.popleft()
            self._bytes -= size
            link = place()
            if link is not None:
                link.cut, link.next, link.records = True, None, ()
