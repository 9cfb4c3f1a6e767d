from pathlib import Path

import pytest

from tests.server.streams import kills


@pytest.mark.slow
async def test_kill_9_under_load_loses_nothing_that_was_acknowledged_and_repeats_nothing(tmp_path: Path) -> None:
    load = await kills.run(tmp_path, kills=5, seed=5)

    assert load.reads > 0
