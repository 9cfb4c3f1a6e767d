"""Durable Streams in a hundred lines of the plainest Python: what the server is held against. No I/O, no offsets of its own:
places are those the server gave, kept beside what had been written up to there."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Place = str


@dataclass
class ModelStream:
    """`records` are appends in order: the place after each, and its messages."""

    records: list[tuple[Place, list[Any]]] = field(default_factory=list[tuple[Place, list[Any]]])
    closed: bool = False
    producers: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    closed_by: tuple[str, int, int] | None = None
    seq: str | None = None
    ttl: int | None = None
    touched_ms: int = 0
    source: "ModelStream | None" = None
    deleted: bool = False
    forks: int = 0

    @property
    def tail(self) -> Place:
        return self.records[-1][0] if self.records else "0000000000000000_0000000000000000"

    def after(self, place: Place) -> list[Any]:
        return [message for at, messages in self.records if at > place for message in messages]


class Model:
    def __init__(self) -> None:
        self.streams: dict[str, ModelStream] = {}
        self.now_ms = 0

    def find(self, path: str) -> ModelStream | int:
        """The stream, or the status that says why not."""
        stream = self.streams.get(path)
        if stream is None:
            return 404
        if stream.deleted:
            return 410
        if self.expired(stream):
            return 404
        return stream

    def expired(self, stream: ModelStream) -> bool:
        return stream.ttl is not None and self.now_ms >= stream.touched_ms + stream.ttl * 1000

    def create(self, path: str, ttl: int | None, source_path: str | None, at: Place | None) -> int:
        """What is refused changes nothing."""
        before = deepcopy(self.streams)
        status = self.try_create(path, ttl, source_path, at)
        if status != 201:
            self.streams = before
        return status

    def try_create(self, path: str, ttl: int | None, source_path: str | None, at: Place | None) -> int:
        old = self.streams.get(path)
        if old is not None and not old.deleted and not self.expired(old):
            return 409  # the rules below never make the same one twice
        if old is not None:
            self.remove(path)
            if path in self.streams:
                return 409
        stream = ModelStream(ttl=ttl, touched_ms=self.now_ms)
        if source_path is not None:
            source = self.find(source_path)
            if isinstance(source, int):
                return 409 if source == 410 else 404
            stream.source = source
            stream.ttl = ttl if ttl is not None else source.ttl
            stream.records = [record for record in source.records if at is None or record[0] <= at]
            source.forks += 1
        self.streams[path] = stream
        return 201

    def append(
        self, path: str, messages: list[Any], *, close: bool, seq: str | None, producer: tuple[str, int, int] | None
    ) -> int:
        stream = self.find(path)
        if isinstance(stream, int):
            return stream
        if producer is not None:
            status = self.judge(stream, producer, close)
            if status is not None:
                if status == 204:
                    stream.touched_ms = self.now_ms
                return status
        if stream.closed:
            if producer is None and close and not messages:
                stream.touched_ms = self.now_ms
                return 204
            return 409
        if seq is not None and stream.seq is not None and seq <= stream.seq:
            return 409
        stream.touched_ms = self.now_ms
        stream.seq = seq if seq is not None else stream.seq
        stream.closed = close
        if producer is not None:
            stream.producers[producer[0]] = producer[1:]
            stream.closed_by = producer if close else None
        return 200 if producer is not None and messages else 204

    def judge(self, stream: ModelStream, producer: tuple[str, int, int], close: bool) -> int | None:
        name, epoch, seq = producer
        known = stream.producers.get(name)
        if known is not None and epoch < known[0]:
            return 403
        if known is not None and epoch == known[0] and seq <= known[1]:
            is_retry = not stream.closed or not close or stream.closed_by == producer
            return 204 if is_retry else 409
        if stream.closed:
            return 409
        if known is None or epoch > known[0]:
            return None if seq == 0 else 409 if known is None else 400
        return None if seq == known[1] + 1 else 409

    def delete(self, path: str) -> int:
        stream = self.find(path)
        if isinstance(stream, int):
            return stream
        self.remove(path)
        return 204

    def remove(self, path: str) -> None:
        stream = self.streams[path]
        stream.deleted = True
        while stream.deleted and not stream.forks:
            self.streams = {name: other for name, other in self.streams.items() if other is not stream}
            if stream.source is None:
                return
            stream = stream.source
            stream.forks -= 1
