"""Byte streams on any backend: who may read what is durable, and where it is read from.

Owns what the event loop knows of streams. Decisions are made by `core.stream_rules`, in the backend's transaction; this
module learns of their changes once they are durable (`publish`), wakes those who watch, and serves reads: from memory near
the tail, from the backend further back.

Rules
 1. A stream's state here is the newest durable one, so nobody reads ahead of the disk, and a writer who has his answer
    finds what he wrote.
 2. The newest records are kept in memory only while somebody watches, and at most `RECENT_BYTES_MAX` of a stream. A watcher
    who falls behind that reads from the backend. Readers at the same place share one page.
 3. Reads of a stream with a sliding time to live are noted here and written down now and then (`upkeep`), never by the read.
    Until `TOUCH_SLACK_MS` after such a note the store counts it as fresh: after a crash a stream may live that much too
    long, never too short.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol, TypeVar
from weakref import WeakValueDictionary

from msgspec.structs import replace

from holdfast.core import stream_rules
from holdfast.core.offsets import to_offset
from holdfast.core.stream_rules import AddRecord, Books, Change, DropStream, PutStream
from holdfast.core.streams import (
    Append,
    Create,
    Created,
    Page,
    Stream,
    StreamAppended,
    StreamGone,
    StreamNotFound,
)

T = TypeVar("T")

RECENT_BYTES_MAX: Final = 1 << 20
FEEDS_MAX: Final = 4096
PAGES_BYTES_MAX: Final = 16 << 20
PAGES_OF_STREAM_BYTES_MAX: Final = 2 << 20
TOUCH_SLACK_MS: Final = 10_000
WAKES_MAX: Final = 128
"""Watchers of a stream that are woken in one turn of the loop: the others have the next ones, so nobody else waits for all."""

Piece = tuple[int, bytes]
"""Position and data of a record."""

Decide = Callable[[Books], tuple[T, Sequence[Change]]]


class Backend(Protocol):
    """What is different from backend to backend."""

    async def transact(self, decide: Decide[T]) -> T:
        """Run it on the state it will meet, carry out its changes, and give its answer when they are durable and published
        (`Streams.publish`). All changes, or none and what `decide` raised."""
        ...

    def load(self, path: str) -> Stream | None:
        """The durable state of the stream that holds a path."""
        ...

    async def pieces(self, stream: Stream, *, after: int, bytes_max: int) -> tuple[int, list[Piece]]:
        """The records of a stream, inherited ones too, after a position and up to its tail: at least one, then as many as
        fit; and up to where retention has given up the stream's records as this is read. Raises StreamNotFound if the
        stream is gone by then."""
        ...

    def paths(self) -> list[tuple[str, int]]: ...

    async def upkeep(self, now_ms: int, touched: dict[int, int]) -> None:
        """Write down the newest accesses (stream id → ms), remove what is expired or beyond its retention."""
        ...


class Access:
    """Who reads which streams that expire when nobody does, and when they last did. Read by the backend's writer while the
    loop writes it: every operation is one on a dict."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self.clock_ms = clock_ms
        self.opened_ms = clock_ms()
        self.touched: Final[dict[int, int]] = {}
        self.watched: Final[dict[int, int]] = {}

    def newest_ms(self, stream: Stream) -> int:
        if stream.id in self.watched:
            return self.clock_ms()
        stored = stream.touched_ms
        if stored < self.opened_ms:
            stored = min(stored + TOUCH_SLACK_MS, self.opened_ms)
        return max(stored, self.touched.get(stream.id, 0))

    def touch(self, stream: Stream, now_ms: int) -> None:
        if stream.ttl_seconds is not None:
            self.touched[stream.id] = now_ms


