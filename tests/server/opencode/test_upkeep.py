from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.server.harness import Server


async def test_a_client_can_write_to_the_log_but_no_line_of_its_own_and_no_secret(server: Server):
    line = {"service": "tui", "level": "warn", "message": "a\nb\x1b[31m", "extra": {"token": "sk-secret", "n": 1}}
    with capture_logs() as logs:
        answer = await server.api.post("/log", json=line)

    assert answer.json() is True
    assert logs == [
        {
            "event": "client.said",
            "log_level": "warning",
            "service": "tui",
            "message": "a b [31m",
            "extra": '{"n":1}',
        }
    ]


@pytest.mark.parametrize("level", ["debug", "info", "error"])
async def test_every_level_is_taken(server: Server, level: str):
    assert (await server.api.post("/log", json={"service": "s", "level": level, "message": "m"})).json() is True


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"service": "s", "level": "loud", "message": "m"},
        {"service": "s", "level": "info"},
        {"service": 5, "level": "info", "message": "m"},
        {"service": "s", "level": "info", "message": "m", "extra": []},
    ],
)
async def test_a_line_of_the_wrong_shape_is_refused(server: Server, body: Any):
    with capture_logs() as logs:
        answer = await server.api.post("/log", json=body)

    assert answer.status_code == 400
    assert logs == []


async def test_an_upgrade_is_refused_with_what_to_do(server: Server):
    answer = await server.api.post("/global/upgrade", json={"target": "1.0.0"})

    assert answer.json()["success"] is False
    assert "install" in answer.json()["error"]
