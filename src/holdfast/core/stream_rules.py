"""What may happen to a stream: state and command → outcome and changes. Pure; a backend runs it inside its transaction.

A backend gives `Books` to read from and carries out the changes, in order, or none of them. Both backends decide here, so
they cannot differ.

Rules of an append, in the order they are asked
 1. The stream is there: not deleted, not expired.
 2. It is open. (Closing it again is fine, and so is the very append that closed it.)
 3. The content type is the stream's.
 4. The producer: an append it has made before is a success, and changes nothing; an older incarnation is fenced off; a gap
    is refused. A producer is unknown until its append 0, at whatever epoch.
 5. `Stream-Seq` grows.
 6. The tail is the expected one.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from holdfast.core.errors import Conflict, Invalid
from holdfast.core.json_runs import split
from holdfast.core.offsets import to_offset
from holdfast.core.streams import (
    DEFAULT_CONTENT_TYPE,
    JSON,
    Append,
    ContentTypeConflict,
    Create,
    Created,
    Producer,
    ProducerFenced,
    ProducerGap,
    ProducerState,
    SequenceConflict,
    Stream,
    StreamAppended,
    StreamClosed,
    StreamConfigConflict,
    StreamGone,
    StreamNotFound,
    TailMoved,
    media_type,
)


class Books(Protocol):
    """What the rules read. It shows all that was decided before, durable or not."""

    def at(self, path: str) -> Stream | None:
        """Also one that is deleted or expired, as long as it holds its path."""
        ...

    def get(self, stream_id: int) -> Stream: ...

    def producer(self, stream_id: int, producer_id: str) -> ProducerState | None: ...

    def next_record(self, stream: Stream, after: int) -> bytes | None:
        """The first record of a stream, inherited or its own, after a position."""
        ...

    def accessed_ms(self, stream: Stream) -> int:
        """The newest access, with reads that are not written down yet; the present, if somebody watches it."""
        ...

    def new_position(self) -> int:
        """Greater than every one before."""
        ...


class PutStream(NamedTuple):
    stream: Stream


class AddRecord(NamedTuple):
    stream_id: int
    position: int
    data: bytes


class PutProducer(NamedTuple):
    stream_id: int
    producer_id: str
    state: ProducerState


class DropStream(NamedTuple):
    """The stream, its records and producers; its path is free."""

    stream: Stream


Change = PutStream | AddRecord | PutProducer | DropStream


def is_expired(stream: Stream, accessed_ms: int, now_ms: int) -> bool:
    if stream.expires_at_ms is not None:
        return now_ms >= stream.expires_at_ms
    return stream.ttl_seconds is not None and now_ms >= accessed_ms + stream.ttl_seconds * 1000


def find(books: Books, path: str, now_ms: int) -> Stream:
    """The living stream at a path."""
    stream = books.at(path)
    if stream is None:
        raise StreamNotFound(path)
    if stream.deleted:
        raise StreamGone(path)
    if is_expired(stream, books.accessed_ms(stream), now_ms):
        raise StreamNotFound(path)
    return stream


# --- append -----------------------------------------------------------------------------------------------------


def append(books: Books, command: Append, now_ms: int) -> tuple[StreamAppended, Sequence[Change]]:
    """Raises StreamNotFound, StreamGone, StreamClosed, ContentTypeConflict, ProducerFenced, ProducerGap, SequenceConflict,
    TailMoved; Invalid for an epoch that does not begin at 0."""
    stream = find(books, command.path, now_ms)
    producer = command.producer
    known = books.producer(stream.id, producer.id) if producer is not None else None
    if stream.closed:
        return _append_closed(stream, command, known), ()
    if command.data and media_type(command.content_type or "") != media_type(stream.content_type):
        raise ContentTypeConflict(f"This stream holds {stream.content_type}, not {command.content_type}.")
    if producer is not None and _is_duplicate(producer, known):
        return StreamAppended(stream, known, True), ()
    if command.seq is not None and stream.seq is not None and command.seq.encode() <= stream.seq.encode():
        raise SequenceConflict(f"Stream-Seq must be greater than {stream.seq!r}.")
    if command.expected_tail is not None and command.expected_tail != stream.tail:
        raise TailMoved(stream)

    changes: list[Change] = []
    tail, size = stream.tail, len(command.data)
    if size:
        tail = books.new_position()
        changes.append(AddRecord(stream.id, tail, command.data))
    stream = replace(
        stream,
        tail=tail,
        closed=command.close,
        closed_by=tuple(producer) if command.close and producer is not None else None,
        seq=command.seq if command.seq is not None else stream.seq,
        touched_ms=now_ms,
        records=stream.records + (1 if size else 0),
        bytes=stream.bytes + size,
        snapshot=command.snapshot or stream.snapshot,
    )
    changes.append(PutStream(stream))
    state = None
    if producer is not None:
        state = ProducerState(producer.epoch, producer.seq)
        changes.append(PutProducer(stream.id, producer.id, state))
    return StreamAppended(stream, state, False), changes


def _append_closed(stream: Stream, command: Append, known: ProducerState | None) -> StreamAppended:
    producer = command.producer
    if producer is None:
        if command.close and not command.data:
            return StreamAppended(stream, None, True)
    elif known is not None:
        if producer.epoch < known.epoch:
            raise ProducerFenced(known.epoch)
        is_made = producer.epoch == known.epoch and producer.seq <= known.seq
        if stream.closed_by == tuple(producer) or (is_made and not command.close):
            return StreamAppended(stream, known, True)
    raise StreamClosed(stream)


def _is_duplicate(producer: Producer, known: ProducerState | None) -> bool:
    """Or raises, if it is neither that nor the next one."""
    if known is None:
        if producer.seq != 0:
            raise ProducerGap(0, producer.seq)
        return False
    if producer.epoch < known.epoch:
        raise ProducerFenced(known.epoch)
    if producer.epoch > known.epoch:
        if producer.seq != 0:
            raise Invalid("A new epoch begins with Producer-Seq 0.", field="Producer-Seq")
        return False
    if producer.seq > known.seq + 1:
        raise ProducerGap(known.seq + 1, producer.seq)
    return producer.seq <= known.seq


# --- create -----------------------------------------------------------------------------------------------------


def create(books: Books, command: Create, now_ms: int) -> tuple[Created, Sequence[Change]]:
    """Raises StreamConfigConflict if there is another stream at the path; for a fork also StreamNotFound (no source),
    Conflict (source deleted), ContentTypeConflict, and Invalid or StreamGone for a place that the source does not have."""
    draft = _Draft(books)
    existing = books.at(command.path)
    if existing is not None:
        if not existing.deleted and not is_expired(existing, books.accessed_ms(existing), now_ms):
            if not _is_same(existing, command):
                raise StreamConfigConflict(f"There is another stream at {command.path[:200]}.")
            return Created(existing, True), ()
        draft.remove(existing)
        if existing.forks:
            raise StreamConfigConflict(f"The stream at {command.path[:200]} was deleted, but its forks need it.")

    stream = Stream(
        id=books.new_position(),
        path=command.path,
        content_type=command.content_type or DEFAULT_CONTENT_TYPE,
        created_ms=now_ms,
        touched_ms=now_ms,
        closed=command.closed,
        ttl_seconds=command.ttl_seconds,
        expires_at_ms=command.expires_at_ms,
        expires_at=command.expires_at,
        retention=command.retention,
        snapshot=command.snapshot,
    )
    prefix = b""
    if command.source_path is not None:
        stream, prefix = _fork(draft, stream, command, now_ms)
    for data in (prefix, command.data):
        if data:
            position = books.new_position()
            draft.changes.append(AddRecord(stream.id, position, data))
            stream = replace(stream, tail=position, records=stream.records + 1, bytes=stream.bytes + len(data))
    draft.changes.append(PutStream(stream))
    return Created(stream, False), draft.changes


def _is_same(stream: Stream, command: Create) -> bool:
    """Is the stream as the command would make it? A fork takes from its source what the command leaves out."""
    is_fork = command.source_path is not None
    content_type = command.content_type or (stream.content_type if is_fork else DEFAULT_CONTENT_TYPE)
    inherits_expiry = is_fork and command.ttl_seconds is None and command.expires_at_ms is None
    return (
        media_type(content_type) == media_type(stream.content_type)
        and stream.closed == command.closed
        and (inherits_expiry or stream.ttl_seconds == command.ttl_seconds)
        and (inherits_expiry or stream.expires_at_ms == command.expires_at_ms)
        and stream.source_path == command.source_path
        and stream.fork_given == command.fork_at
        and stream.sub_offset == command.sub_offset
        and stream.retention == command.retention
    )


def _fork(draft: "_Draft", stream: Stream, command: Create, now_ms: int) -> tuple[Stream, bytes]:
    """The stream as a fork, and what it gets of the record that `sub_offset` cuts through."""
    assert command.source_path is not None
    source = draft.at(command.source_path)
    if source is None:
        raise StreamNotFound(command.source_path)
    if source.deleted:
        raise Conflict(f"The stream to fork from was deleted: {command.source_path[:200]}")
    if is_expired(source, draft.books.accessed_ms(source), now_ms):
        raise StreamNotFound(command.source_path)
    if command.content_type is not None and media_type(command.content_type) != media_type(source.content_type):
        raise ContentTypeConflict(f"The stream to fork from holds {source.content_type}.")
    at = source.tail if command.fork_at is None else command.fork_at
    if at > source.tail:
        raise Invalid("The fork offset is beyond the end of the stream.", field="Stream-Fork-Offset")
    if 0 < at < source.horizon:
        raise StreamGone(source.path, earliest=to_offset(source.horizon), snapshot=source.snapshot)
    prefix = b""
    if command.sub_offset:
        record = draft.books.next_record(source, at)
        prefix = _head_of(record, command.sub_offset, media_type(source.content_type) == JSON)
    own_expiry = command.ttl_seconds is not None or command.expires_at_ms is not None
    draft.put(replace(source, forks=source.forks + 1))
    return replace(
        stream,
        content_type=command.content_type or source.content_type,
        ttl_seconds=command.ttl_seconds if own_expiry else source.ttl_seconds,
        expires_at_ms=command.expires_at_ms if own_expiry else source.expires_at_ms,
        expires_at=command.expires_at if own_expiry else source.expires_at,
        tail=at,
        source_id=source.id,
        source_path=source.path,
        fork_at=at,
        fork_given=command.fork_at,
        sub_offset=command.sub_offset,
        horizon=source.horizon if at > source.horizon else 0,
    ), prefix


def _head_of(record: bytes | None, count: int, is_json: bool) -> bytes:
    parts = (split(record) if is_json else record) if record is not None else b""
    if count > len(parts):
        raise Invalid("The sub-offset is beyond the append that follows.", field="Stream-Fork-Sub-Offset")
    head = parts[:count]
    return head if isinstance(head, bytes) else b",".join(head) + b","


# --- remove -----------------------------------------------------------------------------------------------------


def delete(books: Books, path: str, now_ms: int) -> Sequence[Change]:
    """Raises StreamNotFound, StreamGone."""
    draft = _Draft(books)
    draft.remove(find(books, path, now_ms))
    return draft.changes


def expire(books: Books, stream: Stream, now_ms: int) -> Sequence[Change]:
    """What an expired stream leaves to be done. Nothing, if it is not expired or its forks still need it."""
    draft = _Draft(books)
    if is_expired(stream, books.accessed_ms(stream), now_ms) and not (stream.deleted and stream.forks):
        draft.remove(stream)
    return draft.changes


class _Draft:
    """Changes so far, and the streams as they leave them."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.changes: list[Change] = []
        self._changed: dict[int, Stream | None] = {}

    def at(self, path: str) -> Stream | None:
        stream = self.books.at(path)
        return self._changed.get(stream.id, stream) if stream is not None else None

    def put(self, stream: Stream) -> None:
        self._changed[stream.id] = stream
        self.changes.append(PutStream(stream))

    def remove(self, stream: Stream) -> None:
        """Delete it, and every deleted source that only it still needed. With forks of its own, it waits for them."""
        if stream.forks:
            self.put(replace(stream, deleted=True))
            return
        while True:
            self._changed[stream.id] = None
            self.changes.append(DropStream(stream))
            if stream.source_id is None:
                return
            source = self._changed.get(stream.source_id) or self.books.get(stream.source_id)
            source = replace(source, forks=source.forks - 1)
            if source.forks or not source.deleted:
                self.put(source)
                return
            stream = source
