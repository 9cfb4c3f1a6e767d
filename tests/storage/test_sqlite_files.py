"""What the SQLite backend says about a data directory that it cannot use, and what it keeps its hands off."""

import asyncio
import fcntl
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.core.errors import StorageError, StorageLocked
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL, SessionQuery
from holdfast.storage.sqlite import SqliteStore, holder, writer
from holdfast.storage.sqlite import files as data_files
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.files import WAL_BYTES_MAX
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.store_conformance.base import events, log
from holdfast.testing.stories import Story

NOBODY = 65534


async def open_store(directory: Path) -> SqliteStore:
    return await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom)


async def open_and_close(directory: Path) -> None:
    await (await open_store(directory)).close()


async def refusal(directory: Path) -> StorageError:
    with pytest.raises(StorageError) as caught:
        await open_store(directory)
    assert caught.value.hint
    return caught.value


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def used(directory: Path) -> Path:
    """A data directory with a few sessions in it; no server uses it."""
    store = await open_store(directory)
    for number in range(20):
        story = Story(f"ses_{number:02d}")
        await store.append(story.id, [*story.streaming(), story.delta("prt_1", "text " * 200)])
    await store.close()
    return directory


def database(directory: Path) -> Path:
    return directory / "holdfast.db"


async def test_a_directory_that_is_not_there_is_made_for_its_owner_only(directory: Path) -> None:
    await open_and_close(directory / "new")

    assert (directory / "new").stat().st_mode & 0o777 == 0o700


async def test_everything_is_there_after_a_restart(directory: Path) -> None:
    story = Story()
    store = await open_store(directory)
    appended = [*story.streaming(), story.permission_asked(), story.delta("prt_1", "Hel"), story.delta("prt_1", "lo")]
    await store.append(story.id, appended, key="k")
    records, head, state = await log(store), store.head(), await store.turn_state(story.id)
    await store.close()

    store = await open_store(directory)
    assert events(await log(store)) == appended
    assert await log(store) == records
    assert store.head() == head
    assert await store.turn_state(story.id) == state
    assert (await store.append(story.id, [], key="k")).duplicate
    assert (await store.append(story.id, [story.delta("prt_1", "!")])).version == len(appended) + 1
    assert (await store.message(story.id, "msg_a1")).parts == (story.text("prt_1", "Hello!"),)
    await store.close()


async def test_a_lease_ends_with_the_process_and_its_token_is_not_given_again(directory: Path) -> None:
    story = Story()
    store = await open_store(directory)
    await store.append(story.id, [story.created()])
    old = await store.claim(story.id, "first", now_ms=0, ttl_ms=1 << 40)
    await store.close()

    store = await open_store(directory)
    new = await store.claim(story.id, "second", now_ms=0, ttl_ms=1)
    assert old is not None
    assert new is not None
    assert new.token > old.token
    await store.close()


def run_python(program: str, directory: Path) -> subprocess.Popen[str]:
    head = "import asyncio, os, pathlib, sys\nfrom holdfast.storage.sqlite import SqliteStore\n"
    return subprocess.Popen([sys.executable, "-c", head + program, str(directory)], stdout=subprocess.PIPE, text=True)


OPEN = """
async def main():
    await SqliteStore.open(pathlib.Path(sys.argv[1]), now_ms=lambda: 1, entropy=os.urandom)
    print("open", flush=True)
    await asyncio.sleep(3600)
"""


def test_a_second_server_is_told_who_has_the_directory(directory: Path) -> None:
    """The first one is another process here; once that is gone, however it went, the directory is free."""
    process = run_python(OPEN + "asyncio.run(main())", directory)
    assert process.stdout is not None
    with process, process.stdout as output:
        assert output.readline() == "open\n"
        error = asyncio.run(refusal(directory))
        assert isinstance(error, StorageLocked)
        assert str(process.pid) in error.message
        assert str(directory) in error.message
        process.kill()
    asyncio.run(open_and_close(directory))


