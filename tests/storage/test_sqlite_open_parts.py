"""A part that a model writes for a long time: its text is in the log, and now and then in its row."""

import os
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.core.messages import TextPart
from holdfast.storage.sqlite import SqliteStore, streams
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.streams import DELTAS_MAX
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.store_conformance.base import log
from holdfast.testing.stories import NOW_MS, Story


async def open_store(directory: Path) -> SqliteStore:
    return await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom)


def deltas_beyond_the_row(directory: Path) -> int:
    # Not with the standard library's SQLite: when a second one in this process closes the file, the system takes the locks
    # of the first away, and its readers lose the log under their feet.
    connection: Any = apsw.Connection(str(directory / "holdfast.db"), flags=apsw.SQLITE_OPEN_READONLY)
    ((count,),) = connection.execute(
        "SELECT count(*) FROM record JOIN part ON part.position = record.part WHERE record.position > grows_after"
    )
    connection.close()
    return count


async def test_no_reader_has_to_read_more_than_a_bounded_number_of_deltas(tmp_path: Path) -> None:
    """Whatever the size of the appends; and the text is whole at every moment, over restarts, closing and compaction."""
    story, text = Story(), ""
    store = await open_store(tmp_path)
    await store.append(story.id, story.streaming())
    for round, size in enumerate([1, 7, DELTAS_MAX - 1, 3 * DELTAS_MAX, 20, DELTAS_MAX]):
        pieces = [f"{round}.{n} " for n in range(size)]
        text += "".join(pieces)
        await store.append(story.id, [story.delta("prt_1", piece) for piece in pieces])
        assert (await store.message(story.id, "msg_a1")).parts == (story.text("prt_1", text),)
        step = (await store.turn_state(story.id)).step
        assert step is not None
        assert step.parts == (story.text("prt_1", text),)
        assert [difference async for difference in store.verify()] == []
        assert deltas_beyond_the_row(tmp_path) < DELTAS_MAX
        if round == 3:
            await store.close()
            store = await open_store(tmp_path)

    recorded = len(await log(store))
    await store.append(story.id, [story.part(story.text("prt_1", text, closed=True))])
    while await store.compact(closed_before_ms=NOW_MS + 1, records_max=1000):
        pass
    assert len(await log(store)) == 9
    assert recorded > 5 * DELTAS_MAX
    assert (await store.message(story.id, "msg_a1")).parts == (story.text("prt_1", text, closed=True),)
    assert [difference async for difference in store.verify()] == []
    await store.close()


async def test_what_folds_write_grows_with_the_text_and_not_with_its_square(tmp_path: Path) -> None:
    """The row of a long part in small deltas is written again and again, each time a good piece longer."""
    written: list[int] = []
    run = Database.run

    def noting(self: Database, sql: str, *bindings: Any) -> None:
        if sql.startswith("UPDATE part SET grows_after"):
            written.append(len(bindings[1]))
        run(self, sql, *bindings)

    story = Story()
    store = await open_store(tmp_path)
    await store.append(story.id, story.streaming())
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Database, "run", noting)
        patched.setattr(streams, "DELTAS_MAX", 10)
        for _ in range(600):
            await store.append(story.id, [story.delta("prt_1", "ten bytes ") for _ in range(10)])
    length = 600 * 10 * 10
    (part,) = (await store.message(story.id, "msg_a1")).parts
    assert isinstance(part, TextPart)
    assert len(part.text) == length
    assert 2 * length < sum(written) < 60 * length, "600 folds of half the text would be 300 times as much"
    assert deltas_beyond_the_row(tmp_path) <= length // streams.BYTES_PER_DELTA + 10
    await store.close()


async def test_a_part_may_close_or_go_in_the_append_that_makes_it_long(tmp_path: Path) -> None:
    story = Story()
    store = await open_store(tmp_path)
    many = [story.delta("prt_1", "x") for _ in range(DELTAS_MAX + 1)]
    await store.append(
        story.id,
        [
            *story.streaming(),
            *many,
            story.part(story.text("prt_1", "x", closed=True)),
            story.part(story.text("prt_2")),
            *(story.delta("prt_2", "y") for _ in range(DELTAS_MAX + 1)),
            story.part_removed("prt_2"),
        ],
    )

    assert (await store.message(story.id, "msg_a1")).parts == (story.text("prt_1", "x", closed=True),)
    assert [difference async for difference in store.verify()] == []
    await store.close()
