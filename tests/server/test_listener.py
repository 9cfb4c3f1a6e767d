"""What of an answer leaves together."""

import asyncio
from typing import Any

import pytest

from holdfast.server.listener import COPIED_BYTES_MAX, AnswerTransport


class Wire(asyncio.Transport):
    """Keeps what was written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.sent.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


@pytest.fixture
async def wire() -> Wire:
    return Wire()


def _transport(wire: Wire) -> AnswerTransport:
    return AnswerTransport(wire, asyncio.get_running_loop())


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


async def test_the_head_of_an_answer_is_sent_with_its_body(wire: Wire) -> None:
    transport = _transport(wire)
    transport.write(HEAD)
    assert wire.sent == []
    transport.write(b"body")
    assert wire.sent == [HEAD + b"body"]
    await asyncio.sleep(0)
    assert wire.sent == [HEAD + b"body"]


async def test_the_head_of_an_answer_that_comes_later_does_not_wait_for_it(wire: Wire) -> None:
    transport = _transport(wire)
    transport.write(HEAD)
    await asyncio.sleep(0)
    assert wire.sent == [HEAD]


async def test_an_event_is_sent_at_once(wire: Wire) -> None:
    """The next turn of the loop may be long."""
    transport = _transport(wire)
    transport.write(b"an event")
    assert wire.sent == [b"an event"]


async def test_much_is_not_copied(wire: Wire) -> None:
    transport = _transport(wire)
    transport.write(HEAD)
    transport.write(bytes(COPIED_BYTES_MAX + 1))
    assert wire.sent == [HEAD, bytes(COPIED_BYTES_MAX + 1)]


async def test_closing_sends_what_was_written(wire: Wire) -> None:
    transport = _transport(wire)
    transport.write(HEAD)
    transport.close()
    assert wire.sent == [HEAD]
    assert wire.is_closed
    await asyncio.sleep(0)
    assert wire.sent == [HEAD]


async def test_what_was_aborted_is_not_sent(wire: Wire) -> None:
    transport = _transport(wire)
    transport.write(HEAD)
    transport.abort()
    await asyncio.sleep(0)
    assert wire.sent == []
