"""Prompts that failed because "the database is locked".

While one writer held the lock for longer than five seconds, prompts and starts of OpenCode died of it: 43 a day at
one user. (anomalyco/opencode 21215, 19521, 47566, 33320)
"""

import asyncio
import sqlite3
from pathlib import Path

from tests.server.harness import Server


async def test_prompts_of_many_sessions_and_readers_of_the_file_do_not_meet_in_a_lock(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data") as server:
        sessions = [await server.session() for _ in range(8)]
        other = sqlite3.connect(f"file:{tmp_path}/data/holdfast.db?mode=ro", uri=True, isolation_level=None)
        other.execute("BEGIN")
        assert other.execute("SELECT count(*) FROM record").fetchone()[0] >= 8  # a read transaction that stays open
        answers = await asyncio.gather(
            *(server.prompt(session, str(n), noReply=True) for session in sessions for n in range(25))
        )
        other.close()

        assert {answer.status_code for answer in answers} == {200}
        assert [len(await server.messages(session)) for session in sessions] == [25] * 8
