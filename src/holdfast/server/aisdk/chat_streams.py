"""The answer to a prompt as a durable stream of UI-message chunks: `session/{sessionID}/chat/{messageID}`.

Nothing of it is stored: it is made of the session's records when it is read, and `chunks` sees to it that whoever comes back
with a place goes on right there, whatever happened meanwhile. A place is that of a record, and how much of the open text was
given after it (the second half of the offset). The stream is closed once the turn is over.
"""

from collections.abc import Sequence
from typing import Final

from holdfast.core.codec import decode, to_json, type_of
from holdfast.core.errors import NotFound
from holdfast.core.events import SessionDiffed, SessionUpdated, TurnRequested
from holdfast.core.offsets import join_place, split_place, to_offset, to_position
from holdfast.core.store import Recorded, SessionScope, SessionStore
from holdfast.core.streams import JSON, Page, Stream, StreamNotFound
from holdfast.server.aisdk.chunks import ChunkMaker
from holdfast.service.session_streams import RECORDS_MAX, Interruptible

_MESSAGES_MAX: Final = 64
_PROMPT_RECORDS_MAX: Final = 600
_STARTS_MAX: Final = 10_000

_UNUSED: Final = frozenset({SessionUpdated.type, SessionDiffed.type})
"""Large, and not about the answer."""


