"""Symbols, from language servers of the configuration, in a whole server."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.other_processes import is_alive, read, until
from holdfast.testing.scripted_provider import call, text
from tests.agent.lsp.test_servers import FAKE
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


async def call_outputs(server: Server, session_id: str) -> list[dict[str, Any]]:
    messages = await server.messages(session_id)
    return [part["state"] for message in messages for part in message["parts"] if part["type"] == "tool"]


async def test_errors_are_told_to_the_llm_in_the_form_of_the_stock_server(tmp_path: Path):
    log = tmp_path / "log"
    path, other = tmp_path / "a.py", tmp_path / "b.py"
    other.write_text("bad other\n")
    path.write_text("good\n")
    configure(tmp_path, {"fake": fake(log)})
    patch = f"*** Begin Patch\n*** Update File: {path}\n@@\n-good\n+bad patch\n*** End Patch"
    scripts = [
        call("read", {"filePath": str(other)}),
        call("write", {"filePath": "new.py", "content": "bad new\nodd\n"}),
        call("read", {"filePath": str(path)}),
        call("edit", {"filePath": str(path), "oldString": "good", "newString": "bad edit\ngood"}),
        call("apply_patch", {"patchText": patch}),
        call("write", {"filePath": "no.txt", "content": "bad"}),
        text("Done."),
    ]
    async with Server(tmp_path, scripts=[*scripts]) as server:
        session_id = await server.session()
        await server.prompt(session_id)
        _, written, _, edited, patched, text_file = await call_outputs(server, session_id)
        assert [status["status"] for status in await statuses(server)] == ["connected"]

    def told(file: Path, *errors: str) -> str:
        return "\n".join((f'<diagnostics file="{file}">', *errors, "</diagnostics>"))

    new = tmp_path / "new.py"
    assert written["output"] == (
        f"Made {new}."
        f"\n\nLSP errors detected in this file, please fix:\n{told(new, 'ERROR [1:1] new')}"
        f"\n\nLSP errors detected in other files:\n{told(other, 'ERROR [1:1] other')}"
    )
    assert edited["output"] == (
        f"Changed {path}.\n\nLSP errors detected in this file, please fix:\n{told(path, 'ERROR [1:1] edit')}"
    )
    assert patched["output"] == (
        "The patch was applied. Changed files:\nM a.py\n\nLSP errors detected in a.py, please fix:\n"
        + told(path, "ERROR [1:1] edit", "ERROR [2:1] patch")
    )
    assert text_file["output"] == f"Made {tmp_path / 'no.txt'}."
    range = {"start": {"line": 0, "character": 0}, "end": {"line": 0, "character": 3}}
    assert written["metadata"]["diagnostics"][str(new)] == [
        {"range": range, "severity": 1, "message": "new", "source": "fake", "code": 7}
    ]
    assert text_file["metadata"]["diagnostics"] == {}


@pytest.mark.parametrize("where", ["outside", "no kind", "binary"])
async def test_a_server_is_not_shown_what_is_not_for_it(tmp_path: Path, where: str):
    project = tmp_path / "project"
    project.mkdir()
    configure(project, {"fake": fake(tmp_path / "log")})
    path = {"outside": tmp_path / "a.py", "no kind": project / "a.txt", "binary": project / "a.py"}[where]
    path.write_bytes(b"bad\0" if where == "binary" else b"bad\n")
    scripts = [call("read", {"filePath": str(path)}), call("write", {"filePath": "c.py", "content": ""}), text("Done.")]
    async with Server(project, scripts=scripts) as server:
        session_id = await server.session(permission=[{"permission": "*", "pattern": "*", "action": "allow"}])
        await server.prompt(session_id)
        _, written = await call_outputs(server, session_id)

    assert written["status"] == "completed"
    assert [line for line in read(tmp_path / "log").split("\n") if line.startswith("opened")] == [
        "opened c.py python 0"
    ]


async def test_a_turn_can_be_aborted_while_errors_are_waited_for(tmp_path: Path):
    configure(tmp_path, {"fake": fake(tmp_path / "log", command=[*fake(tmp_path / "log")["command"], "silent"])})
    script = call("write", {"filePath": "a.py", "content": "bad\n"})
    async with Server(tmp_path, scripts=[script, text("Done.")]) as server:
        session_id = await server.session()
        prompting = asyncio.create_task(server.prompt(session_id))
        await server.recorded("file.edited")
        await server.api.post(f"/session/{session_id}/abort")
        await prompting
        [state] = await call_outputs(server, session_id)

    assert state["status"] == "error"
    assert (tmp_path / "a.py").read_text() == "bad\n"


async def test_files_that_a_user_attaches_are_opened(tmp_path: Path):
    project, log = tmp_path / "project", tmp_path / "log"
    project.mkdir()
    configure(project, {"fake": fake(log)})
    files = [project / "a.py", project / "a.txt", tmp_path / "outside.py"]
    for file in files:
        file.write_text("bad one\n")
    script = call("write", {"filePath": "b.py", "content": ""})
    async with Server(project, scripts=[script, text("Done.")]) as server:
        session_id = await server.session()
        parts = [{"type": "file", "mime": "text/plain", "url": file.as_uri()} for file in files]
        body = {"parts": parts, "noReply": True}
        (await server.api.post(f"/session/{session_id}/message", json=body)).raise_for_status()
        await until(lambda: "opened a.py" in read(log))
        await server.prompt(session_id)
        [state] = await call_outputs(server, session_id)

    assert state["output"].endswith(f'file="{files[0]}">\nERROR [1:1] one\n</diagnostics>')
    assert [line for line in read(log).split("\n") if line.startswith("opened")] == [
        "opened a.py python 0",
        "opened b.py python 0",
    ]


async def test_symbols_are_looked_for_with_a_file_open_since_some_servers_know_nothing_else(tmp_path: Path):
    log = tmp_path / "log"
    (tmp_path / "a.py").touch()
    configure(tmp_path, {"fake": fake(log)})
    async with Server(tmp_path) as server:
        assert await found(server, "main") == ["main"]
        assert await found(server, "more") == ["more"]

    told = read(log).split("\n")
    assert told.index("opened a.py python 0") < told.index("find main")
    assert told.count("opened a.py python 0") == 1


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


@pytest.mark.slow
async def test_a_kill_while_a_language_server_hangs_leaves_nothing_of_it_and_the_call_is_finished(tmp_path: Path):
    log = tmp_path / "log"
    async with Arena(tmp_path) as arena:
        file = arena.work / "opencode.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "lsp": {"fake": fake(log)}}))
        await arena.call("POST", "/instance/dispose")
        session_id = (await arena.call("POST", "/session", {"title": "A session"}))["id"]
        write = json.dumps({"filePath": "a.py", "content": "hang once\nbad one\n"})
        body = {
            "messageID": arena.new_message_id(),
            "parts": [{"type": "text", "text": f"[[tool=write {write}]] [[tokens=2]]"}],
        }
        prompting = asyncio.create_task(arena.call("POST", f"/session/{session_id}/message", body))
        await until(lambda: "child" in read(log))
        await arena.kill()
        pid = next(int(line.split()[1]) for line in read(log).split("\n") if line.startswith("child"))
        await until(lambda: not is_alive(pid))
        await arena.start()
        await prompting

        messages = await arena.call("GET", f"/session/{session_id}/message")
        [state] = [part["state"] for message in messages for part in message["parts"] if part["type"] == "tool"]
        assert state["output"].endswith('a.py">\nERROR [2:1] one\n</diagnostics>')
        assert (arena.work / "a.py").read_text() == "hang once\nbad one\n"
