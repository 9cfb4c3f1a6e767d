"""What is asked of a large store costs what it costs in a small one. Counted in steps of SQLite's machine, not in time."""

import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdfast.core.fold import Fold
from holdfast.core.session import IDLE, SessionTime
from holdfast.core.store import ALL, DirectoryScope, SessionQuery, SessionScope
from holdfast.storage.sqlite import SqliteStore
from holdfast.storage.sqlite.database import Database
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.stories import NOW_MS, Story

DAY_MS = 24 * 3600 * 1000
SMALL, LARGE = 40, 400


class CountingDatabase(Database):
    """`steps` counts what all connections do, those that SQLite's own index of texts does in them as well."""

    steps = 0
    made: ClassVar[list["CountingDatabase"]] = []

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.made.append(self)

    @classmethod
    async def count(cls, ask: Awaitable[Any]) -> int:
        for database in cls.made:
            database._connection.set_progress_handler(cls._step, 1)
        cls.steps = 0
        await ask
        for database in cls.made:
            database._connection.set_progress_handler(None)
        return cls.steps

    @classmethod
    def _step(cls) -> bool:
        cls.steps += 1
        return False


async def grown_store(directory: Path, size: int) -> SqliteStore:
    """So many sessions with a message each, older than a day but for the newest ten; and one with so many messages."""
    store = await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom)
    for number in range(size):
        at = NOW_MS - (size - number if number >= size - 10 else DAY_MS + size - number)
        time = SessionTime(created=at, updated=at)
        story = Story(f"ses_{number:04}", directory=f"/{number % 2}", project_id=f"p{number % 2}", time=time)
        await store.append(story.id, [*story.prompted(f"anchor {number}"), story.started(), story.ended()])
    long = Story("ses_long", directory="/0", project_id="p0")
    await store.append(long.id, [long.created()])
    for number in range(size):
        user, answer = f"msg_u{number}", f"msg_a{number}"
        text = long.text(f"prt_a{number}", "answer", message=answer, closed=True)
        await store.append(
            long.id,
            [
                long.message(long.user(user)),
                long.part(long.prompt(f"prt_{number}", "prompt", user)),
                long.requested(user),
                long.started(user),
                long.message(long.assistant(answer, user)),
                long.part(text),
                *([long.ended(user), long.status(IDLE)] if number < size - 1 else [long.status()]),
            ],
        )
    await long_turn(store, size)
    return store


async def long_turn(store: SqliteStore, size: int) -> None:
    """A session with a turn that has taken so many steps, and is not over."""
    story = Story("ses_turn", directory="/0", project_id="p0")
    await store.append(story.id, [*story.prompted(), story.started()])
    for number in range(size):
        step = f"msg_a{number}"
        text = story.text(f"prt_a{number}", "answer", message=step, closed=True)
        done = story.message(story.assistant(step, completed=True))
        await store.append(story.id, [story.message(story.assistant(step)), story.part(text), done])


async def version_of(store: SqliteStore, message: int) -> int:
    return (await store.message_page("ses_long", limit=1, after=7 * message + 1)).messages[0].version


def long_story() -> Story:
    return Story("ses_long", directory="/0", project_id="p0")


