"""A disk that fails, under SQLite.

Faults injected, because we promise to survive them:
 - *full*: from some moment on, a write finds no space left; some of it may have been written.
 - *io*: from some moment on, writes and syncs fail; some of a write may have been written.
 - *hiccup*: one write or sync fails, in part, and all later ones work.
 - *power cut*: from some moment on nothing happens any more, and of what was written since the last sync of each file any
   part may be lost, in any order, also half of a write.

Not injected: bits that rot, a sync that lies, renames and deletions that are undone.
"""

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw

Fault = Literal["full", "io", "hiccup", "power cut"]

_numbers = itertools.count()


class _Write(NamedTuple):
    """What a write that was not synced yet replaced: enough to take it, or half of it, back."""

    offset: int
    data: bytes
    before: bytes
    size_before: int


class FaultyDisk(apsw.VFS):
    """Give `name` to a store as its `vfs`. `break_after` counts writes, syncs and truncations, of all files; `operations`
    says how many there were so far."""

    def __init__(self, seed: int = 0) -> None:
        self.name = f"faulty-{next(_numbers)}"
        self.operations = 0
        self.broken = False
        self._fault: Fault = "io"
        self._limit: int | None = None
        self._random = random.Random(seed)
        self._unsynced: dict[Path, list[_Write]] = {}
        super().__init__(self.name, "")

    def break_after(self, operations: int, fault: Fault) -> None:
        """The so many-th operation from now on works, the next does not."""
        self._limit = self.operations + operations
        self._fault = fault

    def lose_unsynced(self) -> None:
        """The power is back: see what is left. Call it when nobody has the files open any more."""
        for path, writes in self._unsynced.items():
            if not path.exists():
                continue
            with path.open("r+b") as file:
                for write in reversed(writes):
                    fate = self._random.choice(["kept", "lost", "torn"])
                    if fate == "kept":
                        continue
                    kept = self._random.randrange(len(write.data)) if fate == "torn" and write.data else 0
                    file.seek(write.offset + kept)
                    file.write(write.before[kept:])
                    if fate == "lost" and file.seek(0, 2) <= write.offset + len(write.data):
                        file.truncate(write.size_before)
        self._unsynced.clear()

    def xOpen(self, name: Any, flags: list[int]) -> "_File":
        return _File(self, name, flags)

    def excepthook(self, etype: object, evalue: object, etraceback: object) -> bool:
        """The driver hands the error to the caller as well; it need not be printed."""
        return True

    # --- for the files

    def operate(self, path: Path, write: Callable[[int], None], data: bytes = b"") -> bool:
        """Count an operation. False if it is one too many; a `write` may then have happened in part."""
        self.operations += 1
        if self._limit is None or self.operations <= self._limit or (self.broken and self._fault == "hiccup"):
            return True
        if not self.broken and data:
            write(self._random.randrange(len(data)))
        self.broken = True
        return False

    def error(self) -> apsw.Error:
        return apsw.FullError("no space (injected)") if self._fault == "full" else apsw.IOError("broken (injected)")

    def unsynced(self, path: Path) -> list[_Write]:
        return self._unsynced.setdefault(path, [])


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: Any, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk
        self._write: Callable[[bytes, int], None] = super().xWrite  # pyright: ignore[reportUnknownMemberType]
        self._path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name or "")

    def xWrite(self, data: bytes, offset: int) -> None:
        def write(length: int) -> None:
            size = self.xFileSize()
            known = max(0, min(length, size - offset))
            before = self.xRead(known, offset) if known else b""
            self._disk.unsynced(self._path).append(_Write(offset, data[:length], before, size))
            self._write(data[:length], offset)

        if not self._disk.operate(self._path, write, data):
            raise self._disk.error()
        write(len(data))

    def xSync(self, flags: int) -> None:
        if not self._disk.operate(self._path, lambda _: None):
            raise self._disk.error()
        super().xSync(flags)
        self._disk.unsynced(self._path).clear()

    def xTruncate(self, newsize: int) -> None:
        if not self._disk.operate(self._path, lambda _: None):
            raise self._disk.error()
        super().xTruncate(newsize)
