"""What an agent, a variant and the configuration say about a request gets into it, and how hard a title is thought about."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.scripted_provider import text
from tests.agent.providers.recorded import RESPONSES
from tests.agent.providers.wire import Wire, server, streams
from tests.server.harness import Server


def environ(**settings: Any) -> dict[str, str]:
    variants = {
        "high": {"effort": "high", "nested": {"budget": 3}},
        "low": {"effort": "low"},
    }
    models = {"main": {"options": {"effort": "usual", "nested": {"a": 1, "b": 2}}, "variants": variants}, "other": {}}
    config = {"model": "scripted/main", "provider": {"scripted": {"npm": "scripted", "models": models}}, **settings}
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}


async def asked(tmp_path: Path, settings: dict[str, Any], **body: Any) -> Any:
    """The request that a prompt makes."""
    async with Server(tmp_path, scripts=[text("Yes.")], environ=environ(**settings)) as holdfast:
        (await holdfast.prompt(await holdfast.session(), **body)).raise_for_status()
        return holdfast.provider.requests[0]


async def test_a_model_has_its_own_options(tmp_path: Path):
    request = await asked(tmp_path, {})

    assert request.options == {"effort": "usual", "nested": {"a": 1, "b": 2}}
    assert (request.temperature, request.top_p) == (None, None)


async def test_an_agent_says_more_and_the_variant_most(tmp_path: Path):
    """Setting by setting, also inside of each other."""
    agent = {"temperature": 0.2, "top_p": 0.9, "options": {"effort": "agents", "nested": {"b": 5}, "mine": True}}
    settings = {"agent": {"build": agent}}

    plain = await asked(tmp_path, settings)
    assert plain.options == {"effort": "agents", "nested": {"a": 1, "b": 5}, "mine": True}
    assert (plain.temperature, plain.top_p) == (0.2, 0.9)

    varied = await asked(tmp_path, settings, variant="high")
    assert varied.options == {"effort": "high", "nested": {"a": 1, "b": 5, "budget": 3}, "mine": True}


async def test_unknown_settings_of_an_agent_are_options(tmp_path: Path):
    request = await asked(tmp_path, {"agent": {"build": {"seed": 7}}})

    assert request.options["seed"] == 7


@pytest.mark.parametrize(
    ("agent", "body", "effort"),
    [
        ({"variant": "high"}, {}, "high"),
        ({"variant": "high"}, {"variant": "low"}, "low"),
        ({"variant": "high", "model": "scripted/main"}, {}, "high"),
        ({}, {"variant": "never-heard-of"}, "usual"),
    ],
)
async def test_the_prompts_variant_counts_more_than_the_agents(
    tmp_path: Path, agent: dict[str, Any], body: dict[str, Any], effort: str
):
    request = await asked(tmp_path, {"agent": {"build": agent}}, **body)

    assert request.options["effort"] == effort


async def test_an_agents_variant_is_for_its_own_model(tmp_path: Path):
    agent = {"variant": "high", "model": "scripted/other"}
    model = {"providerID": "scripted", "modelID": "main"}

    request = await asked(tmp_path, {"agent": {"build": agent}}, model=model)

    assert request.options["effort"] == "usual"


async def test_requests_of_a_session_share_openais_cache_and_titles_are_not_thought_about(tmp_path: Path):
    """A known provider, so its own defaults hold; what it refuses is left out."""
    requests: list[dict[str, Any]] = []
    both = asyncio.Event()

    async def behave(wire: Wire) -> None:
        requests.append(json.loads(wire.request.partition(b"\r\n\r\n")[2]))
        if len(requests) == 2:
            both.set()
        await streams(RESPONSES.refusal)(wire)

    async with server(behave) as url:
        config = {
            "model": "openai/gpt-5.1",
            "small_model": "openai/gpt-5-nano",
            "provider": {"openai": {"options": {"baseURL": url, "apiKey": "k"}}},
            "agent": {"build": {"temperature": 0.3}},
        }
        async with Server(tmp_path, environ={"OPENCODE_CONFIG_CONTENT": json.dumps(config)}) as holdfast:
            session = (await holdfast.api.post("/session", json={})).json()["id"]
            await holdfast.prompt(session, variant="high")
            await both.wait()  # the title is asked for beside the turn

    turn = next(request for request in requests if request["model"] == "gpt-5.1")
    title = next(request for request in requests if request["model"] == "gpt-5-nano")
    assert turn["prompt_cache_key"] == session
    assert turn["reasoning"] == {"effort": "high", "summary": "auto"}
    assert "temperature" not in turn
    assert title["reasoning"]["effort"] == "minimal"
    assert "tools" not in title or not title["tools"]
