"""`/sync/history`: what a client that keeps a copy lacks."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.service import sync
from holdfast.testing.scripted_provider import text
from tests.server.harness import Server


async def history(server: Server, known: dict[str, int]) -> list[dict[str, Any]]:
    return (await server.api.post("/sync/history", json=known)).raise_for_status().json()


async def test_everything_of_the_directory_comes_as_rows(server: Server, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    await server.api.post("/session", params={"directory": str(other)})
    session = await server.session()
    await server.prompt(session, "hello", noReply=True)
    rows = await history(server, {})

    assert {row["aggregate_id"] for row in rows} == {session}
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert rows[0]["type"] == "session.created.1"
    assert {"message.updated.1", "message.part.updated.1"} <= {row["type"] for row in rows}
    assert all(row.keys() == {"id", "aggregate_id", "seq", "type", "data"} for row in rows)
    assert rows[0]["data"]["info"]["id"] == session


async def test_what_is_known_does_not_come_again(server: Server):
    first, second = await server.session(), await server.session()
    await server.api.patch(f"/session/{first}", json={"title": "another"})
    rows = await history(server, {first: 0})

    assert [(row["aggregate_id"], row["seq"]) for row in rows] == [(second, 0), (first, 1)]
    assert await history(server, {first: 1, second: 0}) == []


async def test_a_client_that_asks_again_has_everything_at_last(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sync, "_RECORDS_MAX", 7)
    server.provider.add(text("one two three four five six seven"))
    await server.prompt(await server.session())
    await server.session()
    known: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    while rows := await history(server, known):
        assert len(rows) <= 7
        found += rows
        known.update((row["aggregate_id"], row["seq"]) for row in rows)

    assert len(found) == await server.records()
    assert len({row["id"] for row in found}) == len(found)


@pytest.mark.parametrize("body", [[], {"ses_x": -1}, {"ses_x": 1.5}, {"ses_x": "0"}, {"ses_x": None}, 5])
async def test_a_place_that_is_none_is_refused(server: Server, body: Any):
    answer = await server.api.post("/sync/history", json=body)

    assert answer.status_code == 400


async def test_there_is_nothing_to_start(server: Server):
    assert (await server.api.post("/sync/start")).json() is True
