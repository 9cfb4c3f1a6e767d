from pathlib import Path

import pytest

from tests.server.streams.world import JSON, StreamWorld


async def differences(world: StreamWorld) -> list[tuple[str, str]]:
    return [(difference.session_id, difference.what) async for difference in world.store.verify()]


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        ("SELECT 1", []),
        ("DELETE FROM byte_record WHERE position = (SELECT max(position) FROM byte_record WHERE data = '2,')",
         [("s", "records"), ("s", "bytes"), ("s", "tail")]),
        ("UPDATE byte_record SET data = CAST('x,' AS BLOB) WHERE data = CAST('2,' AS BLOB)", [("s", "record")]),
        ("UPDATE byte_stream SET data = CAST(json_set(data, '$.forks', 0) AS BLOB) WHERE path = 's'", [("s", "forks")]),
        ("DELETE FROM byte_stream WHERE path = 'f'", [("s", "forks"), ("", "byte_record")]),
    ],
)  # fmt: skip
async def test_verify_finds_what_does_not_fit_together(
    tmp_path: Path, damage: str, found: list[tuple[str, str]]
) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("s", JSON, "[1]")
        await world.post("s", "2")
        await world.put("f", {**JSON, "stream-forked-from": "/v1/stream/s"}, "[3]")
        await world.put("gone", JSON, "[4]")
        await world.request("DELETE", "gone")
        assert await differences(world) == []
        world.store._database.run(damage.replace("'2,'", "CAST('2,' AS BLOB)") if "DELETE" in damage else damage)

        assert sorted(found) == sorted((path, what.split()[0]) for path, what in await differences(world))
