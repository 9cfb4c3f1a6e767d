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


async def test_a_stranger_with_a_made_up_token_of_a_wake_costs_and_learns_nothing(tmp_path: Path) -> None:
    """His body is not read, he is not told which subscriptions there are, and no key is made for him."""
    async with Server(tmp_path, password="pw", streams=StreamOptions(body_bytes_max=200)) as server:
        api, root = server.api, "/v1/stream/__ds"
        long = "x" * 1000
        for action in ("callback", "ack", "release"):
            answer = await api.post(f"{root}/subscriptions/x/{action}", content=long, headers=bearer("x.y"))
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "TOKEN_INVALID")
        assert (await api.get(f"{root}/jwks.json", headers=PASSWORD)).json() == {"keys": []}

        config = {"type": "pull-wake", "streams": ["s"], "wake_stream": "w"}
        assert (await api.put(f"{root}/subscriptions/x", json=config, headers=PASSWORD)).status_code == 201
        assert (await api.post(f"{root}/subscriptions/x/ack", content=long, headers=bearer("x.y"))).status_code == 401
        await api.put("/v1/stream/s", content="1", headers={**JSON, **PASSWORD})
        claim = (await api.post(f"{root}/subscriptions/x/claim", json={"worker": "me"}, headers=PASSWORD)).json()
        answer = await api.post(f"{root}/subscriptions/x/ack", content=long, headers=bearer(claim["token"]))
        assert answer.status_code == 413


async def test_every_answer_to_a_request_for_a_stream_has_the_headers_that_browsers_obey(tmp_path: Path) -> None:
    async with Server(tmp_path, password="pw") as server:
        for headers in ({}, {"host": "evil.example"}, {"origin": "https://evil.example"}, PASSWORD):
            answer = await server.api.get("/v1/stream/s", headers=headers)
            assert answer.status_code in (401, 403, 404)
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_a_page_of_a_stranger_cannot_write_a_stream(tmp_path: Path) -> None:
    async with Server(tmp_path, cors=("https://app.example",)) as server:
        stranger, friend = {"origin": "https://evil.example"}, {"origin": "https://app.example"}
        assert (await server.api.put("/v1/stream/s", headers={**JSON, **stranger})).status_code == 403
        answer = await server.api.put("/v1/stream/s", headers={**JSON, **friend})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "Stream-Next-Offset" in answer.headers["access-control-expose-headers"]
