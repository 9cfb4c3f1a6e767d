"""Group commit: everything that wants to write while a commit is under way shares the next one, with those who come back at once
when they hear of it.

Owns the writing thread. Jobs are collected on the event loop; the batch is swapped there too, never by the thread (an
append that slipped in between swap and commit would be acknowledged without being durable), and run by the one thread in
one transaction. Knows nothing of sessions: a job is a function that the thread calls.

Rules
 1. A job that raises before it changed anything is refused alone; the rest of its batch goes on.
 2. Anything else that goes wrong undoes the whole batch and *fails* the writer: nobody was told anything, and no job is
    accepted any more. Whether the disk kept the last batch is then known only when it is read again.
 3. Once committed, the loop is told once, in one turn: subscribers in commit order, and those who wait for their job, who go on
    first. There may be thousands of subscribers, and a job's outcome is no older for it: all is published before anybody goes on.
 4. The next batch begins when the loop brings no more jobs (decision 0120). Two groups in turns would each pay for a commit, and
    the thread would contend with the loop for the interpreter.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from holdfast.core.errors import StorageError, Unavailable
from holdfast.core.store import Recorded
from holdfast.storage.sqlite.database import Database, DriverError, to_storage_error

T = TypeVar("T")

GATHER_TURNS_MAX = 10
"""Of the loop, that the first one waits for others; when somebody comes in each of them."""

CHECKPOINT_PAGES = 1000
"""SQLite's own default, and the fastest: a longer log makes single commits slower."""

CHECKPOINT_WAITING_PAGES = 8 * CHECKPOINT_PAGES
"""Beyond this, readers that keep the log from starting over are waited for, for CHECKPOINT_WAIT_MS. If one reads for longer, the
log grows on, and they are waited for again when it has grown by as much: else every commit would wait for it."""

CHECKPOINT_WAIT_MS = 1000


class Batch(Protocol):
    """What jobs do in one transaction: begun before the first job, ended before the commit."""

    def begin(self) -> None: ...

    def changes(self) -> int:
        """Grows with every change a job makes."""
        ...

    def end(self) -> list[Recorded]:
        """Write what jobs left to be written. Answers what was recorded, in order."""
        ...


Job = tuple[Callable[[], Any], asyncio.Future[Any]]


