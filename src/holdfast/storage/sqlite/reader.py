"""Looking at a data directory without having it: beside the server that writes, or when none runs.

Takes no lock, so that it is never in a starting server's way; changes nothing, so it brings no schema up to date. For
commands, not for servers: every query blocks.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from holdfast.core.errors import StorageError
from holdfast.core.offsets import Offset
from holdfast.core.session import Session, SessionStatus
from holdfast.core.store import Difference, Recorded, Scope, SessionQuery
from holdfast.core.subscriptions import SigningKey
from holdfast.storage.sqlite import search, verify, verify_streams
from holdfast.storage.sqlite.database import DriverError, to_storage_error
from holdfast.storage.sqlite.files import DATABASE_NAME, open_beside
from holdfast.storage.sqlite.read import Queries
from holdfast.storage.sqlite.subscriptions import signing_keys

T = TypeVar("T")


class SqliteReader:
    """The reading half of `SqliteStore`, as far as commands need it.

    Raises StorageError if there is no database of Holdfast, or one of another schema than this version's."""

    def __init__(self, data_directory: Path) -> None:
        path = data_directory / DATABASE_NAME
        if not path.exists():
            raise StorageError(
                f"There are no sessions in {data_directory}.", hint="Say where they are with --data, or start a server."
            )
        self._database = open_beside(path)
        self._queries = Queries(self._database)
        self.schema: int = self._query(lambda queries: queries.database.pragma("user_version"))

    async def session(self, session_id: str) -> Session:
        return self._query(lambda queries: queries.session(session_id))

    async def sessions(self, query: SessionQuery) -> Sequence[bytes]:
        return self._query(lambda queries: queries.sessions(query))

    async def statuses(self, directory: str | None = None) -> dict[str, SessionStatus]:
        return self._query(lambda queries: queries.statuses(directory))

    async def read(
        self, scope: Scope, *, after: Offset, limit: int = 1000, bytes_max: int | None = None
    ) -> Sequence[Recorded]:
        return self._query(lambda queries: queries.read(scope, after, limit, bytes_max))

    async def record_count(self) -> int:
        return self._query(lambda queries: queries.database.one("SELECT count(*) FROM record")[0])

    async def signing_keys(self) -> Sequence[SigningKey]:
        return self._query(lambda queries: signing_keys(queries.database))

    async def damage(self) -> list[str]:
        """What is wrong with the file itself."""
        return [found.stored or found.what for found in self._query(lambda queries: verify.structure(queries.database))]

    async def verify(self) -> AsyncIterator[Difference]:
        for difference in self._query(lambda queries: verify.structure(queries.database)):
            yield difference
        for difference in self._query(lambda queries: list(search.differences(queries.database))):
            yield difference
        for session_id in self._query(lambda queries: verify.session_ids(queries.database)):
            for difference in self._verify_session(session_id):
                yield difference
        for difference in self._query(lambda queries: verify_streams.structure(queries.database)):
            yield difference
        for stream_id in self._query(lambda queries: verify_streams.stream_ids(queries.database)):
            for difference in self._verify_stream(stream_id):
                yield difference

    def _verify_stream(self, stream_id: int) -> list[Difference]:
        return self._query(lambda queries: verify_streams.stream(queries.database, stream_id))

    def _verify_session(self, session_id: str) -> list[Difference]:
        return self._query(lambda queries: verify.session(queries.database, session_id))

    def _query(self, query: Callable[[Queries], T]) -> T:
        """In one read transaction: one state of the store, whatever is written meanwhile."""
        try:
            self._database.run("BEGIN")
            try:
                return query(self._queries)
            finally:
                self._database.rollback()
        except DriverError as error:
            raise to_storage_error(error, self._database.path) from error

    async def close(self) -> None:
        self._database.close()
