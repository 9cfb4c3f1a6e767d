"""A log that grows without end.

OpenCode's event table had a snapshot of the whole part for every piece that was added to it: 64 of 73 GB in eight
days, one event of 458 MB, and then the creation of a session timed out. (anomalyco/opencode 33356, 47223, 46833,
47729, 47022)
"""

from pathlib import Path

from holdfast.core.codec import type_of
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL
from holdfast.testing.scripted_provider import text
from tests.server.harness import Server

WORDS = 3000


async def test_what_is_recorded_of_a_text_grows_with_the_text_and_not_with_its_square(tmp_path: Path) -> None:
    said = "".join(f"word{number} " for number in range(WORDS))
    async with Server(tmp_path, tmp_path / "data", [text(said)]) as server:
        session = await server.session()
        await server.prompt(session)
        store = server.application.store
        records = await store.read(ALL, after=BEGINNING, limit=100_000)
        deltas = sum(type_of(record.tag) == "message.part.delta" for record in records)
        assert deltas == WORDS
        assert sum(len(record.data) for record in records) < 400 * deltas + 10 * len(said)

        while await store.compact(closed_before_ms=1 << 52, records_max=1000):
            pass
        left = await store.read(ALL, after=BEGINNING, limit=100_000)
        assert len(left) < 50
        assert sum(len(record.data) for record in left) < 5 * len(said)
        assert "".join(part.get("text", "") for part in (await server.messages(session))[-1]["parts"]) == said


async def test_a_tool_that_writes_for_long_does_not_write_the_log_full(tmp_path: Path) -> None:
    """Its progress is recorded at a pace and up to a size, whatever it writes."""
    async with Server(tmp_path, tmp_path / "data") as server:
        session = await server.session()
        command = {"agent": "build", "command": "for i in $(seq 20000); do echo a line of output number $i; done"}
        await server.api.post(f"/session/{session}/shell", json=command)
        records = await server.application.store.read(ALL, after=BEGINNING, limit=100_000)

        assert len(records) < 300
        assert max(len(record.data) for record in records) < 500_000
