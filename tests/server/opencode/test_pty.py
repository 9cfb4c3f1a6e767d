"""`/pty` over HTTP and WebSocket, on a real socket."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.server.harness import Server

AUTHORIZED = {"authorization": "Basic " + base64.b64encode(b"opencode:pw").decode()}


@asynccontextmanager
async def socket(url: str, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, **options) as connected:
        yield connected


async def opened(server: Server, command: str, **options: Any) -> str:
    body = {"command": "/bin/sh", "args": ["-c", command]}
    return (await server.api.post("/pty", json=body, **options)).raise_for_status().json()["id"]


class Reader:
    """A client as the stock one is: it adds up the lengths of texts, as JavaScript counts them."""

    def __init__(self) -> None:
        self.text = ""
        self.cursor = 0
        self.told: list[bytes] = []

    async def read(self, connected: aiohttp.ClientWebSocketResponse, wanted: str | None = None) -> int | None:
        """Until that text came, or to the end; then the close code."""
        async with asyncio.timeout(60):
            while wanted is None or wanted not in self.text:
                message = await connected.receive()
                if message.type == aiohttp.WSMsgType.TEXT:
                    self.text += message.data
                    self.cursor += len(message.data.encode("utf-16-le")) // 2
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self.told.append(message.data)
                else:
                    return connected.close_code
        return None


async def test_a_terminal_is_opened_listed_changed_and_removed(server: Server) -> None:
    pty = (await server.api.post("/pty", json={"command": "/bin/cat", "title": "T"})).json()
    assert pty | {"pid": 0, "id": "x"} == {
        "id": "x",
        "title": "T",
        "command": "/bin/cat",
        "args": [],
        "cwd": str(server.directory.resolve()),
        "status": "running",
        "pid": 0,
    }
    place = f"/pty/{pty['id']}"
    assert (await server.api.get("/pty")).json() == [pty]
    assert (await server.api.get(place)).json() == pty
    changed = await server.api.put(place, json={"title": "T2", "size": {"rows": 10, "cols": 40}})
    assert changed.json() == pty | {"title": "T2"}
    assert (await server.api.delete(place)).json() is True
    for answer in (await server.api.get(place), await server.api.delete(place)):
        assert answer.status_code == 404
        assert answer.json()["_tag"] == "PtyNotFoundError"
        assert answer.json()["ptyID"] == pty["id"]
    assert (await server.api.get("/pty")).json() == []


async def test_the_shells_of_the_machine_are_listed(server: Server) -> None:
    shells = (await server.api.get("/pty/shells")).json()
    assert {"path": "/bin/sh", "name": "sh", "acceptable": True} in shells


async def test_a_connection_shows_what_was_shown_then_the_cursor_then_what_comes(server: Server) -> None:
    url = await server.listen()
    id = await opened(server, "echo hé😀; read x; echo got $x; exit 3")
    reader = Reader()
    async with socket(f"{url}/pty/{id}/connect") as connected:
        await reader.read(connected, "hé😀\r\n")
        await connected.send_str("typed\n")
        assert await reader.read(connected) == 1000
    assert reader.text == "hé😀\r\ntyped\r\ngot typed\r\n"
    assert len(reader.told) == 1
    assert reader.told[0].startswith(b'\0{"cursor":')
    ended = (await server.api.get(f"/pty/{id}")).json()
    assert (ended["status"], ended["exitCode"]) == ("exited", 3)


async def test_a_client_that_comes_back_with_its_cursor_misses_nothing_and_sees_nothing_twice(server: Server) -> None:
    url = await server.listen()
    id = await opened(server, "stty -echo; echo one 😀; read x; echo two; read x; echo three")
    reader = Reader()
    async with socket(f"{url}/pty/{id}/connect") as connected:
        await reader.read(connected, "one 😀\r\n")
        await connected.send_str("\n")
    other = Reader()
    async with socket(f"{url}/pty/{id}/connect?cursor=-1") as connected:
        await connected.send_bytes(b"\n")
        await other.read(connected)
    async with socket(f"{url}/pty/{id}/connect?cursor={reader.cursor}") as connected:
        await reader.read(connected)
    assert reader.text == "one 😀\r\ntwo\r\nthree\r\n"
    assert reader.text.endswith(other.text)


async def test_a_reader_that_takes_nothing_does_not_hold_up_another(server: Server) -> None:
    url = await server.listen()
    id = await opened(server, "read x; head -c 3000000 /dev/zero | tr '\\0' x; echo done")
    async with socket(f"{url}/pty/{id}/connect") as stalled, socket(f"{url}/pty/{id}/connect") as connected:
        await stalled.receive()
        await connected.send_str("\n")
        reader = Reader()
        assert await reader.read(connected) == 1000
    assert reader.text.endswith("done\r\n")


async def test_a_connection_ends_when_the_terminal_is_removed(server: Server) -> None:
    url = await server.listen()
    id = await opened(server, "sleep 1000")
    async with socket(f"{url}/pty/{id}/connect") as connected:
        assert (await connected.receive()).data == b'\0{"cursor":0}'
        await server.api.delete(f"/pty/{id}")
        assert await Reader().read(connected) == 1000


async def test_a_ticket_stands_for_the_password_once(server_with_password: Server) -> None:
    server = server_with_password
    url = await server.listen()
    id = await opened(server, "read x", headers=AUTHORIZED)
    assert (await server.api.post(f"/pty/{id}/connect-token")).status_code == 401
    ticket = (await server.api.post(f"/pty/{id}/connect-token", headers=AUTHORIZED)).json()
    assert ticket["expires_in"] == 60
    place = f"{url}/pty/{id}/connect"
    async with socket(f"{place}?ticket={ticket['ticket']}") as connected:
        assert (await connected.receive()).data == b'\0{"cursor":0}'
    async with socket(place, headers=AUTHORIZED) as connected:
        assert (await connected.receive()).data == b'\0{"cursor":0}'
    for query in ("", f"?ticket={ticket['ticket']}", "?ticket=made-up"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with socket(place + query):
                pass
        assert refused.value.status == 403


async def test_a_web_page_of_another_site_cannot_connect(server: Server) -> None:
    url = await server.listen()
    id = await opened(server, "read x")
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with socket(f"{url}/pty/{id}/connect", headers=headers):
                pass
        assert refused.value.status == 403
    async with socket(f"{url}/pty/{id}/connect", headers={"origin": url}):
        pass


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/pty/pty_none/connect", 404),
        ("/pty/nonsense/connect", 400),
        ("/elsewhere", 400),
        ("/pty/{id}/connect?cursor=x", 400),
        ("/pty/{id}/connect?cursor=-2", 400),
        ("/pty/{id}/connect?cursor=" + "9" * 30, 400),
    ],
)
async def test_a_wrong_connection_is_refused_before_it_opens(server: Server, path: str, status: int) -> None:
    url = await server.listen()
    id = await opened(server, "read x")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with socket(url + path.replace("{id}", id)):
            pass
    assert refused.value.status == status


async def test_what_is_wrong_is_answered_with_a_reason_and_nothing_runs(server: Server) -> None:
    for body in (
        {"command": "/no/such"},
        {"cwd": "/no/such"},
        {"cwd": 5},
        {"args": "x"},
        {"args": ["a\0b"]},
        {"env": {"A=B": "x"}},
        [],
    ):
        answer = await server.api.post("/pty", json=body)
        assert (body, answer.status_code) == (body, 400)
        assert answer.json()["data"]["message"]
    assert (await server.api.get("/pty")).json() == []
    id = await opened(server, "read x")
    for size in ({"rows": 0, "cols": 1}, {"rows": 1, "cols": 10**9}, {"rows": 1}, {"rows": "1", "cols": 1}):
        assert (await server.api.put(f"/pty/{id}", json={"size": size})).status_code == 400
    assert (await server.api.get("/pty/xx")).status_code == 400
    assert (await server.api.get(f"/pty/{id}/connect")).status_code == 400


async def test_followers_of_the_directory_are_told_what_happens(server: Server, tmp_path: Path) -> None:
    await server.listen()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    async with server.events() as own, server.events("/global/event") as all_events:
        await own.until("server.connected")
        await all_events.until("server.connected")
        await server.api.post("/pty", json={"command": "/bin/cat"}, params={"directory": str(elsewhere)})
        pty = (await server.api.post("/pty", json={"command": "/bin/cat"})).json()
        await server.api.put(f"/pty/{pty['id']}", json={"title": "T"})
        await server.api.delete(f"/pty/{pty['id']}")
        frames = await own.until("pty.deleted")
        assert [(frame.type, frame.id) for frame in frames] == [
            ("pty.created", None),
            ("pty.updated", None),
            ("pty.deleted", None),
        ]
        assert frames[0].json["properties"] == {"info": pty}
        first, second = await all_events.next(), await all_events.next()
        assert first.json["directory"] == str(elsewhere.resolve())
        assert second.json["payload"]["properties"] == {"info": pty}
