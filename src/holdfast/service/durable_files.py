"""Small files that must not be lost, and whether a file is still the one that was read."""

import contextlib
import fcntl
import os
import secrets
import sys
from pathlib import Path

Version = tuple[int, int, int] | None
"""Another one after each change of a file. None: there is no such file."""


def version_of(file: Path) -> Version:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def replace_file(file: Path, data: bytes, *, mode: int | None = None) -> None:
    """On the disk when this returns; after a crash it is the old file or the new one. A link stays one. Without a `mode`, the
    file keeps what it has. Raises OSError, and then nothing is left behind."""
    target = Path(os.path.realpath(file))
    staged = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Where the mode is said, nobody else may read it from its first moment on.
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode or 0o666), "wb") as opened:
            if mode is None and target.exists():
                os.fchmod(opened.fileno(), target.stat().st_mode & 0o7777)
            opened.write(data)
            opened.flush()
            _sync(opened.fileno())
        os.replace(staged, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            _sync(folder)
        finally:
            os.close(folder)
    except OSError:
        with contextlib.suppress(OSError):
            staged.unlink()
        raise


def _sync(descriptor: int) -> None:
    """What was written is on the medium when this returns. On macOS a plain fsync leaves it in the cache of the drive."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):  # not every file system can
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)