class Writer:
    """`published` is called on the loop with what each commit recorded; `failed` at most once."""

    def __init__(
        self,
        database: Database,
        batch: Batch,
        *,
        published: Callable[[Sequence[Recorded]], None],
        failed: Callable[[StorageError], None],
    ) -> None:
        self._database = database
        self._batch = batch
        self._published = published
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Job] = []
        self._usual = 1
        """How many share a commit, of late. One that is alone does not wait for others."""
        self._working = False
        self._closing: asyncio.Future[None] | None = None
        self._failure: StorageError | None = None
        self._wal_pages = 0
        self._wait_at_pages = CHECKPOINT_WAITING_PAGES
        self._leaves_nothing = False
        self._empty_wait_ms = CHECKPOINT_WAIT_MS
        self.readers_wait = threading.Lock()
        """Taken for a moment before each read transaction, so that a check-point that needs it finds no new readers. One that
        let go of it just before may still begin: that is one transaction more to wait for in each reading thread, whose next
        one waits here."""
        database.on_commit(self._note_wal_pages)
        self._batches: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="holdfast-writer", daemon=True)
        self._thread.start()

    # --- on the loop

    def submit(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """Run a job in the next transaction. The future is done once that is durable; cancelling it changes nothing."""
        self.check()
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((job, future))
        if not self._working:
            self._working = True
            self._loop.call_soon(self._gather)
        return future

    async def submit_leaving_nothing(self, job: Callable[[], object]) -> None:
        """Run a job as `submit` does. When it returns, what the job overwrote or removed is neither in the file any more nor in
        the write-ahead log; but for readers that are at work for so long, after whom it goes with the next commit."""

        def leaving_nothing() -> None:
            job()
            self._leaves_nothing = True

        await self.submit(leaving_nothing)
        with suppress(Unavailable):  # it is being closed, and closing empties the log, too
            await self.submit(_nothing)  # the check-point of the one batch is over before the next one begins

    def check(self) -> None:
        """Raises if no job is accepted any more."""
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        if self._closing is not None:
            raise Unavailable("The store is closed.", hint="Start the server again.")

    def _gather(self, turns: int = 0, quiet_turns: int = 0, waiting: int = 0) -> None:
        """Called in each turn of the loop, until nobody comes any more. `waiting`: how many there were in the last turn."""
        quiet_turns = 0 if len(self._waiting) > waiting else quiet_turns + 1
        waiting = len(self._waiting)
        enough = self._usual == 1 or turns == GATHER_TURNS_MAX or quiet_turns >= (1 if waiting >= self._usual else 2)
        if enough:
            self._start()
        else:
            self._loop.call_soon(self._gather, turns + 1, quiet_turns, waiting)

    def _start(self) -> None:
        batch, self._waiting = self._waiting, []
        self._usual = max(len(batch), self._usual - 1)
        self._batches.put(batch)

    def _done(self, batch: list[Job], outcome: "_Outcome") -> None:
        self._working = False
        try:
            if isinstance(outcome, StorageError):
                self.fail(outcome)
                for _, future in batch:
                    _resolve(future, outcome)
            else:
                results, recorded = outcome
                for (_, future), result in zip(batch, results, strict=True):
                    _resolve(future, result)
                self._published(recorded)
        finally:  # whoever waits does so for the disk, not for what readers make of the last commit
            if self._waiting:
                self._working = True
                self._loop.call_soon(self._gather)
            elif self._closing is not None:
                _resolve(self._closing, None)

    def fail(self, error: StorageError) -> None:
        """Accept nothing any more, also for what others found out about the disk. A batch under way may still succeed."""
        if self._failure is None:
            self._failure = error
            waiting, self._waiting = self._waiting, []
            for _, future in waiting:
                _resolve(future, error)
            self._failed(error)

    async def close(self) -> None:
        """Finish what was accepted, end the thread. Once."""
        self._closing = self._loop.create_future()
        if self._working:
            await self._closing
        self._batches.put(None)
        await asyncio.to_thread(self._thread.join)

    # --- in the thread

    def _work(self) -> None:
        while (batch := self._batches.get()) is not None:
            outcome = self._run(batch)
            self._tell(self._done, batch, outcome)
            if not isinstance(outcome, StorageError):
                self._checkpoint()

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop was closed without closing the store: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _run(self, batch: list[Job]) -> "_Outcome":
        results: list[Any] = []
        try:
            self._database.run("BEGIN IMMEDIATE")
            self._batch.begin()
            for job, _ in batch:
                before = self._batch.changes()
                try:
                    results.append(job())
                except DriverError:
                    raise
                except Exception as error:
                    if self._batch.changes() != before:
                        raise
                    results.append(error)
            recorded = self._batch.end()
            self._database.run("COMMIT")
        except Exception as error:
            with suppress(DriverError):  # the transaction ends with the connection, and the first error says more
                self._database.rollback()
            return self._storage_error(error)
        return results, recorded

    def _storage_error(self, error: Exception) -> StorageError:
        if isinstance(error, DriverError):
            translated = to_storage_error(error, self._database.path)
        else:
            translated = StorageError(
                f"A write to {self._database.path} broke off: {error!r}.", hint="Start again, and report this."
            )
        translated.__cause__ = error
        return translated

    def _note_wal_pages(self, pages: int) -> None:
        self._wal_pages = pages

    def _checkpoint(self) -> None:
        """After the acknowledgement, so that nobody but the next batch waits for it."""
        if self._leaves_nothing:
            self._empty_log()
            return
        if self._wal_pages < CHECKPOINT_PAGES:
            self._wait_at_pages = CHECKPOINT_WAITING_PAGES
            return
        try:
            if self._wal_pages < self._wait_at_pages:
                self._database.checkpoint("PASSIVE")
                return
            with self.readers_wait:
                starts_over = self._database.checkpoint("RESTART", wait_ms=CHECKPOINT_WAIT_MS)
            self._wait_at_pages = CHECKPOINT_WAITING_PAGES + (0 if starts_over else self._wal_pages)
        except DriverError as error:
            self._tell(self.fail, self._storage_error(error))

    def _empty_log(self) -> None:
        try:
            with self.readers_wait:
                self._leaves_nothing = not self._database.checkpoint("TRUNCATE", wait_ms=self._empty_wait_ms)
            # Commits are not to wait for the same readers again and again.
            self._empty_wait_ms = 0 if self._leaves_nothing else CHECKPOINT_WAIT_MS
        except DriverError as error:
            self._tell(self.fail, self._storage_error(error))


_Outcome = StorageError | tuple[list[Any], list[Recorded]]


def _nothing() -> None:
    pass


def _resolve(future: "asyncio.Future[Any]", result: object) -> None:
    if future.done():
        return  # the caller was cancelled
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
