"""What raw ASGI applications share: bodies that come in pieces, answers that are made while they are sent."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Invalid, TooLarge
from holdfast.server.asgi import PIECE_BYTES_MAX, Message, Receive, read_body, send_body, streamed


def receiving(*messages: Message) -> Receive:
    """After these, nothing comes any more."""
    left = list(messages)

    async def receive() -> Message:
        return left.pop(0) if left else await asyncio.get_running_loop().create_future()

    return receive


def body_in(pieces: Sequence[bytes]) -> list[Message]:
    return [
        {"type": "http.request", "body": piece, "more_body": place < len(pieces) - 1}
        for place, piece in enumerate(pieces)
    ]


@given(st.lists(st.binary(max_size=20), min_size=1), st.integers(0, 60), st.booleans())
def test_a_body_in_any_pieces_is_read_as_a_whole_or_refused_for_its_size(
    pieces: list[bytes], bytes_max: int, announced: bool
):
    body = b"".join(pieces)
    headers = {b"content-length": b"%d" % len(body)} if announced else {}
    reading = read_body(receiving(*body_in(pieces)), headers, bytes_max)
    if len(body) > bytes_max:
        with pytest.raises(TooLarge):
            asyncio.run(reading)
    else:
        assert asyncio.run(reading) == body


async def test_nothing_is_read_of_a_body_that_says_it_is_too_large():
    with pytest.raises(TooLarge):
        await read_body(receiving(), {b"content-length": b"11"}, 10)


async def test_a_body_that_is_cut_off_is_refused():
    with pytest.raises(Invalid):
        await read_body(receiving(body_in([b"a", b"b"])[0], {"type": "http.disconnect"}), {}, 10)


async def test_an_answer_is_made_only_for_as_long_as_somebody_reads_it():
    gone = asyncio.Event()
    made: list[int] = []
    sent: list[Message] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            made.append(number)
            yield b"%d" % number

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body") == b"2":
            gone.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    await streamed(pieces(), "text/plain")({}, receive, send)

    assert made[-1] < 10
    assert [message["body"] for message in sent[1:4]] == [b"0", b"1", b"2"]
    assert all(message["more_body"] for message in sent[1:])


async def test_an_answer_that_was_read_to_its_end_says_so():
    sent: list[Message] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"all"

    async def send(message: Any) -> None:
        sent.append(message)

    await streamed(pieces(), "application/x-ndjson")({}, receiving(), send)

    assert sent == [
        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-ndjson")]},
        {"type": "http.response.body", "body": b"all", "more_body": True},
        {"type": "http.response.body", "body": b"", "more_body": False},
    ]


async def test_a_large_body_goes_in_pieces_each_when_the_one_before_was_taken() -> None:
    """A reader who takes nothing is sent one piece."""
    taken = asyncio.Semaphore(0)
    sent: list[Message] = []

    async def send(message: Any) -> None:
        sent.append(message)
        await taken.acquire()

    body = bytes(range(256)) * 4096
    sending = asyncio.ensure_future(send_body(send, body))
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(sent) == 1
    for _ in range(100):
        taken.release()
    await sending

    assert b"".join(message["body"] for message in sent) == body
    assert max(len(message["body"]) for message in sent) == PIECE_BYTES_MAX
    assert [message["more_body"] for message in sent] == [True] * (len(sent) - 1) + [False]
