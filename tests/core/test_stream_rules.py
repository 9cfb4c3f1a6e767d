"""The rules of streams, told as short stories on books that are two dictionaries."""

from typing import Any

import pytest

from holdfast.core import stream_rules
from holdfast.core.errors import Conflict, Invalid
from holdfast.core.stream_rules import AddRecord, DropStream, PutProducer, PutStream
from holdfast.core.streams import (
    Append,
    ContentTypeConflict,
    Create,
    Producer,
    ProducerFenced,
    ProducerGap,
    ProducerState,
    SequenceConflict,
    Stream,
    StreamAppended,
    StreamClosed,
    StreamGone,
    StreamNotFound,
    TailMoved,
)

JSON = "application/json"


class Books:
    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.records: list[AddRecord] = []
        self.producers: dict[tuple[int, str], ProducerState] = {}
        self.now_ms = 1000
        self.position = 0

    def at(self, path: str) -> Stream | None:
        return next((stream for stream in self.streams.values() if stream.path == path), None)

    def get(self, stream_id: int) -> Stream:
        return self.streams[stream_id]

    def producer(self, stream_id: int, producer_id: str) -> ProducerState | None:
        return self.producers.get((stream_id, producer_id))

    def next_record(self, stream: Stream, after: int) -> bytes | None:
        own = [record.data for record in self.records if record.stream_id == stream.id and record.position > after]
        return own[0] if own else None

    def accessed_ms(self, stream: Stream) -> int:
        return stream.touched_ms

    def new_position(self) -> int:
        self.position += 1
        return self.position

    def _apply(self, changes: Any) -> None:
        for change in changes:
            match change:
                case PutStream(stream):
                    self.streams[stream.id] = stream
                case AddRecord():
                    self.records.append(change)
                case PutProducer(stream_id, producer_id, state):
                    self.producers[stream_id, producer_id] = state
                case DropStream(stream):
                    del self.streams[stream.id]

    def create(self, path: str = "s", **more: Any) -> Stream:
        created, changes = stream_rules.create(self, Create(path=path, **{"content_type": JSON, **more}), self.now_ms)
        self._apply(changes)
        return created.stream

    def append(self, data: bytes = b"1,", path: str = "s", **more: Any) -> StreamAppended:
        command = Append(path=path, data=data, **{"content_type": JSON, **more})
        appended, changes = stream_rules.append(self, command, self.now_ms)
        self._apply(changes)
        return appended

    def delete(self, path: str) -> None:
        self._apply(stream_rules.delete(self, path, self.now_ms))


@pytest.fixture
def books() -> Books:
    books = Books()
    books.create()
    return books


def test_closed_is_asked_before_the_content_type_and_that_before_the_sequence(books: Books) -> None:
    books.append(seq="5")
    with pytest.raises(ContentTypeConflict):
        books.append(content_type="text/plain", seq="1")
    with pytest.raises(SequenceConflict):
        books.append(seq="10")
    books.append(b"", close=True)
    with pytest.raises(StreamClosed):
        books.append(content_type="text/plain", seq="1")


def test_a_retry_is_a_success_even_where_its_sequence_is_used_up(books: Books) -> None:
    first = books.append(producer=Producer("p", 0, 0), seq="1")
    again = books.append(producer=Producer("p", 0, 0), seq="1")

    assert (first.duplicate, again.duplicate) == (False, True)
    assert len(books.records) == 1


def test_a_duplicate_is_told_the_newest_append_of_its_producer(books: Books) -> None:
    for seq in range(3):
        books.append(producer=Producer("p", 0, seq))

    assert books.append(producer=Producer("p", 0, 1)).producer == ProducerState(0, 2)


def test_a_producer_goes_on_by_one_or_begins_anew_at_zero(books: Books) -> None:
    with pytest.raises(ProducerGap):
        books.append(producer=Producer("p", 3, 1))
    books.append(producer=Producer("p", 3, 0))
    with pytest.raises(ProducerGap):
        books.append(producer=Producer("p", 3, 2))
    with pytest.raises(ProducerFenced):
        books.append(producer=Producer("p", 2, 0))
    with pytest.raises(Invalid):
        books.append(producer=Producer("p", 4, 1))
    books.append(producer=Producer("p", 4, 0))


def test_what_is_refused_leaves_the_producer_where_it_was(books: Books) -> None:
    with pytest.raises(TailMoved):
        books.append(producer=Producer("p", 0, 0), expected_tail=99)
    with pytest.raises(ContentTypeConflict):
        books.append(producer=Producer("p", 0, 0), content_type="text/plain")

    assert not books.append(producer=Producer("p", 0, 0)).duplicate


def test_closing_is_remembered_by_who_did_it(books: Books) -> None:
    books.append(producer=Producer("p", 0, 0))
    books.append(producer=Producer("p", 0, 1), close=True)

    assert books.append(b"other,", producer=Producer("p", 0, 1), close=True).duplicate
    assert books.append(producer=Producer("p", 0, 0)).duplicate  # a late retry of what was recorded
    with pytest.raises(StreamClosed):
        books.append(producer=Producer("p", 0, 2), close=True)
    with pytest.raises(StreamClosed):
        books.append(producer=Producer("q", 0, 0))


def test_a_fork_takes_what_its_source_leaves_open(books: Books) -> None:
    source = books.create("a", ttl_seconds=60)
    fork = books.create("b", content_type=None, source_path="a")
    books.create("c", source_path="a", ttl_seconds=5)

    assert (fork.content_type, fork.ttl_seconds, fork.fork_at) == (JSON, 60, source.tail)
    assert books.at("c") is not None
    assert books.get(source.id).forks == 2


def test_a_refused_fork_leaves_no_mark_on_its_source(books: Books) -> None:
    with pytest.raises(ContentTypeConflict):
        books.create("b", content_type="text/plain", source_path="s")
    with pytest.raises(Invalid):
        books.create("b", source_path="s", fork_at=99)

    source = books.at("s")
    assert source is not None
    assert source.forks == 0


def test_a_deleted_source_waits_for_its_last_fork(books: Books) -> None:
    books.create("b", source_path="s")
    books.create("c", source_path="b")
    books.delete("s")
    books.delete("b")
    with pytest.raises(StreamGone):
        books.append()
    with pytest.raises(Conflict):
        books.create("d", source_path="b")
    books.delete("c")

    assert books.streams == {}


def test_a_sub_offset_cuts_the_next_append_and_nothing_beyond(books: Books) -> None:
    books.append(b"1,2,3,")
    books.create("b", source_path="s", fork_at=0, sub_offset=2)

    assert [record.data for record in books.records] == [b"1,2,3,", b"1,2,"]
    with pytest.raises(Invalid):
        books.create("c", source_path="s", fork_at=0, sub_offset=4)


def test_time_is_up_at_the_second_not_after_it(books: Books) -> None:
    books.create("t", ttl_seconds=2)
    books.now_ms += 1999
    books.append(path="t")
    books.now_ms += 2000
    with pytest.raises(StreamNotFound):
        books.append(path="t")

    assert books.create("t").tail == 0