@pytest.mark.slow
def test_a_directory_that_cannot_be_written_is_named() -> None:
    """Root may write anywhere, so somebody else has to try; the directory is one that anybody can reach."""
    program = (
        OPEN
        + f"""
from holdfast.storage.sqlite.files import migrations
migrations()  # while the files of this Python can still be read
if os.getuid() == 0: os.setuid({NOBODY})
try: asyncio.run(main())
except Exception as error: print(error, error.hint)
"""
    )
    with tempfile.TemporaryDirectory(prefix="holdfast-test-", dir="/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        asyncio.run(open_and_close(directory))
        paths = [directory, directory / "holdfast.lock", database(directory)]
        for unwritable in paths:
            for path in paths:
                path.chmod(0o777)
            unwritable.chmod(0o555)
            with run_python(program, directory) as process:
                printed = process.stdout.readline() if process.stdout else ""
                process.kill()
            assert str(directory) in printed
            assert "write" in printed
            assert sorted(directory.iterdir()) == sorted(paths[1:]), "nothing is left that would be in the way later"
        for path in paths:
            path.chmod(0o777)
        asyncio.run(open_and_close(directory))


async def test_a_path_that_is_not_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("I am no directory")

    assert str(tmp_path / "file") in (await refusal(tmp_path / "file")).message


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip file, say" * 100, b"x", b"SQLite format 2\0" * 300])
async def test_a_file_of_another_kind_is_left_alone(directory: Path, content: bytes) -> None:
    directory.mkdir()
    database(directory).write_bytes(content)

    assert "not a Holdfast database" in (await refusal(directory)).message
    assert database(directory).read_bytes() == content


async def test_a_database_of_another_program_is_left_alone(directory: Path) -> None:
    directory.mkdir()
    with sqlite3.connect(database(directory)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    before = database(directory).read_bytes()

    assert "not a Holdfast database" in (await refusal(directory)).message
    assert database(directory).read_bytes() == before


async def test_a_database_of_a_newer_version_is_left_alone(used: Path) -> None:
    with sqlite3.connect(database(used)) as connection:
        connection.execute("PRAGMA user_version = 9999")
    connection.close()
    before = database(used).read_bytes()
    error = await refusal(used)

    assert "newer" in error.message
    assert "9999" in error.message
    assert database(used).read_bytes() == before


async def test_an_empty_file_is_a_new_database(directory: Path) -> None:
    """What is left when a first start dies early."""
    directory.mkdir()
    database(directory).touch()
    store = await open_store(directory)
    assert await store.sessions(SessionQuery()) == []
    await store.close()


@pytest.mark.parametrize("kept", [0.05, 0.3, 0.7, 0.99])
async def test_a_database_that_was_cut_off_is_refused(used: Path, kept: float) -> None:
    size = database(used).stat().st_size
    os.truncate(database(used), int(size * kept))
    error = await refusal(used)

    assert str(database(used)) in error.message
    assert error.hint
    assert "backup" in error.hint


async def test_a_damaged_page_stops_the_store_when_it_is_met(used: Path) -> None:
    """Opening does not read the whole file. Whoever meets the damage is told, and so is the server."""
    page, size = 4096, database(used).stat().st_size
    with database(used).open("r+b") as file:
        for number in range(3, size // page):
            file.seek(number * page)
            file.write(os.urandom(page))
    failures: list[StorageError] = []
    with pytest.raises(StorageError, match="damaged"):
        store = await SqliteStore.open(used, now_ms=StoreClock(), entropy=os.urandom, on_failure=failures.append)
        try:
            await store.read(ALL, after=BEGINNING)
        finally:
            assert len(failures) == 1
            with pytest.raises(StorageError, match="damaged"):
                await store.append("ses_00", [Story("ses_00").status()])
            await store.close()


# --- the schema


def schema(connection: sqlite3.Connection | apsw.Connection) -> list[tuple[str, ...]]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
    return [(*names, " ".join(re.sub("--.*", "", sql).split())) for *names, sql in rows]


async def test_all_migrations_together_give_the_schema_that_is_written_down(directory: Path) -> None:
    await open_and_close(directory)
    migrated, written = apsw.Connection(str(database(directory))), apsw.Connection(":memory:")
    written.execute(files("holdfast.storage.sqlite").joinpath("schema.sql").read_text())

    assert schema(migrated) == schema(written)
    migrated.close()
    written.close()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = data_files.migrations()
    monkeypatch.setattr(data_files, "migrations", lambda: (*good, "CREATE TABLE new (a); CREATE TABLE record (b);"))
    error = await refusal(used)
    assert "holdfast.db" in error.message

    monkeypatch.setattr(data_files, "migrations", lambda: good)
    store = await open_store(used)
    assert len(await store.sessions(SessionQuery())) == 20
    await store.close()
    connection = sqlite3.connect(database(used))
    assert "new" not in {name for _, name, *_ in schema(connection)}
    connection.close()


async def test_a_newer_version_brings_the_schema_up_to_date(used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = data_files.migrations()
    monkeypatch.setattr(
        data_files, "migrations", lambda: (*good, "CREATE TABLE second (a);", "CREATE TABLE third (a);")
    )
    for _ in range(2):
        store = await open_store(used)
        assert [difference async for difference in store.verify()] == []
        await store.close()
    connection = sqlite3.connect(database(used))
    assert {"second", "third"} <= {name for _, name, *_ in schema(connection)}
    connection.close()
    monkeypatch.undo()

    assert "newer" in (await refusal(used)).message


async def test_whoever_looks_who_has_the_directory_is_not_in_a_starting_servers_way(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_and_close(directory)
    looking = os.open(directory / "holdfast.lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    tried: list[float] = []

    def goes_away(seconds: float) -> None:
        tried.append(seconds)
        if len(tried) == 3:
            os.close(looking)

    monkeypatch.setattr(data_files.time, "sleep", goes_away)
    store = await open_store(directory)
    assert len(tried) == 3
    assert holder(directory) == str(os.getpid())
    assert "Another Holdfast" in (await refusal(directory)).message
    assert len(tried) == 3, "a server is told at once"
    await store.close()
    assert holder(directory) is None


# --- the write-ahead log


@pytest.mark.slow
async def test_the_write_ahead_log_is_bounded_even_if_there_is_always_a_reader(directory: Path) -> None:
    store = await open_store(directory)
    wal = directory / "holdfast.db-wal"
    story = Story()
    await store.append(story.id, story.streaming())
    done = False

    async def keep_reading() -> None:
        while not done:
            await store.read(ALL, after=BEGINNING, limit=200)

    readers = [asyncio.create_task(keep_reading()) for _ in range(3)]
    sizes: list[int] = []
    for turn in range(150):
        part = f"prt_{turn:03}"  # of moderate length: a row of many megabytes would be one large commit, whoever reads
        await store.append(story.id, [story.part(story.text(part))])
        await asyncio.gather(*(store.append(story.id, [story.delta(part, "x" * 4000)]) for _ in range(50)))
        sizes.append(wal.stat().st_size)
    done = True
    await asyncio.gather(*readers)
    await store.close()

    assert max(sizes) < 36 << 20, "8,000 pages, and what one commit adds"
    assert database(directory).stat().st_size > 28 << 20, "much more went through it than it may hold"


async def test_after_one_large_commit_the_write_ahead_log_is_short_again(directory: Path) -> None:
    store = await open_store(directory)
    wal = directory / "holdfast.db-wal"
    story = Story()
    await store.append(story.id, story.prompted("x" * (30 << 20)))
    assert wal.stat().st_size > 60 << 20, "the record, and the row"
    for _ in range(3):
        await store.append(story.id, [story.status()])

    assert wal.stat().st_size <= WAL_BYTES_MAX
    await store.close()


async def test_a_reader_that_takes_its_time_does_not_hold_up_every_commit(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for when the log has become long, and again when it has grown by as much; then the log starts over."""
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 20)
    monkeypatch.setattr(writer, "CHECKPOINT_WAITING_PAGES", 100)
    monkeypatch.setattr(writer, "CHECKPOINT_WAIT_MS", 1)
    waits: list[bool] = []
    checkpoint = Database.checkpoint

    def noting(self: Database, how: str = "PASSIVE", **wait: int) -> bool:
        done = checkpoint(self, how, **wait)
        if how == "RESTART":
            waits.append(done)
        return done

    monkeypatch.setattr(Database, "checkpoint", noting)
    store = await open_store(directory)
    story = Story()
    await store.append(story.id, story.streaming())
    reader: Any = apsw.Connection(str(database(directory)), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM record").fetchall()
    for _ in range(60):
        await store.append(story.id, [story.delta("prt_1", "x" * 20_000)])
    assert 1 <= len(waits) <= 5
    assert not any(waits)
    reader.execute("ROLLBACK")
    for _ in range(40):
        await store.append(story.id, [story.delta("prt_1", "x" * 20_000)])
    assert waits[-1] or len(waits) <= 5, "either it was waited for, or a passive one was enough"
    wal = (directory / "holdfast.db-wal").stat().st_size
    for _ in range(60):
        await store.append(story.id, [story.delta("prt_1", "x" * 20_000)])
    assert (directory / "holdfast.db-wal").stat().st_size == wal, "it is written from its beginning again"
    reader.close()
    await store.close()
