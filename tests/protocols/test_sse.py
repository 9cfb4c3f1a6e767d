"""The parser against the standard's rules, and against itself under every split."""

import re
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocols.sse import (
    Decoder,
    LocalProtocolError,
    RemoteProtocolError,
    ServerSentEvent,
    encode_comment,
    encode_event,
)

BOM = b"\xef\xbb\xbf"


def events(*pieces: bytes) -> list[ServerSentEvent]:
    decoder = Decoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def outcome(pieces: Iterable[bytes], event_bytes_max: int = 40) -> tuple[list[ServerSentEvent], str, int | None, bool]:
    """What a reader sees of the stream: the events, the last id, the retry time, and whether it ended in an error."""
    decoder = Decoder(event_bytes_max=event_bytes_max)
    seen: list[ServerSentEvent] = []
    failed = False
    try:
        for piece in pieces:
            seen.extend(decoder.feed(piece))  # extend keeps what came before an error
    except RemoteProtocolError:
        failed = True
    return seen, decoder.last_event_id, decoder.retry_ms, failed


def by_the_book(data: bytes) -> list[ServerSentEvent]:
    """The standard's algorithm word by word, over the whole text."""
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    found: list[ServerSentEvent] = []
    buffer, kind, last_id = "", "", ""
    *lines, _ = re.split("\r\n|\r|\n", text)
    for line in lines:
        if not line:
            if buffer:
                found.append(ServerSentEvent(buffer.removesuffix("\n"), kind or "message", last_id))
            buffer, kind = "", ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            buffer += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return found


# --- properties

pieces_of_streams = st.sampled_from(
    [
        *(
            b"data: a",
            b"data",
            b"data:",
            b"data:  b",
            b"id: 7",
            b"id",
            b"id: a\0b",
            b"event: x",
            b"retry: 15",
            b"retry: x",
        ),
        *(
            b"\n",
            b"\n\n",
            b"\r",
            b"\r\n",
            b"\r\n\r\n",
            b": comment",
            b":",
            b"other: y",
            BOM,
            b"\xe2\x82",
            b"\xac",
            b"\xff",
        ),
        *(b" ", "data: ä€😀".encode()),
    ]
)
streams = st.lists(pieces_of_streams, max_size=30).map(b"".join) | st.binary(max_size=120)


@st.composite
def split(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    data = draw(whole)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return data, [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@given(split(streams))
def test_any_split_of_any_bytes_gives_the_same_events(case: tuple[bytes, list[bytes]]) -> None:
    data, pieces = case

    assert outcome([data]) == outcome(pieces) == outcome(data[at : at + 1] for at in range(len(data)))


@given(streams)
def test_the_parser_agrees_with_the_standard_read_word_by_word(data: bytes) -> None:
    assert by_the_book(data) == events(data)


# surrogates are no UTF-8
texts = st.text(st.characters(exclude_categories=["Cs"]))
one_line = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"))


@given(
    st.lists(
        st.tuples(texts, st.none() | one_line, st.none() | one_line.filter(lambda id: "\0" not in id), st.booleans()),
        max_size=5,
    )
)
def test_what_was_encoded_is_decoded_again(frames: list[tuple[str, str | None, str | None, bool]]) -> None:
    stream = b""
    expected: list[ServerSentEvent] = []
    last_id = ""
    for data, event, id, comment in frames:
        stream += (encode_comment(data) if comment else b"") + encode_event(data.encode(), event=event, id=id)
        last_id = last_id if id is None else id
        lines = data.replace("\r\n", "\n").replace("\r", "\n")
        expected.append(ServerSentEvent(lines, event or "message", last_id))

    assert expected == events(stream)


# --- rules


def test_lines_end_with_lf_cr_or_crlf() -> None:
    assert [ServerSentEvent("1\n2"), ServerSentEvent("3")] == events(b"data: 1\rdata: 2\r\n\ndata: 3\n\r")


def test_a_cr_ends_its_line_at_once_and_the_lf_after_it_is_no_second_end() -> None:
    decoder = Decoder()

    assert [ServerSentEvent("1")] == list(decoder.feed(b"data: 1\r\r"))
    assert list(decoder.feed(b"\ndata: 2\r")) == []
    assert [ServerSentEvent("2")] == list(decoder.feed(b"\n\r"))


def test_a_byte_order_mark_counts_only_at_the_beginning() -> None:
    assert [ServerSentEvent("1")] == events(BOM[:2], BOM[2:] + b"data: 1\n\n" + BOM + b"data: 2\n\n")


def test_a_character_split_between_reads_is_whole() -> None:
    euro = "data: €\n\n".encode()

    assert [ServerSentEvent("€")] == events(euro[:7], euro[7:8], euro[8:])


def test_one_space_after_the_colon_is_not_part_of_the_value() -> None:
    assert [ServerSentEvent(" 1\n2\n")] == events(b"data:  1\ndata:2\ndata\n\n")


def test_an_event_without_data_is_none_but_its_id_counts() -> None:
    decoder = Decoder()

    assert list(decoder.feed(b"id: 7\nevent: x\n\n")) == []
    assert decoder.last_event_id == "7"
    assert [ServerSentEvent("1", "message", "7")] == list(decoder.feed(b"data: 1\n\n"))


def test_an_id_counts_only_once_its_event_is_complete() -> None:
    decoder = Decoder(last_event_id="3")
    list(decoder.feed(b"id: 4\ndata: half"))

    assert decoder.last_event_id == "3"


def test_an_id_with_a_nul_is_ignored_and_an_empty_one_resets() -> None:
    assert [(event.data, event.id) for event in events(b"id: a\ndata: 1\n\nid: b\0\ndata: 2\n\nid\ndata: 3\n\n")] == [
        ("1", "a"),
        ("2", "a"),
        ("3", ""),
    ]


def test_retry_takes_digits_only() -> None:
    decoder = Decoder()
    list(decoder.feed(b"retry: 1500\nretry: 2s\nretry: -1\nretry:\nretry: " + b"9" * 5000 + b"\n"))

    assert decoder.retry_ms == 1500


def test_what_follows_the_last_blank_line_is_dropped() -> None:
    assert [ServerSentEvent("1")] == events(b"data: 1\n\ndata: 2\n")


@pytest.mark.parametrize("stream", [b"data: " + b"x" * 60, b"x" * 60 + b"\n", b"data: 12345678901234567890\n" * 3])
def test_a_line_or_an_event_that_is_too_long_is_the_servers_fault(stream: bytes) -> None:
    good = b"data: 1\n\n"
    decoder = Decoder(event_bytes_max=40)
    seen: list[ServerSentEvent] = []

    with pytest.raises(RemoteProtocolError, match="longer than 40 bytes"):
        seen.extend(decoder.feed(good + stream))

    assert [ServerSentEvent("1")] == seen


def test_frames_have_the_shape_that_readers_expect() -> None:
    assert encode_event(b"1\n2", event="x", id="7", retry_ms=5) == b"id: 7\nevent: x\nretry: 5\ndata: 1\ndata: 2\n\n"
    assert encode_event(b"{}") == b"data: {}\n\n"
    assert encode_comment("still here") == b": still here\n\n"


@pytest.mark.parametrize("fields", [{"id": "a\nb"}, {"id": "a\0"}, {"event": "a\r"}])
def test_an_id_or_name_that_would_break_the_frame_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        encode_event(b"1", **fields)  # pyright: ignore[reportArgumentType]
