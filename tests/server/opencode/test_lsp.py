"""Symbols, from language servers of the configuration, in a whole server."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.other_processes import is_alive, read, until
from tests.agent.test_lsp import FAKE
from tests.kill.arena import Arena
from tests.server.harness import Server


def fake(log: Path, **more: Any) -> dict[str, Any]:
    return {"command": [sys.executable, "-I", "-S", str(FAKE), str(log)], "extensions": [".py"], **more}


def configure(directory: Path, lsp: Any) -> None:
    (directory / "opencode.json").write_text(json.dumps({"lsp": lsp}))


async def found(server: Server, query: str) -> list[str]:
    answer = await server.api.get("/find/symbol", params={"query": query})
    return [symbol["name"] for symbol in answer.raise_for_status().json()]


async def statuses(server: Server) -> list[dict[str, str]]:
    return (await server.api.get("/lsp")).raise_for_status().json()


async def test_symbols_come_from_the_servers_of_the_configuration(tmp_path: Path):
    log = tmp_path / "log"
    (tmp_path / "a.py").touch()
    configure(tmp_path, {"fake": fake(log), "missing": {"command": ["/nonexistent/program"]}})
    async with Server(tmp_path) as server:
        await server.listen()
        async with server.events() as events:
            assert await statuses(server) == []
            assert not log.exists()
            answer = await server.api.get("/find/symbol", params={"query": "main"})
            updated = (await events.until("lsp.updated"))[-1].json

        assert answer.json() == [
            {
                "name": "main",
                "kind": 12,
                "location": {
                    "uri": "file:///project/a.py",
                    "range": {"start": {"line": 1, "character": 2}, "end": {"line": 1, "character": 9}},
                },
            }
        ]
        assert updated["properties"] == {}
        assert sorted(await statuses(server), key=lambda status: status["id"]) == [
            {"id": "fake", "name": "fake", "root": "", "status": "connected"},
            {"id": "missing", "name": "missing", "root": "", "status": "error"},
        ]
        assert (await server.api.get("/find/symbol")).status_code == 400
        [pids] = await found(server, "child")
    assert not any(is_alive(int(pid)) for pid in pids.split())


async def test_a_server_without_files_of_its_kinds_is_not_started(tmp_path: Path):
    log = tmp_path / "log"
    configure(tmp_path, {"fake": fake(log)})
    async with Server(tmp_path) as server:
        assert await found(server, "main") == []
        assert not log.exists()
        (tmp_path / "a.py").touch()
        assert await found(server, "main") == ["main"]


@pytest.mark.parametrize("off", [False, True, {}, {"fake": {"disabled": True}}])
async def test_servers_that_are_switched_off_are_not_started(tmp_path: Path, off: Any):
    log = tmp_path / "log"
    lsp = {"fake": {**fake(log), **off["fake"]}} if isinstance(off, dict) and off else off
    (tmp_path / "a.py").touch()
    configure(tmp_path, lsp)
    async with Server(tmp_path) as server:
        assert await found(server, "main") == []
        assert await statuses(server) == []
        assert not log.exists()


async def test_a_server_ends_with_the_instance_and_follows_the_configuration(tmp_path: Path):
    log = tmp_path / "log"
    (tmp_path / "a.py").touch()
    configure(tmp_path, {"fake": fake(log)})
    async with Server(tmp_path) as server:
        assert await found(server, "main") == ["main"]
        await server.api.post("/instance/dispose")
        await until(lambda: read(log).endswith("\nend\n"))
        assert await statuses(server) == []

        assert await found(server, "main") == ["main"]
        configure(tmp_path, {"fake": fake(log, env={"GIVEN": "now"})})
        server.application.services.instances.look_again()
        assert await found(server, "environment") == ["GIVEN=now"]
        await until(lambda: read(log).count("\nend\n") == 2)


@pytest.mark.slow
async def test_language_servers_and_what_they_started_die_with_a_killed_holdfast(tmp_path: Path):
    async with Arena(tmp_path) as arena:
        file = arena.work / "opencode.json"
        (arena.work / "a.py").touch()
        file.write_text(json.dumps({**json.loads(file.read_text()), "lsp": {"fake": fake(tmp_path / "log")}}))
        await arena.call("POST", "/instance/dispose")
        [symbol] = await arena.call("GET", "/find/symbol?query=child")
        pids = [int(pid) for pid in symbol["name"].split()]
        assert all(map(is_alive, pids))
        await arena.kill()
        await until(lambda: not any(map(is_alive, pids)))
