"""Byte streams in memory: the plainest backend of `storage.byte_streams`. Durable for as long as the process."""

from bisect import bisect_right
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from holdfast.core import stream_rules
from holdfast.core.offsets import position_of
from holdfast.core.stream_rules import AddRecord, Change, DropStream, PutProducer, PutStream
from holdfast.core.streams import ProducerState, Stream
from holdfast.storage.byte_streams import Access, Decide, Piece, Streams, let_go, segments

T = TypeVar("T")


class MemoryByteStreams:
    """`streams` is the port. Also the `Books` of `core.stream_rules`."""

    def __init__(self, clock_ms: Callable[[], int]) -> None:
        self._clock_ms = clock_ms
        self._access = Access(clock_ms)
        self._by_path: dict[str, Stream] = {}
        self._by_id: dict[int, Stream] = {}
        self._records: dict[int, list[Piece]] = {}
        self._producers: dict[int, dict[str, ProducerState]] = {}
        self._position = 0
        self.streams = Streams(self, self._access)

    # --- books

    def at(self, path: str) -> Stream | None:
        return self._by_path.get(path)

    def get(self, stream_id: int) -> Stream:
        return self._by_id[stream_id]

    def producer(self, stream_id: int, producer_id: str) -> ProducerState | None:
        return self._producers.get(stream_id, {}).get(producer_id)

    def next_record(self, stream: Stream, after: int) -> bytes | None:
        pieces = self._pieces(stream, after, 0)
        return pieces[0][1] if pieces else None

    def accessed_ms(self, stream: Stream) -> int:
        return self._access.newest_ms(stream)

    def new_position(self) -> int:
        self._position = max(self._position + 1, position_of(self._clock_ms()))
        return self._position

    # --- backend

    async def transact(self, decide: Decide[T]) -> T:
        outcome, changes = decide(self)
        for change in changes:
            self._apply(change)
        self.streams.publish(changes)
        return outcome

    def _apply(self, change: Change) -> None:
        match change:
            case PutStream(stream):
                self._by_path[stream.path] = self._by_id[stream.id] = stream
            case AddRecord(stream_id, position, data):
                self._records.setdefault(stream_id, []).append((position, data))
            case PutProducer(stream_id, producer_id, state):
                self._producers.setdefault(stream_id, {})[producer_id] = state
            case DropStream(stream):
                self._by_path.pop(stream.path)
                self._by_id.pop(stream.id)
                self._records.pop(stream.id, None)
                self._producers.pop(stream.id, None)

    def load(self, path: str) -> Stream | None:
        return self._by_path.get(path)

    async def pieces(self, stream: Stream, *, after: int, bytes_max: int) -> tuple[int, list[Piece]]:
        return self._by_id[stream.id].horizon, self._pieces(stream, after, bytes_max)

    def _pieces(self, stream: Stream, after: int, bytes_max: int) -> list[Piece]:
        found: list[Piece] = []
        size = 0
        for stream_id, low, high in segments(stream, self.get, after):
            records = self._records.get(stream_id, [])
            for index in range(bisect_right(records, low, key=_position), bisect_right(records, high, key=_position)):
                size += len(records[index][1])
                if found and size > bytes_max:
                    return found
                found.append(records[index])
        return found

    def paths(self) -> list[tuple[str, int]]:
        return [(stream.path, stream.tail) for stream in self._by_path.values() if not stream.deleted]

    async def upkeep(self, now_ms: int, touched: dict[int, int]) -> None:
        for stream_id, at_ms in touched.items():
            stream = self._by_id.get(stream_id)
            if stream is not None and stream.ttl_seconds is not None and stream.touched_ms < at_ms:
                await self.transact(lambda books, s=stream, at=at_ms: (None, (PutStream(replace(s, touched_ms=at)),)))
        for stream in list(self._by_id.values()):
            if stream.id in self._by_id:
                await self.transact(
                    lambda books, s=stream: (None, stream_rules.expire(books, self._by_id[s.id], now_ms))
                )
        for stream in list(self._by_id.values()):
            self._retain(stream, now_ms)

    def _retain(self, stream: Stream, now_ms: int) -> None:
        records = self._records.get(stream.id, [])
        changed = let_go(stream, [(position, len(data)) for position, data in records], now_ms)
        if changed is not None:
            del records[: stream.records - changed.records]
            self._apply(PutStream(changed))
            self.streams.publish((PutStream(changed),))


def _position(piece: Piece) -> int:
    return piece[0]
