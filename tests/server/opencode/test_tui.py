"""`/tui/*`: what TUIs that follow the directory are told."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.harness import Server


async def ask(server: Server, path: str, body: Any = None) -> httpx.Response:
    return (
        await server.api.post(f"/tui/{path}", json=body) if body is not None else await server.api.post(f"/tui/{path}")
    )


@pytest.mark.parametrize(
    ("path", "body", "kind", "properties"),
    [
        ("append-prompt", {"text": "hey"}, "tui.prompt.append", {"text": "hey"}),
        ("open-help", None, "tui.command.execute", {"command": "help.show"}),
        ("open-sessions", None, "tui.command.execute", {"command": "session.list"}),
        ("open-themes", None, "tui.command.execute", {"command": "theme.switch"}),
        ("open-models", None, "tui.command.execute", {"command": "model.list"}),
        ("submit-prompt", None, "tui.command.execute", {"command": "prompt.submit"}),
        ("clear-prompt", None, "tui.command.execute", {"command": "prompt.clear"}),
        ("execute-command", {"command": "session_new"}, "tui.command.execute", {"command": "session.new"}),
        ("execute-command", {"command": "agent.cycle"}, "tui.command.execute", {"command": "agent.cycle"}),
        (
            "show-toast",
            {"message": "m", "variant": "info"},
            "tui.toast.show",
            {"message": "m", "variant": "info", "duration": 5000},
        ),
        (
            "show-toast",
            {"title": "t", "message": "m", "variant": "error", "duration": 10},
            "tui.toast.show",
            {"title": "t", "message": "m", "variant": "error", "duration": 10},
        ),
        (
            "publish",
            {"type": "tui.prompt.append", "properties": {"text": "hey"}},
            "tui.prompt.append",
            {"text": "hey"},
        ),
    ],
)
async def test_a_request_is_told_to_those_who_follow_and_recorded_nowhere(
    server: Server, path: str, body: Any, kind: str, properties: dict[str, Any]
):
    await server.listen()
    async with server.events() as own, server.events("/global/event") as all_of_them:
        await own.next()
        await all_of_them.next()
        assert (await ask(server, path, body)).json() is True
        frame, wrapped = await own.next(), (await all_of_them.next()).json

    assert (frame.type, frame.json["properties"]) == (kind, properties)
    assert (wrapped["directory"], wrapped["payload"]) == (str(server.directory), frame.json)
    assert frame.id is None
    assert await server.records() == 0


async def test_another_directory_is_not_told(server: Server, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    await server.listen()
    async with server.events() as events:
        await events.next()
        await server.api.post("/tui/append-prompt", json={"text": "theirs"}, params={"directory": str(other)})
        await ask(server, "append-prompt", {"text": "ours"})

        assert (await events.next()).json["properties"] == {"text": "ours"}


async def test_a_session_is_selected_if_it_exists(server: Server):
    session = await server.session()
    await server.listen()
    async with server.events() as events:
        await events.until("server.heartbeat")
        assert (await ask(server, "select-session", {"sessionID": session})).json() is True
        assert (await events.next()).json["properties"] == {"sessionID": session}
    select = {"type": "tui.session.select", "properties": {"sessionID": "ses_none"}}

    assert (await ask(server, "select-session", {"sessionID": "ses_none"})).status_code == 404
    assert (await ask(server, "publish", select)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("append-prompt", {}),
        ("append-prompt", {"text": 5}),
        ("execute-command", {"command": None}),
        ("show-toast", {"message": "m"}),
        ("show-toast", {"message": "m", "variant": "loud"}),
        ("show-toast", {"message": "m", "variant": "info", "duration": 0}),
        ("publish", {"type": "session.deleted", "properties": {}}),
        ("publish", {"type": "tui.prompt.append"}),
        ("select-session", {"sessionID": "nope"}),
        ("select-session", {}),
    ],
)
async def test_a_request_that_is_wrong_is_refused_and_nobody_is_told(server: Server, path: str, body: Any):
    await server.listen()
    async with server.events() as events:
        await events.next()
        answer = await ask(server, path, body)
        await ask(server, "open-help")

        assert answer.status_code == 400
        assert answer.json()["data"]["message"]
        assert (await events.next()).json["properties"] == {"command": "help.show"}


async def test_a_program_in_place_of_a_tui_is_handed_the_next_request(server: Server):
    waiting = [asyncio.create_task(server.api.get("/tui/control/next")) for _ in range(2)]
    while not all(task.done() for task in waiting):  # a request made before anybody waits is nobody's
        await ask(server, "append-prompt", {"text": "hey"})

    assert [task.result().json() for task in waiting] == [{"path": "/tui/append-prompt", "body": {"text": "hey"}}] * 2
    assert (await ask(server, "control/response", {"any": ["thing"]})).json() is True


async def test_who_waits_for_a_request_is_told_when_the_server_stops(server: Server):
    waiting = asyncio.create_task(server.api.get("/tui/control/next"))
    await server.api.get("/global/health")
    await server.application.stop()
    answer = await waiting

    assert answer.status_code == 503
    assert "stopping" in answer.json()["data"]["message"]
