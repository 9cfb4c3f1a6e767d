"""`verify` finds every row that is not what the log gives. (That it finds nothing else, the conformance suite says.)"""

import os
from pathlib import Path
from typing import Any

import apsw
import pytest

from holdfast.core.store import Difference
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.stories import Story


async def open_store(directory: Path) -> SqliteStore:
    return await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom)


async def differences_after(directory: Path, tampering: str) -> list[Difference]:
    """Of a store with a session in all its variety, and a deleted one, after somebody else wrote to the database."""
    story, gone = Story("ses_a"), Story("ses_gone")
    store = await open_store(directory)
    await store.append(story.id, [*story.streaming(), story.todo("a"), story.delta("prt_1", "Hello")])
    await store.append(story.id, [story.part(story.tool("prt_2", "running")), story.permission_asked()])
    await store.append(story.id, [story.question_asked(), story.question_replied()])
    await store.append(story.id, [story.permission_asked("per_2"), story.permission_replied("per_2", "always")])
    await store.append(gone.id, [*gone.streaming(), gone.deleted()])
    await store.close()
    connection: Any = apsw.Connection(str(directory / "holdfast.db"))  # the standard library's knows no such text_index
    with connection:
        connection.execute(tampering)
    connection.close()
    store = await open_store(directory)
    try:
        return [difference async for difference in store.verify()]
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("tampering", "what"),
    [
        ("UPDATE session SET title_folded = 'x'", "session"),
        ("UPDATE session SET data = CAST(replace(CAST(data AS TEXT), 'A session', 'Another') AS BLOB)", "session"),
        ("UPDATE session SET updated = 1", "session"),
        ("UPDATE session SET data = x'7b7d'", "session"),
        ("UPDATE part SET data = x'7b' WHERE id = 'prt_u1'", "part prt_u1"),
        ("UPDATE part SET data = x'ff' WHERE id = 'prt_1'", "part prt_1"),
        ("UPDATE session SET archived = 1", "session"),
        ("DELETE FROM text_index", "words of part prt_u1"),
        ("INSERT OR REPLACE INTO text_index (rowid, words) SELECT position, 'hello say' FROM part WHERE id = 'prt_u1'",
         "words of part prt_u1"),
        ("INSERT OR REPLACE INTO text_index (rowid, words) SELECT position, '' FROM part WHERE id = 'prt_u1'",
         "words of part prt_u1"),
        ("INSERT INTO text_index (rowid, words) VALUES (77, 'x')", "words of part at 77"),
        ("INSERT INTO text_index (rowid, words) SELECT position, 'x' FROM part WHERE id = 'prt_1'",
         "words of part at 1795219535462008"),
        ("UPDATE session SET busy = 0", "status"),
        ("UPDATE session SET unfinished = 0", "turns"),
        ("UPDATE session SET turns = x'7b7d'", "turns"),
        ("UPDATE session SET todo = x'7b7d'", "todo"),
        ("UPDATE message SET parent_id = 'msg_x' WHERE id = 'msg_a1'", "message msg_a1"),
        ("UPDATE message SET version = 77 WHERE id = 'msg_u1'", "message msg_u1"),
        ("UPDATE message SET data = CAST(replace(CAST(data AS TEXT), 'fake', 'x') AS BLOB)", "message msg_u1"),
        ("DELETE FROM message WHERE id = 'msg_u1'", "message msg_u1"),
        ("UPDATE part SET grows_after = NULL WHERE id = 'prt_1'", "part prt_1"),
        ("UPDATE part SET data = CAST(replace(CAST(data AS TEXT), 'ls', 'rm') AS BLOB) WHERE id = 'prt_2'", "part prt_2"),
        ("DELETE FROM part WHERE id = 'prt_2'", "part prt_2"),
        ("UPDATE request SET pending = 0 WHERE id = 'per_1'", "permission per_1"),
        ("DELETE FROM request WHERE kind = 'question'", "question que_1"),
        ("DELETE FROM approval", "approval of bash in global"),
        ("UPDATE stream SET updated = 1 WHERE session_id = 'ses_a'", "stream"),
        ("UPDATE stream SET directory = '/x' WHERE session_id = 'ses_a'", "stream"),
        ("DELETE FROM record WHERE tag = 'todo.updated.1'", "todo"),
        ("DELETE FROM record WHERE tag = 'message.part.delta.1'", "records of versions 10 to 10"),
        ("INSERT INTO session SELECT 99, directory, project_id, parent_id, title_folded, archived, updated, busy, unfinished,"
         " data, status, todo, turns FROM session", "session of stream 99"),
        ("INSERT INTO session SELECT 2, directory, project_id, parent_id, title_folded, archived, updated, busy, unfinished,"
         " data, status, todo, turns FROM session", "session"),
    ],
)  # fmt: skip
async def test_a_row_that_the_log_does_not_give_is_found(tmp_path: Path, tampering: str, what: str) -> None:
    found = await differences_after(tmp_path, tampering)

    assert what in {difference.what for difference in found}


async def test_a_difference_says_what_is_stored_and_what_the_log_gives(tmp_path: Path) -> None:
    (difference,) = await differences_after(tmp_path, "UPDATE session SET todo = x'7b7d'")

    assert difference.session_id == "ses_a"
    assert difference.stored is not None
    assert difference.folded is not None
    assert "pending" not in difference.stored
    assert "pending" in difference.folded


async def test_a_record_that_does_not_fit_is_found(tmp_path: Path) -> None:
    found = await differences_after(
        tmp_path,
        "UPDATE record SET data = x'7b7d' WHERE tag = 'question.asked.1';"
        "UPDATE record SET tag = 'todo.updated.9' WHERE tag = 'todo.updated.1';"
        "DELETE FROM record WHERE tag = 'message.updated.1' AND CAST(data AS TEXT) LIKE '%assistant%';",
    )
    records = [difference for difference in found if difference.what.startswith("record ")]

    assert len(records) >= 4
    assert any("Unknown event" in (difference.stored or "") for difference in records)
    assert any("Damaged event" in (difference.stored or "") for difference in records)
    assert any("not found" in (difference.stored or "") for difference in records)


async def test_an_index_that_lost_an_entry_is_found(tmp_path: Path) -> None:
    found = await differences_after(
        tmp_path,
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = replace(sql, '(stream, version)', '(version, stream)') WHERE name = 'message_version';",
    )

    assert "database" in {difference.what for difference in found}
