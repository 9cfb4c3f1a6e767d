"""A connection to the database file: the one place that knows the SQLite driver, and the words for what a disk can do.

Methods raise `DriverError`; whoever owns the connection turns it into a StorageError with `to_storage_error`.
"""

import errno
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from holdfast.core.errors import StorageError, StorageLocked

DriverError = apsw.Error

BUSY_TIMEOUT_MS: Final = 5000


class Database:
    """One connection, for one thread at a time. `vfs` names a registered SQLite VFS, for tests with a faulty disk."""

    def __init__(self, path: Path, *, read_only: bool = False, vfs: str | None = None) -> None:
        self.path = path
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        # Any: the driver's stubs use types that this Python does not have.
        self._connection: Any = apsw.Connection(str(path), flags=flags, vfs=vfs)
        self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        self._execute: Callable[..., Any] = self._connection.cursor().execute

    def run(self, sql: str, *bindings: Any) -> None:
        self._execute(sql, bindings)

    def run_script(self, sql: str) -> None:
        """Several statements."""
        self._execute(sql)

    def run_many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self._connection.executemany(sql, rows)

    def all(self, sql: str, *bindings: Any) -> list[Any]:
        """Every row, as a tuple."""
        return self._execute(sql, bindings).fetchall()

    def one(self, sql: str, *bindings: Any) -> Any:
        """The first row as a tuple, None if there is none."""
        rows = self._execute(sql, bindings).fetchall()
        return rows[0] if rows else None

    def each(self, sql: str, *bindings: Any) -> Iterator[Any]:
        """Every row, as a tuple, read as they are asked for; other statements may run meanwhile."""
        return self._connection.execute(sql, bindings)

    def pragma(self, name: str, value: int | str | None = None) -> Any:
        return self._connection.pragma(name, value) if value is not None else self._connection.pragma(name)

    def add_function(self, name: str, function: Callable[..., Any]) -> None:
        """Of one argument; answers the same whenever it is asked the same."""
        self._connection.create_scalar_function(name, function, 1, deterministic=True)

    @property
    def is_read_only(self) -> bool:
        """Also where it was opened for writing, and the operating system only let it read."""
        return self._connection.readonly("main")

    @property
    def changes(self) -> int:
        """Grows with every row written."""
        return self._connection.total_changes()

    @property
    def last_insert_rowid(self) -> int:
        return self._connection.last_insert_rowid()

    def rollback(self) -> None:
        """Also after an error that ended the transaction already."""
        if self._connection.in_transaction:
            self._execute("ROLLBACK")

    def on_commit(self, note_wal_pages: Callable[[int], None]) -> None:
        """Be told how long the write-ahead log is after each commit, and check-point it oneself from now on."""

        def hook(connection: Any, name: str, pages: int) -> int:
            note_wal_pages(pages)
            return apsw.SQLITE_OK

        self._connection.set_wal_hook(hook)

    def checkpoint(self, how: str = "PASSIVE", *, wait_ms: int = BUSY_TIMEOUT_MS) -> bool:
        """Copy the write-ahead log into the database: PASSIVE what nobody is in the way of, RESTART waits for readers so
        that the log starts over, TRUNCATE also empties its file. False if somebody was in the way (for so long)."""
        self._connection.set_busy_timeout(wait_ms)
        try:
            self._connection.wal_checkpoint(mode=getattr(apsw, f"SQLITE_CHECKPOINT_{how}"))
        except apsw.BusyError:
            return False
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        return True

    def close(self) -> None:
        self._connection.close()


# --- what can go wrong ------------------------------------------------------------------------------------------


@contextmanager
def storage_errors(path: Path) -> Generator[None]:
    """Errors of the driver and of the operating system, in the operator's words."""
    try:
        yield
    except apsw.Error as error:
        raise to_storage_error(error, path) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(path) from error
        raise StorageError(
            f"Cannot use {path}: {error.strerror}.",
            hint="Check that the directory exists, that this user may write in it, and that its disk is healthy.",
        ) from error


def to_storage_error(error: DriverError, path: Path) -> StorageError:
    match error:
        case apsw.FullError():
            return _disk_full(path)
        case apsw.CorruptError() | apsw.NotADBError():
            return StorageError(
                f"{path} is damaged ({error}).",
                hint="Keep a copy of the data directory, then restore it from a backup.",
            )
        case apsw.IOError() | apsw.NoMemError():
            return StorageError(
                f"The disk refused to read or write {path} ({error}).",
                hint="Check the disk, then start again: everything acknowledged is safe.",
            )
        case apsw.ReadOnlyError() | apsw.CantOpenError() | apsw.PermissionsError() | apsw.AuthError():
            return StorageError(
                f"Cannot open {path} for writing ({error}).",
                hint="Give this user write access to the data directory and the files in it.",
            )
        case apsw.BusyError() | apsw.LockedError():
            return StorageLocked(
                f"Another program keeps {path} locked ({error}).", hint="Close the program that has the database open."
            )
        case _:
            return StorageError(f"SQLite failed on {path} ({error}).", hint="Start again; report it if it comes back.")


def is_damage(error: DriverError) -> bool:
    """The disk or the file let us down: nothing that is written from now on can be trusted."""
    return isinstance(error, apsw.IOError | apsw.CorruptError | apsw.NotADBError | apsw.FullError)


def _disk_full(path: Path) -> StorageError:
    return StorageError(
        f"No space left on the disk of {path}.",
        hint="Free some space, then start again: everything acknowledged is safe.",
    )
