"""Sessions that were gone after an update.

With each way in which OpenCode came to store sessions, those of the way before were not found any more.
(anomalyco/opencode 34445, 31023, 33447, 36222, 35690, 49412, 2987). And a database that was damaged kept the server
from starting without saying what to do (30157).
"""

import os
from pathlib import Path

import pytest

from holdfast.core.errors import StorageError
from holdfast.core.store import SessionQuery
from holdfast.storage.sqlite import SqliteStore, files
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.stories import Story


async def opened(directory: Path) -> SqliteStore:
    return await SqliteStore.open(directory, now_ms=StoreClock(), entropy=os.urandom)


@pytest.mark.parametrize("updates", [1, 2, 3])
async def test_every_session_is_there_after_any_number_of_updates(
    tmp_path: Path, updates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story()
    store = await opened(tmp_path)
    await store.append(story.id, [*story.streaming(), story.delta("prt_1", "kept")])
    before = await store.history(story.id)
    await store.close()
    known = files.migrations()
    for number in range(updates):
        later = [f"CREATE TABLE update_{n} (a);" for n in range(number + 1)]
        monkeypatch.setattr(files, "migrations", lambda later=later: (*known, *later))
        store = await opened(tmp_path)
        assert len(await store.sessions(SessionQuery())) == 1
        assert await store.history(story.id) == before
        assert [difference async for difference in store.verify()] == []
        await store.close()


async def test_a_damaged_database_is_left_as_it_is_and_the_error_says_what_to_do(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.append("ses_story", Story().prompted())
    await store.close()
    file = tmp_path / "holdfast.db"
    damaged = b"not a database" + file.read_bytes()[14:]
    file.write_bytes(damaged)
    with pytest.raises(StorageError) as caught:
        await opened(tmp_path)

    assert caught.value.hint
    assert file.read_bytes() == damaged
