"""The pipe through which a command's output is read."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from holdfast.agent.tools.pipes import READ_BYTES_MAX, OutputPipe


class Ends:
    """Both ends of a pipe; the test is the writer."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def write(self, data: bytes) -> None:
        assert os.write(self.writing, data) == len(data)

    def close(self) -> None:
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.close()


async def everything(pipe: OutputPipe) -> bytes:
    read = b""
    while data := await pipe.read():
        read += data
    return read


async def test_reads_until_nobody_writes_any_more(ends: Ends) -> None:
    pipe = OutputPipe(ends.reading)
    ends.write(b"one")
    assert await pipe.read() == b"one"
    reader = asyncio.create_task(everything(pipe))
    ends.write(b"two")
    ends.close()

    assert await reader == b"two"
    assert pipe.is_closed
    assert await pipe.read() == b""


async def test_after_the_end_of_the_command_all_that_is_in_the_pipe_is_read_though_others_hold_it(ends: Ends) -> None:
    pipe = OutputPipe(ends.reading)
    ends.write(b"x" * 16384 * 3)

    pipe.finish(0)

    assert await everything(pipe) == b"x" * 16384 * 3
    assert not pipe.is_closed
    pipe.close()


async def test_a_reader_that_waits_already_learns_of_the_end(ends: Ends) -> None:
    pipe = OutputPipe(ends.reading)
    reader = asyncio.create_task(everything(pipe))
    await asyncio.sleep(0)

    pipe.finish(0)

    assert await reader == b""
    pipe.close()


async def test_whoever_writes_on_without_end_is_not_listened_to_for_ever(ends: Ends) -> None:
    pipe = OutputPipe(ends.reading)
    ends.write(b"mine")
    pipe.finish(60)
    read = 0
    while data := await pipe.read():
        read += len(data)
        ends.write(b"x" * 16384)

    assert len(b"mine") + READ_BYTES_MAX <= read < 4 * READ_BYTES_MAX
    pipe.close()


async def test_a_writer_that_nobody_listens_to_is_not_held_up_and_not_killed(ends: Ends) -> None:
    pipe = OutputPipe(ends.reading)
    pipe.drop()

    await asyncio.to_thread(lambda: [ends.write(b"x" * 16384) for _ in range(50)])
    ends.close()

    while not pipe.is_closed:  # noqa: ASYNC110 - it closes itself, and tells nobody
        await asyncio.sleep(0.001)


async def test_closing_stops_listening(ends: Ends) -> None:
    pipe = OutputPipe(ends.reading)
    pipe.drop()
    pipe.close()
    pipe.close()

    with pytest.raises(BrokenPipeError):
        ends.write(b"x")
