"""The backend that keeps everything in one SQLite database."""

from holdfast.storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
