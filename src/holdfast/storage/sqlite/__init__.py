"""The backend that keeps everything in one SQLite database."""

from holdfast.storage.sqlite.files import holder
from holdfast.storage.sqlite.reader import SqliteReader
from holdfast.storage.sqlite.store import SqliteStore

__all__ = ["SqliteReader", "SqliteStore", "holder"]
