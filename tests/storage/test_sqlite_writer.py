"""Who shares a commit."""

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import cast

import apsw
import pytest

from holdfast.core.store import ALL, Appended, Recorded
from holdfast.core.streams import Create
from holdfast.core.subscriptions import SigningKey
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.files import DATABASE_NAME
from holdfast.storage.sqlite.store import SqliteStore
from holdfast.storage.sqlite.writer import GATHER_TURNS_MAX, Writer
from holdfast.testing.stories import Story


class Disk:
    """A database that only counts what was committed together."""

    path = Path("nowhere")

    def __init__(self) -> None:
        self.commits: list[int] = []
        self.begun = threading.Event()
        self.jobs = 0

    def run(self, sql: str) -> None:
        self.begun.set()
        if sql == "COMMIT":
            self.commits.append(self.jobs)
            self.jobs = 0

    def on_commit(self, note: Callable[[int], None]) -> None:
        pass

    # --- as a batch

    def begin(self) -> None:
        pass

    def changes(self) -> int:
        return 0

    def end(self) -> list[Recorded]:
        return []

    def job(self) -> None:
        self.jobs += 1


@pytest.fixture
async def disk() -> Disk:
    return Disk()


def _writer(disk: Disk) -> Writer:
    return Writer(cast(Database, disk), disk, published=lambda _: None, failed=lambda error: None)


async def _client(writer: Writer, disk: Disk, times: int) -> None:
    """Asks again as soon as it is answered; between the two lies a turn of the loop, as with one behind a socket."""
    for _ in range(times):
        await writer.submit(disk.job)
        await asyncio.sleep(0)


async def test_clients_that_come_back_together_share_a_commit(disk: Disk) -> None:
    writer = _writer(disk)
    await asyncio.gather(*(_client(writer, disk, 50) for _ in range(8)))
    await writer.close()

    assert disk.commits == [8] * 50


async def test_groups_that_came_apart_find_together(disk: Disk) -> None:
    writer = _writer(disk)
    first = asyncio.gather(*(_client(writer, disk, 50) for _ in range(3)))
    await writer.submit(disk.job)
    await asyncio.gather(first, *(_client(writer, disk, 50) for _ in range(5)))
    await writer.close()

    assert sum(disk.commits) == 8 * 50 + 1
    assert max(disk.commits) >= 8
    assert len(disk.commits) <= 75


async def test_one_who_is_alone_is_not_held_up(disk: Disk) -> None:
    """As soon as some commits were of one job, one is committed in the turn of the loop in which it comes."""
    writer = _writer(disk)
    await asyncio.gather(*(_client(writer, disk, 2) for _ in range(8)))
    await _client(writer, disk, 8)

    disk.begun.clear()
    written = writer.submit(disk.job)
    await asyncio.sleep(0)
    assert disk.begun.wait(60), "the loop stands still meanwhile: it brings no further turn"
    await written
    await writer.close()
    assert disk.commits[:2] == [8, 8]
    assert set(disk.commits[2:]) == {1}


async def test_newcomers_in_every_turn_of_the_loop_do_not_hold_a_commit_up_for_ever(disk: Disk) -> None:
    writer = _writer(disk)
    await asyncio.gather(*(_client(writer, disk, 1) for _ in range(8)))

    disk.begun.clear()
    jobs: list[asyncio.Future[None]] = []
    for _ in range(GATHER_TURNS_MAX + 1):
        jobs.append(writer.submit(disk.job))
        await asyncio.sleep(0)
    assert disk.begun.wait(60), "the loop stands still meanwhile: it brings no further turn"
    await asyncio.gather(*jobs)
    await writer.close()


async def test_what_is_to_leave_nothing_is_gone_when_it_is_answered_or_after_the_readers_who_are_in_the_way(
    tmp_path: Path,
) -> None:
    """In the file and in the log. Commits do not wait for such readers again and again."""
    secret = b"a secret of thirty-two characters"
    store = await SqliteStore.open(tmp_path, now_ms=lambda: 1_700_000_000_000, entropy=os.urandom)
    keys = store.subscriptions
    reader = apsw.Connection(str(tmp_path / DATABASE_NAME), flags=apsw.SQLITE_OPEN_READONLY)

    def lies_there() -> bool:
        return any(secret in file.read_bytes() for file in tmp_path.iterdir())

    try:
        await keys.save_signing_key(SigningKey("one", 1, secret))
        assert lies_there()
        await keys.save_signing_key(SigningKey("one", 1, bytes(60)))
        assert not lies_there()

        await keys.save_signing_key(SigningKey("one", 1, secret))
        reader.execute("BEGIN; SELECT count(*) FROM signing_key").fetchall()
        await keys.remove_signing_key("one")
        assert lies_there(), "somebody still reads it"
        reader.execute("ROLLBACK")
        await keys.remove("any commit")
        await keys.remove("and one after it")
        assert not lies_there()
    finally:
        reader.close()
        await store.close()


async def test_a_defect_of_those_who_hear_of_a_commit_is_no_gap_and_holds_nobody_up(tmp_path: Path) -> None:
    """Events of the same commit reach their readers; what waits is written; the store can be closed."""
    store = await SqliteStore.open(tmp_path, now_ms=lambda: 1_700_000_000_000, entropy=os.urandom)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    story, defect = Story(), ValueError("a defect")

    def heard(changes: object) -> None:
        if not waiting:
            waiting.append(asyncio.ensure_future(store.append(story.id, [story.status()])))
        raise defect

    waiting: list[asyncio.Future[Appended]] = []
    store.byte_streams.heard = heard
    events = store.subscribe(ALL)
    create = store.byte_streams.create(Create(path="s", content_type="text/plain"))
    found: list[int] = []
    async with asyncio.timeout(60):
        await asyncio.gather(create, store.append(story.id, [story.created()]))
        while len(found) < 2:
            found += [record.version for record in await anext(events)]
        closing = asyncio.ensure_future(store.byte_streams.delete("s"))
        await asyncio.sleep(0)
        await store.close()
        await closing
    assert found == [1, 2]
    assert told == [defect, defect]
