"""What of an answer leaves together."""

import asyncio
from typing import Any

import pytest

from holdfast.server.listener import GATHERED_BYTES_MAX, Gathered


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


def _gathered(wire: Wire) -> Gathered:
    return Gathered(wire, asyncio.get_running_loop())


async def test_what_is_written_in_one_turn_of_the_loop_is_sent_together(wire: Wire) -> None:
    transport = _gathered(wire)
    transport.write(b"head")
    transport.write(b"")
    transport.write(b"body")
    assert wire.sent == []
    await asyncio.sleep(0)
    assert wire.sent == [b"headbody"]


async def test_the_head_of_an_answer_that_comes_later_does_not_wait_for_it(wire: Wire) -> None:
    transport = _gathered(wire)
    transport.write(b"head")
    await asyncio.sleep(0)
    transport.write(b"first event")
    await asyncio.sleep(0)
    assert wire.sent == [b"head", b"first event"]


async def test_much_is_sent_on_at_once(wire: Wire) -> None:
    """The transport below says when the client does not keep up; so it must know."""
    transport = _gathered(wire)
    transport.write(b"head")
    transport.write(bytes(GATHERED_BYTES_MAX))
    assert wire.sent == [b"head", bytes(GATHERED_BYTES_MAX)]
    transport.write(b"more")
    await asyncio.sleep(0)
    assert wire.sent[2:] == [b"more"]


async def test_closing_sends_what_was_written(wire: Wire) -> None:
    transport = _gathered(wire)
    transport.write(b"last words")
    transport.close()
    assert wire.sent == [b"last words"]
    assert wire.is_closed
    await asyncio.sleep(0)
    assert wire.sent == [b"last words"]


async def test_what_was_aborted_is_not_sent(wire: Wire) -> None:
    transport = _gathered(wire)
    transport.write(b"too late")
    transport.abort()
    await asyncio.sleep(0)
    assert wire.sent == []
