from pathlib import Path

import pytest

from tests.server.streams import kills, subscription_kills


@pytest.mark.slow
async def test_kill_9_under_load_loses_nothing_that_was_acknowledged_and_repeats_nothing(tmp_path: Path) -> None:
    load = await kills.run(tmp_path, kills=5, seed=5)

    assert load.reads > 0


@pytest.mark.slow
async def test_kill_9_while_subscriptions_work_loses_no_wake_and_takes_back_no_acknowledgement(tmp_path: Path) -> None:
    load = await subscription_kills.run(tmp_path, kills=6, seed=5)

    assert load.told > 0
    assert load.claimed