class Streams:
    """The port `core.streams.ByteStreamStore`."""

    def __init__(self, backend: Backend, access: Access, *, recent_bytes_max: int = RECENT_BYTES_MAX) -> None:
        self._backend = backend
        self._access = access
        self._clock_ms = access.clock_ms
        self._recent_bytes_max = recent_bytes_max
        self._feeds: OrderedDict[str, _Feed] = OrderedDict()
        self._pages = _Pages()
        self.heard: Callable[[Sequence[Change]], None] | None = None

    # --- writing

    async def create(self, command: Create) -> Created:
        now_ms = self._clock_ms()
        return await self._backend.transact(lambda books: stream_rules.create(books, command, now_ms))

    async def append(self, command: Append) -> StreamAppended:
        now_ms = self._clock_ms()
        appended = await self._backend.transact(lambda books: stream_rules.append(books, command, now_ms))
        if appended.duplicate:
            self._access.touch(appended.stream, now_ms)
        return appended

    async def delete(self, path: str) -> None:
        now_ms = self._clock_ms()
        await self._backend.transact(lambda books: (None, stream_rules.delete(books, path, now_ms)))

    def publish(self, changes: Sequence[Change]) -> None:
        """What became durable, in commit order. On the event loop."""
        records: dict[int, list[Piece]] = {}
        for change in changes:
            if isinstance(change, AddRecord):
                records.setdefault(change.stream_id, []).append((change.position, change.data))
            elif isinstance(change, PutStream):
                stream = change.stream
                feed = self._feeds.get(stream.path)
                if feed is not None and feed.stream.id == stream.id:
                    feed.advance(stream, records.get(stream.id, ()), self._recent_bytes_max)
                if stream.deleted:
                    self._forget(stream)
            elif isinstance(change, DropStream):
                self._forget(change.stream)
        if self.heard is not None:
            self.heard(changes)

    def _forget(self, stream: Stream) -> None:
        feed = self._feeds.get(stream.path)
        if feed is not None and feed.stream.id == stream.id:
            feed.end()
            del self._feeds[stream.path]
        self._access.touched.pop(stream.id, None)

    # --- reading

    async def head(self, path: str) -> Stream:
        return self._feed(path, self._clock_ms()).stream

    async def touch(self, path: str) -> Stream:
        now_ms = self._clock_ms()
        stream = self._feed(path, now_ms).stream
        self._access.touch(stream, now_ms)
        return stream

    async def read(self, path: str, *, after: int, bytes_max: int) -> Page:
        now_ms = self._clock_ms()
        feed = self._feed(path, now_ms)
        stream = feed.stream
        self._access.touch(stream, now_ms)
        is_beginning = not after
        if after < stream.horizon:
            if not is_beginning:
                raise _given_up(stream, stream.horizon)
            after = stream.horizon
        if after >= stream.tail:
            return Page(stream, after, after, b"", True)
        page = feed.page(after, bytes_max)
        if page is None:
            page = self._pages.get(stream, after, bytes_max)
        if page is None:
            horizon, pieces = await self._backend.pieces(stream, after=after, bytes_max=bytes_max)
            if after < horizon and not is_beginning:
                raise _given_up(stream, horizon)
            page = _to_page(stream, after, pieces)
            self._pages.put(page, bytes_max)
        return page

    async def watch(self, path: str, *, after: int) -> "StreamWatch":
        return StreamWatch(self, self._feed(path, self._clock_ms()), self._access, path, after)

    async def paths(self) -> list[tuple[str, int]]:
        return self._backend.paths()

    def _feed(self, path: str, now_ms: int) -> "_Feed":
        feed = self._feeds.get(path)
        if feed is None:
            stream = self._backend.load(path)
            if stream is None:
                raise StreamNotFound(path)
            feed = self._feeds[path] = _Feed(stream)
            self._evict()
        stream = feed.stream
        if stream.deleted:
            raise StreamGone(path)
        if (stream.ttl_seconds is not None or stream.expires_at_ms is not None) and stream_rules.is_expired(
            stream, self._access.newest_ms(stream), now_ms
        ):
            raise StreamNotFound(path)
        return feed

    def _evict(self) -> None:
        """Forget the state of streams that nobody watches, oldest first; it can be loaded again."""
        for _ in range(8):
            if len(self._feeds) <= FEEDS_MAX:
                return
            path, feed = next(iter(self._feeds.items()))
            if feed.watchers:
                self._feeds.move_to_end(path)
            else:
                del self._feeds[path]

    # --- upkeep

    async def upkeep(self) -> None:
        touched = {**self._access.touched, **dict.fromkeys(self._access.watched, self._clock_ms())}
        self._access.touched.update(touched)  # until the writer knows them, they count from here
        await self._backend.upkeep(self._clock_ms(), touched)
        for stream_id, at_ms in touched.items():
            if self._access.touched.get(stream_id) == at_ms:
                del self._access.touched[stream_id]

    def close(self) -> None:
        """Wake everybody who waits: nothing more will come."""
        for feed in self._feeds.values():
            feed.end()


