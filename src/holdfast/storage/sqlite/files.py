"""The data directory: who may use it, what file is in it, which schema the file has.

Rules
 1. One process has the directory: an exclusive `flock` on `holdfast.lock`, held as long as the process lives. The kernel
    lets go of it when the process dies, however it dies.
 2. Nothing is written to a file that is not ours, or that a newer Holdfast wrote.
 3. Migrations run in order, each in one transaction, forward only.
"""

import fcntl
import os
import re
import time
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from holdfast.core.errors import StorageError, StorageLocked
from holdfast.storage.sqlite.database import Database, storage_errors
from holdfast.storage.sqlite.search import add_functions

DATABASE_NAME: Final = "holdfast.db"
LOCK_NAME: Final = "holdfast.lock"

APPLICATION_ID: Final = 0x486F6C64  # "Hold": marks the file as ours, in the place that SQLite has for that
_TRIES_MAX: Final = 100
_TRY_SECONDS: Final = 0.01

WAL_BYTES_MAX: Final = 16 << 20
"""The write-ahead log is cut back to this when it starts over, after something (a long read) made it grow."""


class DirectoryLock:
    """Makes the directory if there is none. Raises StorageLocked, with the holder's pid, if another process has it."""

    def __init__(self, directory: Path) -> None:
        path = directory / LOCK_NAME
        with storage_errors(path):
            _make(directory)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with storage_errors(path):
                self._take(directory)
        except BaseException:
            os.close(self._fd)
            raise

    def _take(self, directory: Path) -> None:
        if not self._has_taken():
            holder = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            raise StorageLocked(
                f"Another Holdfast uses the data directory {directory}" + (f" (process {holder})." if holder else "."),
                hint="Stop that one first, or choose another directory with --data.",
            )
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def _has_taken(self) -> bool:
        """Whoever only looks who has the directory (`holder`) shares the lock for a moment, and is no reason to give up:
        where the lock can be shared, no server has it."""
        for _ in range(_TRIES_MAX):
            if _flock(self._fd, fcntl.LOCK_EX):
                return True
            if not _flock(self._fd, fcntl.LOCK_SH):
                return False
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            time.sleep(_TRY_SECONDS)
        return False

    def release(self) -> None:
        """The file stays: removing it would let two processes lock two files of one name."""
        os.close(self._fd)


def _flock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make(directory: Path) -> None:
    """For its owner only: it holds conversations. What is made is on the disk, or a crash could take the whole of it."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in missing:
        parent = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def open_writer(path: Path, vfs: str | None = None) -> Database:
    """The one connection that writes. Makes the database if there is none, brings its schema up to date."""
    with storage_errors(path):
        _check_header(path)
        database = Database(path, vfs=vfs)
        try:
            # Before anything is read: SQLite would make a log beside it, with the same rights.
            if database.is_read_only:
                raise StorageError(
                    f"{path} may not be written.",
                    hint="Give this user write access to the data directory and the files in it.",
                )
            _check_owner(database)
            if database.pragma("journal_mode", "wal") != "wal":
                raise StorageError(
                    f"The file system of {path} cannot hold a write-ahead log.",
                    hint="Choose a directory on a local disk with --data.",
                )
            database.pragma("synchronous", "full")
            database.pragma("fullfsync", "on")  # where a plain fsync leaves it in the cache of the drive (macOS)
            database.pragma("journal_size_limit", WAL_BYTES_MAX)
            database.checkpoint("TRUNCATE")
            _check_length(database)
            migrate(database)
        except BaseException:
            database.close()
            raise
        return database


def open_reader(path: Path, vfs: str | None = None) -> Database:
    with storage_errors(path):
        return Database(path, read_only=True, vfs=vfs)


def open_beside(path: Path) -> Database:
    """For looking at it beside whoever writes, or when nobody does; takes no lock and changes nothing."""
    with storage_errors(path):
        _check_header(path)
        database = Database(path, read_only=True)
        try:
            _check_owner(database)
            version, needed = database.pragma("user_version"), len(migrations())
            if version < needed:
                raise StorageError(
                    f"An older Holdfast wrote {path}: its schema is {version}, this version needs {needed}.",
                    hint="Start a server of this version on it: that brings it up to date.",
                )
        except BaseException:
            database.close()
            raise
        return database


def holder(directory: Path) -> str | None:
    """The process id of the server that has the directory, "" if it did not say; None if nobody has it."""
    path = directory / LOCK_NAME
    if not path.exists():
        return None
    with storage_errors(path), path.open("rb") as file:
        return None if _flock(file.fileno(), fcntl.LOCK_SH) else file.read(32).decode(errors="replace").strip()


def _check_header(path: Path) -> None:
    """A file of another kind is told at once: SQLite would take it for an encrypted or damaged database."""
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise _foreign(path)


def _check_owner(database: Database) -> None:
    if database.pragma("application_id") != APPLICATION_ID:
        if database.all("SELECT 1 FROM sqlite_schema LIMIT 1"):
            raise _foreign(database.path)
        return
    version, newest = database.pragma("user_version"), len(migrations())
    if version > newest:
        raise StorageError(
            f"A newer Holdfast wrote {database.path}: its schema is {version}, this version knows {newest}.",
            hint="Start the newer version. Only a backup from before it leads back to an older one.",
        )


def _check_length(database: Database) -> None:
    """The write-ahead log is empty now, so all pages have to be in the file."""
    expected = database.pragma("page_count") * database.pragma("page_size")
    actual = database.path.stat().st_size
    if actual < expected:
        raise StorageError(
            f"{database.path} was cut off: {actual} bytes instead of {expected}.",
            hint="Restore the data directory from a backup.",
        )


def _foreign(path: Path) -> StorageError:
    return StorageError(
        f"{path} is not a Holdfast database.", hint="Move that file away, or choose another directory with --data."
    )


def migrate(database: Database) -> None:
    """Run the migrations that the database has not seen yet."""
    add_functions(database)
    for number, script in enumerate(migrations(), start=1):
        if number > database.pragma("user_version"):
            database.run("BEGIN IMMEDIATE")
            try:
                database.run_script(script)
                database.pragma("application_id", APPLICATION_ID)
                database.pragma("user_version", number)
                database.run("COMMIT")
            except BaseException:
                database.rollback()
                raise


@cache
def migrations() -> tuple[str, ...]:
    """The scripts in order: `0001_….sql` takes an empty database to schema 1, and so on without a gap."""
    scripts = sorted(
        (entry.name, entry.read_text("utf-8"))
        for entry in files("holdfast.storage.sqlite").joinpath("migrations").iterdir()
        if re.fullmatch(r"\d{4}_\w+\.sql", entry.name)
    )
    assert [int(name[:4]) for name, _ in scripts] == list(range(1, len(scripts) + 1)), "a migration is missing"
    return tuple(script for _, script in scripts)
