import asyncio
import os
from pathlib import Path

import pytest

from holdfast.agent.providers.connections import Connections
from holdfast.agent.snapshots import KEPT_DAYS, Snapshots
from holdfast.core.errors import Unavailable
from holdfast.core.ids import IdGenerator
from holdfast.service.config import Configuration
from holdfast.service.instances import Instances
from holdfast.service.upkeep import INSTANCE_IDLE_MS, KEYS_KEPT_MS, OUTPUT_KEPT_MS, Upkeep
from holdfast.storage.memory import MemoryStore
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.stories import Story

MINUTE_MS = 60 * 1000
DAY_MS = 24 * 3600 * 1000


class World:
    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore(self.clock.now_ms, IdGenerator(self.clock.now_ms, os.urandom))
        self.output = directory / "tool-output"
        self.snapshots = Snapshots(directory / "data")
        self.directory = directory / "project"
        self.directory.mkdir()
        self.instances = Instances(
            str(self.directory),
            configuration=Configuration(environ={}, home=directory / "home", connections=Connections()),
            clock=self.clock,
            tool_output=str(self.output),
        )
        self.upkeep = Upkeep(
            self.store,
            clock=self.clock,
            instances=self.instances,
            tool_output=self.output,
            snapshots=self.snapshots,
        )

    def write(self, name: str, age_ms: int) -> Path:
        file = self.output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
        stamp = (self.clock.now_ms() - age_ms) * 1_000_000
        os.utime(file, ns=(stamp, stamp))
        return file

    async def session(self, id: str) -> Story:
        story = Story(id, directory=str(self.directory))
        await self.store.append(id, story.prompted(), key="first")
        return story


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_output_of_tools_goes_away_after_a_week_and_with_its_session(world: World):
    await world.session("ses_kept")
    gone = await world.session("ses_gone")
    await world.store.append(gone.id, [gone.deleted()])
    old, young = world.write("ses_kept/old", OUTPUT_KEPT_MS + 1), world.write("ses_kept/young", OUTPUT_KEPT_MS - 1)
    deep = world.write("ses_kept/deep/er/old", OUTPUT_KEPT_MS + 1)
    of_deleted, of_unknown = world.write("ses_gone/young", 0), world.write("ses_unknown/young", 0)
    await world.session("ses_empty")
    only = world.write("ses_empty/old", OUTPUT_KEPT_MS + 1)

    await world.upkeep.tidy()
    assert young.exists()
    assert not any(file.exists() for file in (old, deep.parent, of_deleted.parent, of_unknown.parent, only.parent))


async def test_a_link_in_the_output_of_tools_is_not_followed(world: World, tmp_path: Path):
    await world.session("ses_kept")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    os.utime(precious / "file", ns=(0, 0))
    world.write("ses_kept/young", 0)
    (world.output / "ses_kept" / "link").symlink_to(precious)
    (world.output / "ses_unknown").symlink_to(precious)

    await world.upkeep.tidy()
    assert (precious / "file").exists()


async def test_idempotency_keys_go_away_after_a_month(world: World):
    upkeep = asyncio.create_task(world.upkeep.run())
    await world.session("ses_a")
    await world.clock.until_sleeping()
    world.clock.advance(KEYS_KEPT_MS - MINUTE_MS)
    await world.session("ses_b")
    world.clock.advance(2 * MINUTE_MS)
    while len(world.clock.deadlines) == 0 or world.clock.deadlines[0] < world.clock.now_ms() + MINUTE_MS:
        world.clock.advance_to(await world.clock.until_sleeping())  # the pauses between batches
        await asyncio.sleep(0)
    upkeep.cancel()

    story = Story("ses_a")
    assert not (await world.store.append("ses_a", [story.status()], key="first")).duplicate
    assert (await world.store.append("ses_b", [], key="first")).duplicate