class StreamWatch:
    def __init__(self, streams: Streams, feed: "_Feed", access: Access, path: str, after: int) -> None:
        self._streams = streams
        self._feed = feed
        self._access = access
        self._path = path
        self._after = after
        self._id = feed.stream.id
        self._interrupted = False
        self._waiter: asyncio.Future[None] | None = None
        feed.watchers += 1
        if feed.stream.ttl_seconds is not None:
            access.watched[self._id] = feed.watchers

    async def next(self, *, bytes_max: int) -> Page | None:
        feed = self._feed
        while not feed.ended:
            stream = feed.stream
            if stream.tail > self._after:
                page = feed.page(self._after, bytes_max)
                if page is None:
                    page = await self._streams.read(self._path, after=self._after, bytes_max=bytes_max)
                self._after = page.next
                return page
            if stream.closed or self._interrupted:
                self._interrupted = False
                return Page(stream, self._after, self._after, b"", True)
            self._waiter = asyncio.get_running_loop().create_future()
            feed.waiters[self._waiter] = None
            try:
                await self._waiter
            finally:
                feed.waiters.pop(self._waiter)
                self._waiter = None
        return None

    def interrupt(self) -> None:
        self._interrupted = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        feed, access = self._feed, self._access
        feed.watchers -= 1
        if feed.watchers:
            if self._id in access.watched:
                access.watched[self._id] = feed.watchers
        else:
            access.watched.pop(self._id, None)
            feed.drop_recent()
            access.touch(feed.stream, access.clock_ms())


class _Feed:
    """The durable state of a stream, its newest records while it is watched, and who waits for more."""

    __slots__ = (
        "_bytes",
        "_floor",
        "_pages",
        "_pages_bytes",
        "_recent",
        "_to_wake",
        "ended",
        "stream",
        "waiters",
        "watchers",
    )

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.ended = False
        self.watchers = 0
        self._recent: deque[Piece] = deque()
        self._bytes = 0
        self._floor = stream.tail
        self._pages: dict[int, Page] = {}
        self._pages_bytes = 0
        self.waiters: dict[asyncio.Future[None], None] = {}
        """Who has waited longest comes first."""
        self._to_wake: list[asyncio.Future[None]] = []

    def advance(self, stream: Stream, pieces: Sequence[Piece], bytes_max: int) -> None:
        if stream.tail < self.stream.tail:
            return  # loaded from the disk after that commit, before it was told here
        if self.watchers:
            for position, data in pieces:
                if position > self.stream.tail:
                    self._recent.append((position, data))
                    self._bytes += len(data)
            while self._bytes > bytes_max and len(self._recent) > 1:
                self._floor, data = self._recent.popleft()
                self._bytes -= len(data)
        else:
            self._floor = stream.tail
        has_news = stream.tail != self.stream.tail or stream.closed != self.stream.closed
        self.stream = stream
        if has_news:  # not for an access that was written down, every few seconds
            self._clear_pages()
            self.wake()

    def page(self, after: int, bytes_max: int) -> Page | None:
        """The page after a position, if it is all in memory."""
        if after < self._floor:
            return None
        page = self._pages.get(after)
        if page is None:
            found: list[Piece] = []
            size = 0
            for position, data in reversed(self._recent):
                if position <= after:
                    break
                found.append((position, data))
                size += len(data)
            if not found or (size > bytes_max and len(found) > 1):
                return None
            # Readers at many places would each leave a page that is nearly all of the others'.
            if self._pages_bytes + size > PAGES_OF_STREAM_BYTES_MAX:
                self._clear_pages()
            page = self._pages[after] = _to_page(self.stream, after, found[::-1])
            self._pages_bytes += size
        return page

    def drop_recent(self) -> None:
        self._recent.clear()
        self._bytes = 0
        self._floor = self.stream.tail
        self._clear_pages()

    def _clear_pages(self) -> None:
        self._pages.clear()
        self._pages_bytes = 0

    def wake(self) -> None:
        is_waking = bool(self._to_wake)
        self._to_wake = list(self.waiters)
        if not is_waking:
            self._wake_some()

    def _wake_some(self) -> None:
        for waiter in self._to_wake[:WAKES_MAX]:
            if not waiter.done():
                waiter.set_result(None)
        del self._to_wake[:WAKES_MAX]
        if self._to_wake:
            asyncio.get_running_loop().call_soon(self._wake_some)

    def end(self) -> None:
        self.ended = True
        self.wake()


