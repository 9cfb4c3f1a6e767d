"""Paths, cursors, patterns, frames: each alone, fed with text and bytes."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.protocols.durable_streams.cursors import EPOCH_MS, INTERVAL_MS, next_cursor
from holdfast.protocols.durable_streams.errors import RemoteProtocolError
from holdfast.protocols.durable_streams.frames import control_event, data_event, data_event_in_pieces
from holdfast.protocols.durable_streams.globs import DEEP_MAX, compile_glob, matches
from holdfast.protocols.durable_streams.paths import parse_path, to_target
from holdfast.protocols.sse import Decoder

OFFSET = "0000000000000042_0000000000000000"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"/",
        b"a//b",
        b"../a",
        b"a/../b",
        b"a/%2e%2e/b",
        b"a%00b",
        b"a%0ab",
        b"%ff",
        b"x" * 3000,
        b".",
        b"a%7fb",
        b"a%c2%85b",
        b"%c2%9b",
        b"%ef%bf%bf",
        b"%ef%b7%90",
        b"%f4%8f%bf%be",
        b"%ed%a0%80",
        b"%c0%80",
    ],
)
def test_a_path_that_names_no_stream_is_refused(raw: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_path(raw)


@pytest.mark.parametrize(
    "path", ["a\u00a0b", "\u2028", "\u0644\u200d\u0644", "\U0001f469\u200d\U0001f680", "\ue000", "\u202e"]
)
def test_what_cannot_be_seen_may_be_in_a_path(path: str) -> None:
    assert parse_path(to_target(path).encode()) == path


def _is_noncharacter(character: str) -> bool:
    return 0xFDD0 <= ord(character) <= 0xFDEF or ord(character) & 0xFFFE == 0xFFFE


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), min_size=1, max_size=4))
def test_a_path_survives_the_way_to_the_wire_and_back(segments: list[str]) -> None:
    path = "/".join(segment.replace("/", "") or "x" for segment in segments)
    if any(segment in (".", "..") for segment in path.split("/")) or len(to_target(path)) > 2048:
        return
    if any(_is_noncharacter(character) for character in path):
        return

    assert parse_path(to_target(path).encode()) == path


@given(
    st.integers(EPOCH_MS, EPOCH_MS * 2),
    st.none() | st.integers(0, 10**9).map(str) | st.text(max_size=5),
    st.integers(0, 3599),
)
def test_a_cursor_is_never_what_the_client_had_and_never_in_the_past(
    now_ms: int, client: str | None, random: int
) -> None:
    current = (now_ms - EPOCH_MS) // INTERVAL_MS
    cursor = int(next_cursor(client, now_ms, lambda _: random))

    assert cursor >= current
    if client is not None and client.isascii() and client.isdigit() and int(client) >= current:
        assert int(client) < cursor <= int(client) + 180


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("events/*", ["events/a"], ["events", "events/a/b", "x/a"]),
        ("a/**", ["a", "a/b", "a/b/c"], ["b", "ab"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["xx", "a/xx"]),
        ("a/**/b", ["a/b", "a/c/b", "a/c/d/b"], ["ab", "a/bc"]),
        ("**/**", ["a", "a/b"], []),
        ("a/%2A", ["a/*"], ["a/b"]),
        ("a.c", ["a.c"], ["abc"]),
    ],
)
def test_a_star_is_a_segment_and_two_are_any_number_of_them(pattern: str, yes: list[str], no: list[str]) -> None:
    glob = compile_glob(pattern)

    assert [path for path in yes + no if matches(glob, path)] == yes


_SEGMENTS = st.lists(st.sampled_from(["a", "b", "*", "**", "%2A"]), min_size=1, max_size=6)


@given(_SEGMENTS, st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=7))
def test_a_pattern_means_what_the_plainest_reading_of_it_means(pattern: list[str], path: list[str]) -> None:
    def means(pattern: list[str], path: list[str]) -> bool:
        if not pattern:
            return not path
        first, rest = pattern[0], pattern[1:]
        if first == "**":
            return any(means(rest, path[at:]) for at in range(len(path) + 1))
        return bool(path) and first in ("*", path[0].replace("*", "%2A")) and means(rest, path[1:])

    if pattern.count("**") <= DEEP_MAX:
        assert matches(compile_glob("/".join(pattern)), "/".join(path)) == means(pattern, path)


def test_a_long_path_takes_no_pattern_long() -> None:
    """It took hours."""
    assert not matches(compile_glob("**/a/**/a/**/a/**/b"), "/".join(["a"] * 1024))


def test_a_pattern_that_would_be_slow_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        compile_glob("**/a/**/a/**/a/**/a/**/a")


@given(st.text() | st.text(" \n\rx"))
def test_a_text_payload_cannot_forge_an_event(text: str) -> None:
    frame = data_event(text.encode(), text=True) + control_event(OFFSET, cursor="7", up_to_date=True, closed=False)
    events = list(Decoder().feed(frame))  # which drops events without data: those of an empty payload

    assert [event.event for event in events] == (["data", "control"] if len(events) == 2 else ["control"])
    if len(events) == 2:
        assert events[0].data == text.replace("\r\n", "\n").replace("\r", "\n")
    assert json.loads(events[-1].data) == {"streamNextOffset": OFFSET, "streamCursor": "7", "upToDate": True}
    assert events[-1].id == OFFSET


@given(st.binary())
def test_bytes_go_as_base64_of_their_own(payload: bytes) -> None:
    (event,) = Decoder().feed(data_event(payload, text=False)) if payload else [None]

    assert event is None or base64.b64decode(event.data) == payload


@given(st.text() | st.text(" \n\rx"), st.integers(1, 5), st.booleans())
def test_in_pieces_an_event_is_the_same(payload: str, size: int, text: bool) -> None:
    """Wherever it is cut: also between the two characters of a line end."""
    data = payload.encode()

    assert b"".join(data_event_in_pieces(data, text=text, size=size)) == data_event(data, text=text)


@given(st.text(" \n\rx"), st.integers(1, 5))
def test_in_pieces_a_payload_may_stand_between_others(payload: str, size: int) -> None:
    data = payload.encode()
    pieces = data_event_in_pieces(data + b",", text=True, size=size, start=b"[", end=b"]", until=len(data))

    assert b"".join(pieces) == data_event(b"[" + data + b"]", text=True)


def test_the_last_control_event_has_no_cursor() -> None:
    (event,) = Decoder().feed(control_event(OFFSET, cursor="7", up_to_date=True, closed=True))

    assert json.loads(event.data) == {"streamNextOffset": OFFSET, "upToDate": True, "streamClosed": True}
