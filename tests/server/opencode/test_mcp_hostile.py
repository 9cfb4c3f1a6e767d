"""MCP servers that mean no good: answers that grow when they are unpacked, pictures that are none, secrets said again."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast.agent.mcp.logins import Grant
from holdfast.server.listener import Listener
from tests.agent.mcp.everything import PIXEL
from tests.agent.mcp.servers import serving
from tests.server.harness import Server
from tests.server.opencode.test_mcp import called

PICTURE: Final = base64.b64encode(PIXEL).decode()


class Remote:
    """An MCP server over HTTP with one tool, `t`, that answers `result`, or with `error`; `packed` as gzip."""

    def __init__(self, result: Any = None, *, error: str | None = None, packed: bool = False) -> None:
        self._result = result
        self._error = error
        self._packed = packed
        self.seen: dict[str, str] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen |= {name.decode(): value.decode() for name, value in scope["headers"]}
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = json.loads(body) if scope["method"] == "POST" else {}
        answer = self._answer(request)
        data = json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}).encode() if answer else b""
        headers = [(b"content-type", b"application/json")]
        if self._packed and request.get("method") == "tools/call":
            data = gzip.compress(data)
            headers.append((b"content-encoding", b"gzip"))
        status = 200 if answer else 202 if request else 405
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})

    def _answer(self, request: Any) -> Any:
        match request.get("method"):
            case "initialize":
                version = request["params"]["protocolVersion"]
                info = {"name": "remote", "version": "1"}
                return {"result": {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}}
            case "tools/list":
                return {"result": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}}
            case "tools/call":
                return {"error": {"code": -1, "message": self._error}} if self._error else {"result": self._result}
            case _:
                return None


async def asked(tmp_path: Path, remote: Remote, **config: Any) -> dict[str, Any]:
    async with Listener(remote, "127.0.0.1", 0) as listener:
        servers = {"far": {"type": "remote", "url": listener.url, **config}}
        async with serving(tmp_path, servers) as server:
            return (await called(server, "far_t"))["state"]


async def test_an_answer_that_is_compressed_is_not_unpacked(tmp_path: Path):
    """8 MB were taken from the wire, and became gigabytes."""
    remote = Remote({"content": [{"type": "text", "text": "x" * 1000}]}, packed=True)
    state = await asked(tmp_path, remote, headers={"Accept-Encoding": "gzip"})
    assert state["status"] == "error"
    assert "broke" in state["error"]
    assert remote.seen["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("mime", "data", "shown"),
    [
        ("image/png", PICTURE, True),
        ("image/jpeg", PICTURE, False),
        ("image/png", base64.b64encode(b"no picture").decode(), False),
        ("application/pdf", PICTURE, False),
        ("audio/wav", base64.b64encode(b"some sound").decode(), True),
    ],
)
async def test_a_picture_that_is_none_is_left_out_and_said_to_be(tmp_path: Path, mime: str, data: str, shown: bool):
    """A provider refused it, and with it every later request of the session."""
    state = await asked(tmp_path, Remote({"content": [{"type": "image", "mimeType": mime, "data": data}]}))
    assert state["status"] == "completed"
    assert [file["mime"] for file in state.get("attachments", [])] == ([mime] if shown else [])
    assert ("is something else and was left out" in state["output"]) == (not shown)


async def test_what_was_granted_at_a_login_is_not_told_when_a_server_says_it_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    remote = Remote(error="the token s3cret-token of t0ken-user is good for nothing")
    async with Listener(remote, "127.0.0.1", 0) as listener:
        url = listener.url.replace("://", "://t0ken-user@")
        async with serving(tmp_path, {}) as server:
            await granted(server, f"far {url}")
            await server.api.post("/mcp", json={"name": "far", "config": {"type": "remote", "url": url}})
            state = (await called(server, "far_t"))["state"]
    assert remote.seen["authorization"] == "Bearer s3cret-token"
    assert state["error"] == "the token *** of *** is good for nothing"
    assert "s3cret" not in "".join(capfd.readouterr())


async def granted(server: Server, key: str) -> None:
    tokens = {"access_token": "s3cret-token", "token_type": "Bearer"}
    server.application.services.mcp._grants.put(key, Grant(tokens=tokens))
