"""`/api/pty`: the terminals of `/pty`."""

import httpx

from tests.server.harness import Server
from tests.server.opencode.test_pty import Reader, socket


async def test_a_terminal_is_opened_listed_changed_and_removed(server: Server):
    made = (await server.api.post("/api/pty", json={"command": "/bin/cat", "title": "T"})).json()
    pty = made["data"]

    assert made["location"]["directory"] == str(server.directory)
    assert (await server.api.get("/api/pty")).json()["data"] == (await server.api.get("/pty")).json() == [pty]
    changed = (await server.api.put(f"/api/pty/{pty['id']}", json={"title": "U"})).json()
    assert changed["data"]["title"] == "U"
    assert (await server.api.get(f"/api/pty/{pty['id']}")).json() == changed
    removed = await server.api.delete(f"/api/pty/{pty['id']}")
    assert (removed.status_code, removed.content) == (204, b"")
    assert (await server.api.get(f"/api/pty/{pty['id']}")).status_code == 404


async def test_a_ticket_opens_a_connection(server_with_password: Server):
    server = server_with_password
    url = await server.listen()
    auth = ("opencode", "pw")
    body = {"command": "/bin/sh", "args": ["-c", "echo hello; cat"]}
    pty = (await server.api.post("/api/pty", json=body, auth=auth)).json()["data"]
    ticket = (await server.api.post(f"/api/pty/{pty['id']}/connect-token", auth=auth)).json()["data"]
    reader = Reader()
    async with socket(f"{url}/api/pty/{pty['id']}/connect?ticket={ticket['ticket']}") as connected:
        await reader.read(connected, "hello")

    assert "hello" in reader.text


async def test_what_is_wrong_is_refused(server: Server):
    for path in ("/api/pty/pty_none", "/api/pty/pty_none/connect"):
        answer = await server.api.get(path)
        assert (answer.status_code, answer.json()["_tag"]) == (404, "PtyNotFoundError")
    assert (await server.api.get("/api/pty/nope")).status_code == 400
    assert (await server.api.post("/api/pty", json={"command": 5})).status_code == 400
    assert (await server.api.post("/api/pty", json={"cwd": "/does/not/exist"})).status_code == 400


async def test_a_refused_connection_says_why_in_the_words_of_its_api(server_with_password: Server):
    url = await server_with_password.listen()
    body = {"command": "/bin/cat"}
    pty = (await server_with_password.api.post("/api/pty", json=body, auth=("opencode", "pw"))).json()["data"]
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    async with httpx.AsyncClient(headers=upgrade, timeout=60) as client:
        for query in ("?ticket=wrong", ""):
            second = await client.get(f"{url}/api/pty/{pty['id']}/connect{query}")
            first = await client.get(f"{url}/pty/{pty['id']}/connect{query}")
            assert (second.status_code, second.json()["_tag"]) == (403, "ForbiddenError")
            assert (first.status_code, first.json()["name"]) == (403, "ForbiddenError")
