"""A disk that fills up or fails in the middle of appends: what was acknowledged is there when it is read again."""

from pathlib import Path
from typing import Literal

import pytest

from holdfast.testing.faults import FaultyDisk
from tests.server.streams.world import JSON, StreamWorld


@pytest.mark.parametrize("fault", ["full", "io", "power cut"])
@pytest.mark.parametrize("operations", [1, 2, 5, 12, 30])
async def test_what_was_acknowledged_survives_the_disk(
    tmp_path: Path, fault: Literal["full", "io", "power cut"], operations: int
) -> None:
    disk = FaultyDisk()
    acked = -1
    async with StreamWorld(tmp_path, vfs=disk.name) as world:
        await world.put("s")
        disk.break_after(operations, fault)
        for number in range(40):
            producer = {"producer-id": "p", "producer-epoch": "0", "producer-seq": str(number)}
            answer = await world.post("s", str(number), producer)
            if answer.status != 200:
                assert answer.status == 500
                assert (await world.post("s", "99")).status == 500
                break
            acked = number
        assert acked < 39
    if fault == "power cut":
        disk.lose_unsynced()

    async with StreamWorld(tmp_path) as world:
        found, _ = await world.read_all("s")
        assert found in (list(range(acked + 1)), list(range(acked + 2)))
        retry = {"producer-id": "p", "producer-epoch": "0", "producer-seq": str(len(found) - 1 if found else 0)}
        assert (await world.post("s", "0", {**JSON, **retry})).status == (204 if found else 200)
        assert [difference async for difference in world.store.verify()] == []