class ChatStreams:
    """The port `core.streams.StreamReader`."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._starts: dict[str, int] = {}

    async def head(self, path: str) -> Stream:
        reader = await self._open(path, 0)
        while not (page := await reader.page(bytes_max=1 << 20)).at_tail:
            pass
        return page.stream

    touch = head

    async def read(self, path: str, *, after: int, bytes_max: int) -> Page:
        return await (await self._open(path, after)).page(bytes_max=bytes_max)

    async def watch(self, path: str, *, after: int) -> "ChatWatch":
        return ChatWatch(await self._open(path, after), self._store)

    async def _open(self, path: str, after: int) -> "_Reader":
        _, session_id, _, prompt_id = path.split("/", 3)
        try:
            await self._store.session(session_id)
            start = await self._start(path, SessionScope(session_id), prompt_id)
        except NotFound:
            raise StreamNotFound(path) from None
        return _Reader(self._store, path, SessionScope(session_id), prompt_id, start, after)

    async def _start(self, path: str, scope: SessionScope, prompt_id: str) -> int:
        """The position just before the record that added the prompt. Raises NotFound unless it was a prompt."""
        await self._store.message(scope.session_id, prompt_id)  # it may have been removed since
        known = self._starts.get(path)
        if known is not None:
            return known
        start = await self._position(scope, await self._version(scope.session_id, prompt_id)) - 1
        records = await self._store.read(scope, after=to_offset(start), limit=_PROMPT_RECORDS_MAX)
        if not any(_requests(record, prompt_id) for record in records):
            raise NotFound("Prompt", prompt_id)
        if len(self._starts) >= _STARTS_MAX:
            self._starts.clear()
        self._starts[path] = start
        return start

    async def _version(self, session_id: str, message_id: str) -> int:
        """The version of the session with which the message was added. Looks from the newest backwards."""
        before: int | None = None
        while True:
            page = await self._store.message_page(session_id, limit=_MESSAGES_MAX, before=before)
            for message in reversed(page.messages):
                if message.id == message_id:
                    return message.version
            if not page.more or not page.messages:
                raise NotFound("Message", message_id)
            before = page.messages[0].version

    async def _position(self, scope: SessionScope, version: int) -> int:
        """Of the record with this version. Versions grow with positions, so halving finds it."""
        low, high = 0, to_position(self._store.head())
        while True:
            middle = (low + high) // 2
            records = await self._store.read(scope, after=to_offset(middle), limit=1)
            if records and records[0].version == version:
                return to_position(records[0].offset)
            if records and records[0].version < version:
                low = to_position(records[0].offset)
            elif low < high:
                high = middle
            else:
                raise NotFound("Message", str(version))


class _Reader:
    """A cursor over one answer."""

    def __init__(
        self, store: SessionStore, path: str, scope: SessionScope, prompt_id: str, start: int, after: int
    ) -> None:
        self._store = store
        self._path = path
        self.scope = scope
        self._maker = ChunkMaker(prompt_id)
        self.position = start
        self._seek: tuple[int, int] | None = split_place(after)
        self._after = after

    async def page(self, *, bytes_max: int) -> Page:
        """The next chunks, as many as fit; `at_tail` when nothing more is recorded, or the turn is over."""
        after = self._after
        pieces: list[bytes] = []
        size = 0
        while not self._maker.over:
            records = await self._store.read(self.scope, after=to_offset(self.position), limit=RECORDS_MAX)
            for record in records:
                piece = self._feed(record)
                pieces += piece
                size += sum(len(chunk) for chunk in piece)
                if self._maker.over:
                    break
                if size > bytes_max:
                    return self._page(after, pieces, at_tail=False)
            if len(records) < RECORDS_MAX:
                break
        self._arrive()
        return self._page(after, pieces, at_tail=True)

    def more(self, records: Sequence[Recorded]) -> Page | None:
        """What was recorded since; None if it says nothing."""
        after = self._after
        pieces = [piece for record in records for piece in self._feed(record)]
        return self._page(after, pieces, at_tail=True) if pieces or self._maker.over else None

    def nothing(self) -> Page:
        return Page(self._stream(), self._after, self._after, b"", True)

    def _feed(self, record: Recorded) -> list[bytes]:
        position = to_position(record.offset)
        if self._seek is not None and position > self._seek[0]:
            self._arrive()
        self.position = position
        event = decode(record.tag, record.data)[1] if type_of(record.tag) not in _UNUSED else None
        chunks = self._maker.feed(record.version, event)
        return [to_json(chunk) for chunk in chunks] if self._seek is None else []

    def _arrive(self) -> None:
        """Everything up to the place that the reader came with was seen."""
        if self._seek is not None:
            self._maker.given(self._seek[1])
            self._seek = None

    def _page(self, after: int, pieces: list[bytes], *, at_tail: bool) -> Page:
        self._after = max(after, join_place(self.position, self._maker.inner), key=split_place)
        run = b"".join([part for piece in pieces for part in (piece, b",")])
        return Page(self._stream(), after, self._after, run, at_tail)

    def _stream(self) -> Stream:
        return Stream(
            id=0,
            path=self._path,
            content_type=JSON,
            created_ms=0,
            touched_ms=0,
            tail=self._after,
            closed=self._maker.over,
        )


class ChatWatch:
    """First pages, up to the newest record; from there a subscription."""

    def __init__(self, reader: _Reader, store: SessionStore) -> None:
        self._reader = reader
        self._store = store
        self._live = Interruptible()
        self._over = False

    async def next(self, *, bytes_max: int) -> Page | None:
        if self._over:
            return None
        if not self._live.is_open:
            page = await self._reader.page(bytes_max=bytes_max)
            self._over = page.at_end
            if page.at_tail:
                after = to_offset(self._reader.position)
                self._live.open(self._store.subscribe(self._reader.scope, after=after))
            if page.data or page.at_end:
                return page
        while True:
            records = await self._live.next()
            if records is None:
                return self._reader.nothing()
            if not records:
                return None
            page = self._reader.more(records)
            if page is not None:
                self._over = page.at_end
                return page

    def interrupt(self) -> None:
        self._live.interrupt()

    def close(self) -> None:
        self._live.close()


def _requests(record: Recorded, prompt_id: str) -> bool:
    if type_of(record.tag) != TurnRequested.type:
        return False
    _, event = decode(record.tag, record.data)
    return isinstance(event, TurnRequested) and event.message_id == prompt_id
