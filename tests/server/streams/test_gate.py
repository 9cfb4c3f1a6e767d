"""Streams behind the server's gate: password, credentials of their own, tokens of wakes, origins."""

import base64
from hashlib import sha256
from pathlib import Path

from holdfast.server.streams import StreamOptions
from holdfast.service.stream_access import StreamCredential
from tests.server.harness import Server

PASSWORD = {"authorization": "Basic " + base64.b64encode(b"opencode:pw").decode()}
JSON = {"content-type": "application/json"}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_the_password_a_credential_or_the_token_of_a_wake_lets_in_and_nothing_else(tmp_path: Path) -> None:
    reader = StreamCredential(name="r", token_sha256=sha256(b"r").hexdigest(), read=("s",))
    async with Server(tmp_path, password="pw", streams=StreamOptions(credentials=(reader,))) as server:
        api, root = server.api, "/v1/stream"
        assert (await api.put(f"{root}/s", headers=JSON)).status_code == 401
        assert (await api.put(f"{root}/s", headers={**JSON, **PASSWORD})).status_code == 201
        assert (await api.get(f"{root}/s", headers=bearer("r"))).status_code == 200
        assert (await api.get(f"{root}/s", headers=bearer("other"))).status_code == 401
        assert (await api.delete(f"{root}/s", headers=bearer("r"))).status_code == 403
        assert (await api.get("/session", headers=bearer("r"))).status_code == 401

        await api.put(f"{root}/w", headers={**JSON, **PASSWORD})
        subscription = f"{root}/__ds/subscriptions/x"
        config = {"type": "pull-wake", "streams": ["s"], "wake_stream": "w"}
        assert (await api.put(subscription, json=config, headers=PASSWORD)).status_code == 201
        await api.post(f"{root}/s", content="1", headers={**JSON, **PASSWORD})
        assert (await api.post(f"{subscription}/claim", json={"worker": "me"})).status_code == 401
        claim = (await api.post(f"{subscription}/claim", json={"worker": "me"}, headers=PASSWORD)).json()
        ack = {"wake_id": claim["wake_id"], "generation": claim["generation"], "done": True}
        assert (await api.post(f"{subscription}/ack", json=ack, headers=bearer("guess"))).status_code == 401
        assert (await api.post(f"{subscription}/ack", json=ack, headers=bearer(claim["token"]))).status_code == 200


async def test_a_page_of_a_stranger_cannot_write_a_stream(tmp_path: Path) -> None:
    async with Server(tmp_path, cors=("https://app.example",)) as server:
        stranger, friend = {"origin": "https://evil.example"}, {"origin": "https://app.example"}
        assert (await server.api.put("/v1/stream/s", headers={**JSON, **stranger})).status_code == 403
        answer = await server.api.put("/v1/stream/s", headers={**JSON, **friend})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "Stream-Next-Offset" in answer.headers["access-control-expose-headers"]
