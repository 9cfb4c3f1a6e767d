"""Puts contents of a snapshot back into a work tree.

Each file appears whole or not at all, keeps its permissions but for the executable bits, and nothing is ever written
through a symbolic link. Everything here blocks: it is for a thread.
"""

import contextlib
import errno
import os
import re
import secrets
import stat
import subprocess
import time
from typing import Final

import structlog

from holdfast.agent.git import SYMLINK, Git
from holdfast.core.errors import Unavailable

_UNFINISHED: Final = re.compile(rb"(?:.*/)?\.holdfast-restore-[0-9a-f]{16}", re.DOTALL)
_UNFINISHED_SECONDS_MAX: Final = 3600.0
"""Nothing is written for so long: who wrote it has died."""

log = structlog.get_logger()


def is_unfinished(name: bytes) -> bool:
    """Whether a file of this name is one that a restore has not put in its place yet."""
    return _UNFINISHED.fullmatch(name) is not None


def clear_unfinished(path: bytes) -> None:
    """Remove it, if it has been left by a server that was killed."""
    with contextlib.suppress(OSError):
        if os.lstat(path).st_mtime < time.time() - _UNFINISHED_SECONDS_MAX:
            os.unlink(path)


class RealDirectories:
    """Knows which directories of a work tree are real ones, reached without a symbolic link."""

    def __init__(self, root: str) -> None:
        self._root = os.fsencode(root)
        self._known = {b"": True}

    def is_real(self, directory: bytes) -> bool:
        known = self._known.get(directory)
        if known is None:
            known = self.is_real(os.path.dirname(directory)) and _is_directory(os.path.join(self._root, directory))
            self._known[directory] = known
        return known


class Writer:
    """Writes into a work tree, and never through a symbolic link. Each file appears whole or not at all. `kept` is a
    directory in it that somebody works in: it stays, even if it is empty."""

    def __init__(self, root: str, kept: bytes = b"") -> None:
        self._root = os.fsencode(root)
        self._kept = kept

    def delete(self, name: bytes) -> bool:
        """The file, and the directories that are empty without it. False if something else stands there now."""
        if not RealDirectories(os.fsdecode(self._root)).is_real(os.path.dirname(name)):
            return not os.path.lexists(self._path(name))
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            return True
        except OSError:
            return False
        directory = os.path.dirname(name)
        with contextlib.suppress(OSError):  # it is not empty
            while directory and directory != self._kept:
                os.rmdir(self._path(directory))
                directory = os.path.dirname(directory)
        return True

    def write(self, name: bytes, content: bytes, mode: int, *, is_covered: bool) -> bool:
        """False if a snapshot does not have what stands in the way."""
        try:
            found = self._clear_way(name)
            if found is not None and not is_covered:
                return False
            path = self._path(name)
            fresh = os.path.join(os.path.dirname(path), b".holdfast-restore-" + secrets.token_hex(8).encode())
            try:
                if mode == SYMLINK:
                    os.symlink(content, fresh)
                else:
                    _write_file(fresh, content, mode, found)
                os.rename(fresh, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(fresh)
        except OSError as error:
            log.warning("snapshot.not_restored", file=os.fsdecode(self._path(name)), reason=error.strerror)
            return False
        return True

    def _clear_way(self, name: bytes) -> os.stat_result | None:
        """Make the directories above; what stands at the place itself (empty directories are no obstacle). Raises OSError
        if a file or link stands where a directory is needed, or a directory where the file is."""
        directory = b""
        for part in name.split(b"/")[:-1]:
            directory = os.path.join(directory, part)
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._path(directory))
            if not _is_directory(self._path(directory)):
                raise NotADirectoryError(errno.ENOTDIR, "something stands where a directory has to be")
        path = self._path(name)
        if _is_directory(path):
            _remove_empty(path)
        try:
            return os.lstat(path)
        except FileNotFoundError:
            return None

    def _path(self, name: bytes) -> bytes:
        return os.path.join(self._root, name)


def _write_file(path: bytes, content: bytes, mode: int, found: os.stat_result | None) -> None:
    """With the permissions of the file it replaces, but for the executable bits: those are the snapshot's."""
    is_executable = mode & 0o100 != 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o777 if is_executable else 0o666)
    with open(descriptor, "wb") as file:
        file.write(content)
        if found is not None and stat.S_ISREG(found.st_mode):
            kept = stat.S_IMODE(found.st_mode) & ~0o111
            os.fchmod(file.fileno(), kept | (kept & 0o444) >> 2 if is_executable else kept)


def _remove_empty(directory: bytes) -> None:
    """A directory that has nothing but directories in it, at any depth. Raises OSError at the first other thing."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if not entry.is_dir(follow_symlinks=False):
                raise OSError(errno.ENOTEMPTY, "a directory that is not empty stands there")
            _remove_empty(entry.path)
    os.rmdir(directory)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


class Contents:
    """Reads contents out of the repository, one process for all. For a thread: it blocks."""

    def __init__(self, git: Git) -> None:
        self._git = git

    def __enter__(self) -> "Contents":
        self._process = subprocess.Popen(
            ["git", "cat-file", "--batch"],
            cwd=self._git.directory,
            env=self._git.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self, id: str) -> bytes:
        """Raises Unavailable."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # git has ended: there is nothing more to read, then
            self._process.stdin.write(f"{id}\n".encode())
            self._process.stdin.flush()
        head = self._process.stdout.readline().split()
        size = int(head[2]) if len(head) == 3 else -1
        content = self._process.stdout.read(size + 1)[:-1] if size >= 0 else b""
        if len(content) != size:
            raise Unavailable(f"git lost the content {id}.")
        return content
