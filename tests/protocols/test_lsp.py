"""Messages of the language server protocol, in whatever pieces they come."""

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.protocols.lsp import (
    HEADER_BYTES_MAX,
    Answer,
    Decoder,
    Message,
    Notification,
    RemoteProtocolError,
    Request,
    encode_answer,
    encode_notification,
    encode_refusal,
    encode_request,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ENCODED = st.one_of(
    st.builds(encode_request, st.integers(0, 99), st.sampled_from(["a", "b/c"]), JSON),
    st.builds(encode_notification, st.sampled_from(["a", "$/b"]), JSON),
    st.builds(encode_answer, st.integers(0, 99) | st.just("x"), JSON),
    st.builds(encode_refusal, st.integers(0, 99), st.just(-1), st.just("no")),
)
PIECE = ENCODED | st.binary(max_size=12) | st.sampled_from([b"Content-Length: 3\r\n\r\n{} ", b"\r\n\r\n", b"A: b\r\n"])


def outcome(pieces: Iterable[bytes], content_bytes_max: int = 200) -> tuple[list[Message], bool]:
    """The messages that were read, and whether that ended in an error."""
    decoder = Decoder(content_bytes_max=content_bytes_max)
    seen: list[Message] = []
    try:
        for piece in pieces:
            seen.extend(decoder.feed(piece))
    except RemoteProtocolError:
        return seen, True
    return seen, False


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


@given(st.lists(PIECE, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
@example([b"A: " + b"x" * (HEADER_BYTES_MAX - 3) + b"\r\n\r\n", encode_answer(1, 1)], [HEADER_BYTES_MAX + 3])
@example([b"Content-Length:1\r\nA:" + b"x" * (HEADER_BYTES_MAX - 20) + b"\r\n\r\n1"], [HEADER_BYTES_MAX + 2])
def test_any_bytes_in_any_splits_give_the_same_messages_or_the_same_error(pieces: list[bytes], cuts: list[int]):
    data = b"".join(pieces)
    whole = outcome([data])
    assert outcome(split(data, cuts)) == whole
    assert outcome(data[at : at + 1] for at in range(len(data))) == whole


@given(st.integers(0, 99), st.text(st.characters(exclude_categories=("Cs",))), JSON)
def test_what_is_written_is_read_again(id: int, text: str, value: object):
    data = (
        encode_request(id, text, value)
        + encode_notification(text, value)
        + encode_answer(text, value)
        + encode_refusal(id, -1, text)
    )
    request, notification, answer, refusal = outcome([data], 1 << 20)[0]

    assert isinstance(request, Request)
    assert (request.id, request.method, json.loads(request.params)) == (id, text, value)
    assert isinstance(notification, Notification)
    assert (notification.method, json.loads(notification.params)) == (text, value)
    assert isinstance(answer, Answer)
    assert (answer.id, json.loads(answer.result), answer.error) == (text, value, None)
    assert refusal == Answer(id, b"null", text, -1)


def test_other_headers_and_other_spellings_are_taken():
    data = b'content-LENGTH:  13 \r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n{"method":"a"}'
    assert outcome([data.replace(b"13", b"14")]) == ([Notification("a", b"null")], False)


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"A: b\r\n\r\n",
        b"Content-Length: x\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 201\r\n\r\n",
        b"Content-Length: 9999999999999999999\r\n\r\n",
        b"Content-Length: 0\r\n\r\n",
        b"Content-Length: 2\r\n\r\n[]",
        b'Content-Length: 10\r\n\r\n{"id": {}} ',
        b'Content-Length: 10\r\n\r\n{"id": "\xff"}',
        b"Content-Length: 200\r\n\r\n" + b"[" * 200,
        b"x" * (HEADER_BYTES_MAX + 4),
    ],
)
def test_what_cannot_be_read_is_an_error_after_what_came_before(data: bytes):
    assert outcome([encode_notification("a", None), data]) == ([Notification("a", b"null")], True)
