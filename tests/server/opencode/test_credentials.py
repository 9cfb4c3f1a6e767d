"""Keys over HTTP: they connect a provider at once, survive a restart, and are never shown again."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.agent.providers.recorded import ANTHROPIC
from tests.agent.providers.wire import Wire, server, streams
from tests.server.harness import Server, prompt

KEY = "sk-very-secret-key"


async def connected(holdfast: Server) -> list[str]:
    return (await holdfast.api.get("/provider")).raise_for_status().json()["connected"]


async def put(holdfast: Server, provider: str, body: Any) -> Any:
    return await holdfast.api.put(f"/auth/{provider}", json=body)


async def test_a_stored_key_connects_a_provider_without_a_restart(tmp_path: Path):
    """And removing it takes the provider away, as soon as the answer is there."""
    async with Server(tmp_path, tmp_path / "data") as holdfast:
        assert "anthropic" not in await connected(holdfast)

        assert (await put(holdfast, "anthropic", {"type": "api", "key": KEY})).json() is True
        assert "anthropic" in await connected(holdfast)
        listed = (await holdfast.api.get("/config/providers")).json()
        anthropic = next(provider for provider in listed["providers"] if provider["id"] == "anthropic")
        assert anthropic["source"] == "api"
        assert anthropic["models"]["claude-sonnet-4-6"]["cost"]["output"] == 15

        assert (await holdfast.api.delete("/auth/anthropic")).json() is True
        assert "anthropic" not in await connected(holdfast)


async def test_a_turn_uses_the_key_that_was_stored_last(tmp_path: Path):
    requests: list[bytes] = []

    async def behave(wire: Wire) -> None:
        requests.append(wire.request)
        await streams(ANTHROPIC.refusal)(wire)

    async with server(behave) as url:
        config = {"model": "anthropic/claude-sonnet-4-6", "provider": {"anthropic": {"options": {"baseURL": url}}}}
        environ = {"OPENCODE_CONFIG_CONTENT": json.dumps(config), "ANTHROPIC_API_KEY": "of-the-environment"}
        async with Server(tmp_path, tmp_path / "data", environ=environ) as holdfast:
            session = await holdfast.session()
            for key in ("first-key", "second-key"):
                await put(holdfast, "anthropic", {"type": "api", "key": key})
                await holdfast.prompt(session)
        async with Server(tmp_path, tmp_path / "data", environ=environ) as holdfast:
            await holdfast.prompt(session)

    told = [next(key for key in (b"first-key", b"second-key") if key in request) for request in requests]
    assert told == [b"first-key", b"second-key", b"second-key"]


async def test_no_answer_no_event_and_no_file_has_the_key(tmp_path: Path):
    async with Server(tmp_path, tmp_path / "data") as holdfast:
        await put(holdfast, "anthropic", {"type": "api", "key": KEY})
        await put(holdfast, "openai", {"type": "oauth", "refresh": KEY, "access": KEY, "expires": 1})
        await holdfast.prompt(await holdfast.session(), "Hello")
        for path in ("/provider", "/config/providers", "/provider/auth", "/config", "/api/provider", "/api/model"):
            answer = await holdfast.api.get(path)
            assert answer.status_code == 200, path
            assert KEY not in answer.text, path
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"type": "api"},
        {"type": "api", "key": 3},
        {"type": "api", "key": ""},
        {"type": "api", "key": "a\nb"},
        {"type": "nothing", "key": KEY},
        {"type": "oauth", "refresh": KEY},
        {"type": "oauth", "refresh": KEY, "access": KEY, "expires": "soon"},
        {"type": "wellknown", "key": KEY},
    ],
)
async def test_what_is_no_key_is_refused(tmp_path: Path, body: Any):
    async with Server(tmp_path, tmp_path / "data") as holdfast:
        answer = await put(holdfast, "anthropic", body)

        assert answer.status_code == 400
        assert KEY not in answer.text
        assert not (tmp_path / "data" / "auth.json").exists()
        assert "anthropic" not in await connected(holdfast)


async def test_what_providers_take(server: Server):
    methods = (await server.api.get("/provider/auth")).raise_for_status().json()

    assert methods["anthropic"] == [{"type": "api", "label": "API key"}]
    assert methods["scripted"] == [{"type": "api", "label": "API key"}]
    assert "demo" not in methods


@pytest.mark.parametrize("step", ["authorize", "callback"])
async def test_no_provider_has_oauth_and_says_so(server: Server, step: str):
    known = await server.api.post(f"/provider/anthropic/oauth/{step}", json={"method": 0})
    unknown = await server.api.post(f"/provider/nobody/oauth/{step}", json={"method": 0})
    wrong = await server.api.post(f"/provider/anthropic/oauth/{step}", json={"method": "x"})

    assert (known.status_code, unknown.status_code, wrong.status_code) == (400, 400, 400)
    assert "has no OAuth here" in known.json()["data"]["message"]
    assert "PUT /auth/anthropic" in known.json()["data"]["hint"]
    assert "no provider 'nobody'" in unknown.json()["data"]["message"]


async def test_a_turn_keeps_its_rules_while_keys_change(tmp_path: Path):
    """The directory's configuration is read again; nothing of what runs is forgotten meanwhile."""
    async with Server(tmp_path) as holdfast:
        session = await holdfast.session()
        instance = await holdfast.application.services.instances.open(str(tmp_path))
        await put(holdfast, "anthropic", {"type": "api", "key": KEY})

        assert holdfast.application.services.instances.opened(str(tmp_path)) is instance
        assert (await holdfast.api.post(f"/session/{session}/message", json=prompt(noReply=True))).status_code == 200
        assert holdfast.application.services.instances.opened(str(tmp_path)) is not instance


async def test_a_model_that_is_not_connected_is_refused(server: Server):
    model = {"providerID": "anthropic", "modelID": "claude-sonnet-4-6"}
    answer = await server.prompt(await server.session(), model=model)

    assert answer.status_code == 400
    assert "anthropic" in answer.json()["data"]["message"]
