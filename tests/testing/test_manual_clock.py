"""The clock that tests move by hand."""

import asyncio

import pytest

from holdfast.core.clock import Clock
from holdfast.testing.manual_clock import START_MS, ManualClock


async def test_it_is_a_clock_that_stands_still() -> None:
    clock: Clock = ManualClock(5)

    assert (clock.now_ms(), clock.now_ms()) == (5, 5)
    await clock.sleep_until(5)
    await clock.sleep_until(-100)


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    clock = ManualClock()
    woken: list[str] = []

    async def sleep(name: str, seconds: int) -> None:
        await clock.sleep_until(START_MS + seconds * 1000)
        woken.append(name)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleep("late", 3))
        tasks.create_task(sleep("early", 1))
        assert await clock.until_sleeping(START_MS + 3000) == START_MS + 3000
        assert clock.deadlines == [START_MS + 1000, START_MS + 3000]
        clock.advance(999)
        await asyncio.sleep(0)
        assert woken == []
        clock.advance(1)
        assert await clock.until_sleeping() == START_MS + 3000
        await asyncio.sleep(0)
        assert woken == ["early"]
        clock.advance(10_000)

    assert woken == ["early", "late"]
    assert clock.now_ms() == START_MS + 11_000


async def test_waiting_for_a_sleeper_ends_as_soon_as_one_sleeps() -> None:
    clock = ManualClock()
    waiting = asyncio.ensure_future(clock.until_sleeping(START_MS + 7))
    for deadline in (START_MS + 5, START_MS + 7):
        assert not waiting.done()
        sleeper = asyncio.ensure_future(clock.sleep_until(deadline))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sleeper.cancel()

    assert await waiting == START_MS + 7


async def test_a_cancelled_sleeper_is_forgotten() -> None:
    clock = ManualClock()
    sleeper = asyncio.ensure_future(clock.sleep_until(START_MS + 1))
    await clock.until_sleeping()
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper

    assert clock.deadlines == []
    clock.advance(10)