async def test_an_instance_is_dropped_when_idle_unless_a_turn_runs_in_it(world: World, tmp_path: Path):
    busy, idle = tmp_path / "busy", tmp_path / "idle"
    for directory in (busy, idle):
        directory.mkdir()
        await world.instances.open(str(directory))
    story = Story("ses_a", directory=str(busy))
    await world.store.append(story.id, [*story.prompted(), story.status()])
    world.clock.advance(INSTANCE_IDLE_MS)
    await world.upkeep.drop_idle_instances()
    assert world.instances.opened(str(idle)) is not None
    await world.instances.open(str(world.directory))
    world.clock.advance(1)
    await world.upkeep.drop_idle_instances()

    assert world.instances.opened(str(idle)) is None
    assert world.instances.opened(str(busy)) is not None
    assert world.instances.opened(str(world.directory)) is not None


async def test_a_task_that_fails_stops_neither_the_others_nor_the_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    done: list[str] = []
    finished = asyncio.Event()

    async def fails() -> None:
        done.append("failed")
        raise Unavailable("No.")

    async def works() -> None:
        done.append("worked")
        finished.set()

    monkeypatch.setattr(world.upkeep, "remove_old_output", fails)
    monkeypatch.setattr(world.snapshots, "tidy", works)
    upkeep = asyncio.create_task(world.upkeep.run())
    for days in (1, 2):
        finished.clear()
        while not finished.is_set():
            world.clock.advance_to(await world.clock.until_sleeping())
            await asyncio.sleep(0)
        assert done == ["failed", "worked"] * days
    upkeep.cancel()


async def test_repositories_of_snapshots_go_away_when_none_was_taken_for_a_month(world: World, tmp_path: Path):
    (world.directory / "file").write_text("1")
    tree = world.snapshots.of(str(world.directory))
    taken = await tree.take()
    assert taken is not None
    other = tmp_path / "other"
    other.mkdir()
    forgotten = Snapshots(tmp_path / "data")
    assert await forgotten.of(str(other)).take() is not None
    repositories = sorted((tmp_path / "data" / "snapshots").iterdir())
    assert len(repositories) == 2
    long_ago = -(KEPT_DAYS + 1) * DAY_MS * 1_000_000
    for repository in repositories:
        for path in (repository / "index", repository):
            stamp = path.stat().st_mtime_ns + long_ago
            os.utime(path, ns=(stamp, stamp))
    unfinished = tmp_path / "data" / "snapshots" / "left.new"
    unfinished.mkdir()
    os.utime(unfinished, ns=(0, 0))

    await world.snapshots.tidy()
    (left,) = (tmp_path / "data" / "snapshots").iterdir()
    assert tree.is_in(left), "somebody works there"
    (world.directory / "file").write_text("2")
    await tree.restore(taken)
    assert (world.directory / "file").read_text() == "1"


class JumpingClock:
    """`slept` for so many ms, whenever the test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self.go_on = asyncio.Semaphore(0)

    def now_ms(self) -> int:
        return self.now

    async def sleep_until(self, deadline_ms: int) -> None:
        self.asked.put_nowait(deadline_ms - self.now)
        await self.go_on.acquire()

    async def sleep(self) -> int:
        slept = await self.asked.get()
        self.now += slept
        self.go_on.release()
        return slept


async def test_a_clock_that_was_far_ahead_for_a_while_puts_nothing_off(world: World, monkeypatch: pytest.MonkeyPatch):
    """Upkeep goes on within its usual times."""
    clock, tidied = JumpingClock(), list[int]()
    upkeep = Upkeep(world.store, clock=clock, instances=world.instances, tool_output=None, snapshots=None)

    async def tidy() -> None:
        tidied.append(clock.now)

    monkeypatch.setattr(upkeep, "tidy", tidy)
    running = asyncio.ensure_future(upkeep.run())
    clock.now += 365 * DAY_MS
    await clock.sleep()
    await asyncio.sleep(0)
    clock.now -= 365 * DAY_MS
    begun = clock.now
    async with asyncio.timeout(60):
        while clock.now < begun + 3 * DAY_MS:
            assert await clock.sleep() <= 20 * MINUTE_MS
    running.cancel()
    assert len(tidied) == 3
