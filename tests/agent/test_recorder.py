"""A stream of events on its way to the disk."""

import asyncio
from collections.abc import Sequence

from holdfast.agent.runner.recorder import WAITING_MAX, Recorder
from holdfast.core.events import Event, SessionStatusChanged
from holdfast.core.session import IDLE

EVENT = SessionStatusChanged(session_id="ses_1", status=IDLE)


class Disk:
    """Writes when it is let."""

    def __init__(self) -> None:
        self.written: list[int] = []
        self.free = asyncio.Event()

    async def append(self, events: Sequence[Event]) -> None:
        await self.free.wait()
        self.written.append(len(events))


async def turns_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_stream_does_not_wait_for_the_disk_while_little_is_on_its_way() -> None:
    disk = Disk()
    recorder = Recorder(disk.append)

    for _ in range(WAITING_MAX):
        await recorder.add([EVENT])

    assert disk.written == []
    disk.free.set()
    await recorder.drain()
    assert sum(disk.written) == WAITING_MAX


async def test_a_stream_that_is_faster_than_the_disk_waits_for_it() -> None:
    """And so leaves the interpreter to the thread that writes, and the rest of what the model says to the network."""
    disk = Disk()
    recorder = Recorder(disk.append)

    adding = asyncio.create_task(recorder.add([EVENT] * (WAITING_MAX + 1)))
    await turns_of_the_loop()
    assert not adding.done()

    disk.free.set()
    await adding
    assert disk.written == [WAITING_MAX + 1]