ASKED: dict[str, Callable[[SqliteStore], Awaitable[Any]]] = {
    "a session": lambda store: store.session("ses_long"),
    "the newest sessions": lambda store: store.session_page(SessionQuery(limit=5)),
    "of a directory": lambda store: store.session_page(SessionQuery(directory="/0", roots=True, limit=5)),
    "of a project": lambda store: store.session_page(SessionQuery(project_id="p0", limit=5)),
    "that are not archived": lambda store: store.session_page(SessionQuery(archived=False, limit=5)),
    "updated since": lambda store: store.sessions(SessionQuery(updated_since=NOW_MS - 8)),
    "a page further down": lambda store: store.session_page(
        SessionQuery(updated_before=NOW_MS - DAY_MS - SMALL // 2, limit=5)
    ),
    "children": lambda store: store.sessions(SessionQuery(parent_id="ses_long")),
    "found by a rare word": lambda store: store.sessions(SessionQuery(search="39", limit=5)),
    "statuses": lambda store: store.statuses(),
    "unfinished": lambda store: store.unfinished(),
    "permissions": lambda store: store.pending_permissions("/0"),
    "a message": lambda store: store.message("ses_long", "msg_a3"),
    "the newest messages": lambda store: store.message_page("ses_long", limit=5),
    "messages in the middle": lambda store: store.message_page("ses_long", limit=5, before=7 * SMALL // 2),
    "the oldest messages": lambda store: store.message_page("ses_long", limit=5, after=0),
    "the turn": lambda store: store.turn_state("ses_long"),
    "a turn of many steps": lambda store: store.turn_state("ses_turn"),
    "todos": lambda store: store.todos("ses_long"),
    "a snapshot of all": lambda store: store.snapshot(
        ALL, changed_since_ms=NOW_MS - DAY_MS, sessions_max=5, messages_max=5
    ),
    "a snapshot of a directory": lambda store: store.snapshot(
        DirectoryScope("/0"), changed_since_ms=NOW_MS - DAY_MS, sessions_max=5, messages_max=5
    ),
    "a snapshot of a session": lambda store: store.snapshot(
        SessionScope("ses_long"), changed_since_ms=NOW_MS - DAY_MS, sessions_max=5, messages_max=5
    ),
    "the log of a session, at its end": lambda store: store.read(SessionScope("ses_long"), after=store.head()),
    "a delta": lambda store: store.append("ses_long", [long_story().status()]),
    "a prompt": lambda store: store.append(
        "ses_long",
        [
            long_story().message(long_story().user("msg_new")),
            long_story().part(long_story().prompt("prt_new", "A new prompt", "msg_new")),
            long_story().requested("msg_new"),
        ],
    ),
    "a new session": lambda store: store.append("ses_new", Story("ses_new").prompted()),
    "a message removed": lambda store: store.append("ses_long", [long_story().removed("msg_a3")]),
}


@pytest.mark.slow
async def test_what_is_asked_costs_the_same_in_a_store_ten_times_as_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for what is done with an index on the way: a step or two more for its greater depth, and what FTS5 merges."""
    monkeypatch.setattr("holdfast.storage.sqlite.files.Database", CountingDatabase)
    monkeypatch.setattr("holdfast.storage.sqlite.store.READERS", 1)
    monkeypatch.setattr("holdfast.storage.sqlite.writer.CHECKPOINT_PAGES", 1 << 30)  # nothing is done unasked
    costs: dict[int, dict[str, int]] = {}
    for size in (SMALL, LARGE):
        store = await grown_store(tmp_path / str(size), size)
        costs[size] = {}
        await store.unfinished()  # the reading thread has its connection now
        for what, ask in ASKED.items():
            costs[size][what] = await CountingDatabase.count(ask(store))
        CountingDatabase.made.clear()
        await store.close()

    assert min(costs[SMALL].values()) > 0
    assert {what: costs[LARGE][what] for what in ASKED if costs[LARGE][what] > 1.25 * costs[SMALL][what] + 20} == {}


async def test_to_look_what_is_missing_costs_the_same_of_long_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went through the log of the whole directory, although nothing, or only the last record, was not known."""
    monkeypatch.setattr("holdfast.storage.sqlite.files.Database", CountingDatabase)
    monkeypatch.setattr("holdfast.storage.sqlite.store.READERS", 1)
    costs: list[list[int]] = []
    for size in (50, 500):
        store = await SqliteStore.open(tmp_path / str(size), now_ms=StoreClock(), entropy=os.urandom)
        story = Story()
        await store.append(story.id, [story.created(), *(story.status() for _ in range(size))])
        await store.unfinished()  # the reading thread has its connection now
        costs.append(
            [
                await CountingDatabase.count(
                    store.missing(story.info.directory, {story.id: version}, limit=10, bytes_max=1 << 20)
                )
                for version in (size + 1, size, size // 2)
            ]
        )
        CountingDatabase.made.clear()
        await store.close()

    few, many = costs
    assert all(ten_times <= 2 * cost for cost, ten_times in zip(few, many, strict=True)), costs


# --- steps of Python ---------------------------------------------------------------------------------------------


class Calls:
    """Counts the calls of functions, ours and built-in ones, in this thread and those that are started meanwhile."""

    def __init__(self) -> None:
        self.count = 0

    def _called(self, frame: object, event: str, argument: object) -> None:
        self.count += event in ("call", "c_call")

    @contextmanager
    def counting(self) -> Iterator[None]:
        before = sys.getprofile()
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        try:
            yield
        finally:
            sys.setprofile(before)
            threading.setprofile(None)


async def test_removing_many_messages_at_once_costs_for_each_what_it_costs_alone(tmp_path: Path) -> None:
    """A revert that the next prompt makes final may remove thousands, and nobody else writes meanwhile: of 5,000 each one
    went through all that the append had changed, which took a minute and a half. So it did where logs are folded."""
    appended, folded = Calls(), Calls()
    costs: list[tuple[float, float]] = []
    for size in (50, 400):
        with appended.counting():  # the writing thread is started here
            store = await SqliteStore.open(tmp_path / str(size), now_ms=StoreClock(), entropy=os.urandom)
        story = Story()
        ids = [f"msg_{number}" for number in range(size)]
        said = [(story.message(story.user(id)), story.part(story.prompt(f"prt_{id}", "prompt", id))) for id in ids]
        events = [story.created(), *(event for pair in said for event in pair)]
        await store.append(story.id, events)
        removed = [story.removed(id) for id in ids]
        appended.count = folded.count = 0
        await store.append(story.id, removed)
        in_store = appended.count
        fold = Fold(events)
        with folded.counting():
            for event in removed:
                fold.apply(event)
        costs.append((in_store / size, folded.count / size))
        assert fold.messages() == await store.history(story.id) == ()
        await store.close()

    (few_stored, few_folded), (many_stored, many_folded) = costs
    assert many_stored < 2 * few_stored
    assert many_folded < 2 * few_folded