class _Pages:
    """The newest pages read from the backend, up to a number of bytes; larger ones for as long as somebody is sent them. A page
    that reaches the tail counts as long as the tail stays."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[int, int, int], Page] = OrderedDict()
        self._bytes = 0
        self._large: WeakValueDictionary[tuple[int, int, int], Page] = WeakValueDictionary()

    def get(self, stream: Stream, after: int, bytes_max: int) -> Page | None:
        key = stream.id, after, bytes_max
        page = self._pages.get(key)
        if page is not None:
            self._pages.move_to_end(key)
        else:
            page = self._large.get(key)
        if page is None:
            return None
        if page.at_tail and page.stream.tail != stream.tail:
            self._remove(key)
            return None
        if page.stream is not stream:
            page = replace(page, stream=stream)
            self.put(page, bytes_max)
        return page

    def put(self, page: Page, bytes_max: int) -> None:
        key = page.stream.id, page.after, bytes_max
        self._remove(key)
        if len(page.data) * 4 > PAGES_BYTES_MAX:
            self._large[key] = page
            return
        self._pages[key] = page
        self._bytes += len(page.data)
        while self._bytes > PAGES_BYTES_MAX:
            self._remove(next(iter(self._pages)))

    def _remove(self, key: tuple[int, int, int]) -> None:
        self._large.pop(key, None)
        page = self._pages.pop(key, None)
        if page is not None:
            self._bytes -= len(page.data)


def _given_up(stream: Stream, horizon: int) -> StreamGone:
    return StreamGone(stream.path, earliest=to_offset(horizon), snapshot=stream.snapshot)


def _to_page(stream: Stream, after: int, pieces: Sequence[Piece]) -> Page:
    if not pieces:
        return Page(stream, after, stream.tail, b"", True)
    data = pieces[0][1] if len(pieces) == 1 else b"".join([data for _, data in pieces])
    reached = pieces[-1][0]
    return Page(stream, after, reached, data, reached >= stream.tail)


def let_go(stream: Stream, oldest: Iterable[tuple[int, int]], now_ms: int) -> Stream | None:
    """The stream without the records that its retention lets go of; None if it keeps them all. `oldest` are positions and
    sizes of its records, oldest first, as far as they shall be looked at. What forks inherit is kept while they live."""
    retention = stream.retention
    if retention is None or stream.forks:
        return None
    count, size, horizon = stream.records, stream.bytes, stream.horizon
    for position, length in oldest:
        over = (
            (retention.records is not None and count > retention.records)
            or (retention.bytes is not None and size - length >= retention.bytes)
            or (retention.seconds is not None and position < (now_ms - retention.seconds * 1000) * 1000)
        )
        if not over:
            break
        count, size, horizon = count - 1, size - length, position
    return replace(stream, records=count, bytes=size, horizon=horizon) if count != stream.records else None


def segments(stream: Stream, get: Callable[[int], Stream], after: int) -> list[tuple[int, int, int]]:
    """Where the records of a stream lie, oldest first: (stream id, after, up to), forks behind what they inherit."""
    found: list[tuple[int, int, int]] = []
    upto = stream.tail
    while True:
        low = stream.fork_at if stream.source_id is not None else 0
        if upto > max(low, after):
            found.append((stream.id, max(low, after), upto))
        if stream.source_id is None or after >= low:
            return found[::-1]
        upto = min(upto, low)
        stream = get(stream.source_id)
