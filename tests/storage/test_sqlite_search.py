"""The index of texts in the database: made for what was there before it, gone with what it is about, in bounded space."""

import os
from pathlib import Path
from typing import Any

import apsw
import msgspec

from holdfast.core.search import TEXT_CHARACTERS_MAX
from holdfast.core.store import SessionQuery
from holdfast.storage.sqlite import SqliteStore
from holdfast.storage.sqlite.files import APPLICATION_ID, migrations
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.stories import Story


async def open_store(directory: Path) -> SqliteStore:
    return await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom)


async def find(store: SqliteStore, search: str) -> list[str]:
    return [msgspec.json.decode(data)["id"] for data in await store.sessions(SessionQuery(search=search))]


def connect(directory: Path) -> Any:
    return apsw.Connection(str(directory / "holdfast.db"))


async def test_a_database_from_before_the_index_is_searched_like_any_other(tmp_path: Path) -> None:
    """Everything but the schema is as the present code writes it; 0004 made no other change."""
    story, archived = Story("ses_a", title="ÄPFEL"), Story("ses_b")
    store = await open_store(tmp_path)
    await store.append(story.id, [*story.streaming(), story.part(story.text("prt_2", "closed words", closed=True))])
    await store.append(story.id, [story.delta("prt_1", "growing")])
    await store.append(archived.id, archived.prompted("Say goodbye"))
    archived.info = msgspec.structs.replace(archived.info, time=msgspec.structs.replace(archived.info.time, archived=1))
    await store.append(archived.id, [archived.updated()])
    await store.close()
    new, old = connect(tmp_path), apsw.Connection(str(tmp_path / "old.db"))
    old.execute("PRAGMA journal_mode = wal")
    for script in migrations()[:3]:
        old.execute(script)
    old.execute(f"PRAGMA user_version = 3; PRAGMA application_id = {APPLICATION_ID}")
    tables = [name for (name,) in old.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    for table in tables:
        columns = ", ".join(row[1] for row in old.execute(f"PRAGMA table_info({table})"))
        rows = list(new.execute(f"SELECT {columns} FROM {table}"))
        if rows:
            old.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
    old.execute("UPDATE session SET title_folded = 'of another rule'")
    new.close()
    old.close()
    (tmp_path / "holdfast.db").unlink()
    (tmp_path / "old.db").rename(tmp_path / "holdfast.db")

    store = await open_store(tmp_path)
    assert [difference async for difference in store.verify()] == []
    assert await find(store, "äpfel") == await find(store, "hello") == await find(store, "closed") == ["ses_a"]
    assert await find(store, "goodbye") == ["ses_b"]
    assert await find(store, "growing") == []
    assert len(await store.sessions(SessionQuery(archived=True))) == 1
    await store.close()


async def test_the_index_does_not_grow_with_what_comes_and_goes(tmp_path: Path) -> None:
    """Sessions that are deleted, messages that are removed, parts that are replaced: the space is used again."""
    store = await open_store(tmp_path)
    sizes: list[int] = []
    for round in range(6):
        for number in range(14):
            story = Story(f"ses_{round}_{number}")
            words = " ".join(f"w{number * 7919 * n % 10_007}" for n in range(400))
            await store.append(story.id, story.prompted(words))
            await store.append(story.id, [story.part(story.prompt("prt_u1", f"{words} more"))])
            await store.append(story.id, [story.removed("msg_u1")] if number % 2 else [story.deleted()])
            if number % 2:
                await store.append(story.id, [story.deleted()])
        while await store.compact(closed_before_ms=1 << 60, records_max=10_000):
            pass
        connection = connect(tmp_path)
        ((size,),) = connection.execute("SELECT sum(length(block)) FROM text_index_data")
        ((left,),) = connection.execute("SELECT count(*) FROM text_index_docsize")
        connection.close()
        assert left == 0
        sizes.append(size)
    await store.close()

    assert sizes[-1] <= 2 * max(sizes[:2])


async def test_of_a_huge_text_the_beginning_is_searched(tmp_path: Path) -> None:
    story = Story()
    store = await open_store(tmp_path)
    filling = "x" * (TEXT_CHARACTERS_MAX - 20)
    await store.append(story.id, story.prompted(f"anchor {filling} lost"))

    assert await find(store, "anchor") == [story.id]
    assert await find(store, "lost") == [story.id]
    await store.append(story.id, [story.part(story.prompt("prt_u1", f"anchor {filling} {'y' * 20} lost"))])
    assert await find(store, "lost") == []
    assert [difference async for difference in store.verify()] == []
    await store.close()
