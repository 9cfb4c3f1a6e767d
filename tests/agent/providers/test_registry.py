"""Which models a configuration offers, in OpenCode's shapes, and who speaks to them."""

import json
import os
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.demo import Demo
from holdfast.agent.providers.openai_compatible import OpenAICompatible
from holdfast.agent.providers.pydantic_ai_adapter import PydanticAI
from holdfast.agent.providers.registry import ProviderRegistry, UnsupportedProvider
from holdfast.core.catalogue import Interleaved, parse_model
from holdfast.core.config import Config, CostConfig, LimitConfig, ModelConfig, ProviderConfig
from holdfast.core.errors import Invalid, NotFound
from holdfast.core.known_providers import KNOWN
from holdfast.core.messages import MessageModel
from holdfast.core.session import CacheTokens, Tokens

KEY = "sk-very-secret-key"

FAKE = {
    "npm": "@ai-sdk/openai-compatible",
    "name": "Fake",
    "options": {"baseURL": "http://127.0.0.1:4700/v1", "apiKey": KEY},
    "models": {"fake-1": {"name": "Fake One", "limit": {"context": 200000, "output": 8192}}},
}


def registry(environ: dict[str, str] | None = None, **config: Any) -> ProviderRegistry:
    return ProviderRegistry(msgspec.convert(config, Config), connections=Connections(), environ=environ or {})


def wire(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def test_a_configured_provider_looks_as_in_opencode() -> None:
    """As recorded from the real server for the same configuration, but for the key, which it shows and we do not."""
    answer = wire(registry(provider={"fake": FAKE}).config_providers())

    assert answer["default"] == {"fake": "fake-1", "demo": "demo-1"}
    assert answer["providers"][0] == {
        "id": "fake",
        "name": "Fake",
        "source": "config",
        "env": [],
        "options": {"baseURL": "http://127.0.0.1:4700/v1"},
        "models": {
            "fake-1": {
                "id": "fake-1",
                "providerID": "fake",
                "api": {"id": "fake-1", "url": "", "npm": "@ai-sdk/openai-compatible"},
                "name": "Fake One",
                "family": "",
                "capabilities": {
                    "temperature": False,
                    "reasoning": False,
                    "attachment": False,
                    "toolcall": True,
                    "input": {"text": True, "audio": False, "image": False, "video": False, "pdf": False},
                    "output": {"text": True, "audio": False, "image": False, "video": False, "pdf": False},
                    "interleaved": False,
                },
                "cost": {"input": 0, "output": 0, "cache": {"read": 0, "write": 0}},
                "limit": {"context": 200000, "output": 8192},
                "status": "active",
                "options": {},
                "headers": {},
                "release_date": "",
                "variants": {},
            }
        },
    }


def test_the_list_of_providers_says_which_can_be_used() -> None:
    """Those that only lack a key come last, with their models."""
    answer = wire(registry(provider={"fake": FAKE}).provider_list())

    listed = [provider["id"] for provider in answer["all"]]
    assert listed == ["fake", "demo", *KNOWN]
    assert answer["connected"] == ["fake", "demo"]
    assert answer["default"].keys() == set(listed)
    assert answer["default"]["anthropic"].startswith("claude-")
    anthropic = next(provider for provider in answer["all"] if provider["id"] == "anthropic")
    assert (anthropic["source"], anthropic["env"]) == ("custom", ["ANTHROPIC_API_KEY"])


def test_a_model_is_what_its_settings_say() -> None:
    model = registry(
        provider={
            "p": {
                "api": "http://127.0.0.1/v1",
                "models": {
                    "m": {
                        "id": "real/name",
                        "attachment": True,
                        "reasoning": True,
                        "temperature": True,
                        "tool_call": False,
                        "interleaved": "reasoning_text",
                        "cost": {
                            "input": 2,
                            "output": 8,
                            "cache_read": 0.5,
                            "context_over_200k": {"input": 4, "output": 16},
                        },
                        "limit": {"context": 1000000, "input": 900000, "output": 100},
                        "modalities": {"input": ["text", "image"]},
                        "provider": {"api": "http://other/v1"},
                        "options": {"reasoningEffort": "low"},
                        "variants": {"high": {"reasoningEffort": "x"}, "own": {"a": 1}, "low": {"disabled": True}},
                        "status": "beta",
                        "release_date": "2026-01-01",
                    }
                },
            }
        }
    ).model("p", "m")

    assert (model.id, model.name, model.api.id, model.api.url) == ("m", "m", "real/name", "http://other/v1")
    assert (model.capabilities.attachment, model.capabilities.toolcall) == (True, False)
    assert (model.capabilities.input.image, model.capabilities.input.pdf) == (True, False)
    assert model.capabilities.interleaved == Interleaved(field="reasoning_text")
    assert model.cost.experimental_over_200k is not None
    assert (model.cost.cache.read, model.cost.experimental_over_200k.output) == (0.5, 16)
    offered = {"medium": {"reasoningEffort": "medium"}}  # as for every reasoning model of this format
    assert model.variants == {"high": {"reasoningEffort": "x"}, "own": {"a": 1}, **offered}
    assert (model.limit.input, model.status, model.release_date) == (900000, "beta", "2026-01-01")
    assert '"experimentalOver200K"' in msgspec.json.encode(model).decode()


def test_deepseek_gets_its_reasoning_back_unless_told_otherwise() -> None:
    models = {"deepseek-v9": {}, "quiet": {"id": "deepseek-v9", "interleaved": False}}
    found = registry(provider={"p": {"models": models}})

    assert found.model("p", "deepseek-v9").capabilities.interleaved == Interleaved(field="reasoning_content")
    assert found.model("p", "quiet").capabilities.interleaved is False


# --- which are there


def test_without_any_configuration_the_demo_is_all_there_is() -> None:
    found = registry()

    assert found.default_model() == MessageModel(provider_id="demo", model_id="demo-1")
    assert [provider.id for provider in found.config_providers().providers] == ["demo"]
    assert isinstance(found.resolve("demo", "demo-1")[0], Demo)


def test_the_default_is_what_the_configuration_says_even_if_it_is_not_there() -> None:
    found = registry(model="fake/gone", provider={"fake": FAKE})

    assert found.default_model() == MessageModel(provider_id="fake", model_id="gone")
    with pytest.raises(NotFound):
        found.resolve("fake", "gone")


def test_who_describes_a_provider_wants_its_model_and_not_the_demo() -> None:
    models = {"a-latest": {}, "z": {}, "claude-sonnet-4": {}}
    found = registry(provider={"demo": {"options": {}}, "empty": {}, "p": {"models": models}})

    assert found.default_model() == MessageModel(provider_id="p", model_id="claude-sonnet-4")


@pytest.mark.parametrize(
    ("settings", "listed"),
    [
        ({"disabled_providers": ["demo"]}, ["fake"]),
        ({"enabled_providers": ["demo"]}, ["demo"]),
        ({"disabled_providers": ["fake", "demo"]}, []),
    ],
)
def test_providers_can_be_switched_off(settings: dict[str, Any], listed: list[str]) -> None:
    found = registry(provider={"fake": FAKE}, **settings)

    assert [provider.id for provider in found.config_providers().providers] == listed


def test_models_can_be_left_out() -> None:
    models = {name: {} for name in ("a", "b", "c")} | {"old": {"status": "deprecated"}, "new": {"status": "alpha"}}
    found = registry(
        provider={
            "p": {"models": models, "whitelist": ["a", "b", "old"], "blacklist": ["b"]},
            "none": {"models": {"a": {}}, "whitelist": []},
        }
    )

    assert {provider.id: list(provider.models) for provider in found.config_providers().providers} == {
        "p": ["a"],
        "demo": ["demo-1"],
    }


def test_the_small_model_is_the_configured_one_or_a_small_one_of_the_family() -> None:
    models = {
        "big": {"family": "gpt"},
        "n1": {"family": "gpt-nano", "release_date": "2025"},
        "n2": {"family": "gpt-nano"},
    }

    assert registry(provider={"p": {"models": models}}).small_model("p") == MessageModel(provider_id="p", model_id="n1")
    assert registry(provider={"fake": FAKE}).small_model("fake") is None
    assert registry(small_model="demo/demo-1", provider={"fake": FAKE}).small_model("fake") == MessageModel(
        provider_id="demo", model_id="demo-1"
    )
    assert registry(small_model="gone/gone").small_model("demo") is None


# --- who speaks to them


def test_an_adapter_is_made_once() -> None:
    found = registry(provider={"fake": FAKE})
    adapter, model = found.resolve("fake", "fake-1")

    assert isinstance(adapter, OpenAICompatible)
    assert model.id == "fake-1"
    assert found.resolve("fake", "fake-1")[0] is adapter


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        (("fake", "fake-2"), "Did you mean fake/fake-1?"),
        (("fak", "fake-1"), "Did you mean fake/fake-1?"),
        (("openai", "fake-1"), "Did you mean fake/fake-1?"),
        (("zzz", "xxx"), "Configured models: fake/fake-1, demo/demo-1."),
    ],
)
def test_an_unknown_model_is_refused_with_what_is_near(wanted: tuple[str, str], hint: str) -> None:
    with pytest.raises(NotFound, match=f"Model not found: {'/'.join(wanted)}") as refused:
        registry(provider={"fake": FAKE}).resolve(*wanted)

    assert refused.value.hint == hint
    assert refused.value.kind == "Model"


def test_a_wire_format_that_nobody_speaks_is_said_when_it_is_used() -> None:
    found = registry(provider={"a": {"npm": "@ai-sdk/nobody", "models": {"m": {}}}})

    assert [provider.id for provider in found.config_providers().providers] == ["a", "demo"]
    with pytest.raises(
        UnsupportedProvider, match=r'"@ai-sdk/nobody".* Supported: .*@ai-sdk/openai-compatible'
    ) as refused:
        found.resolve("a", "m")
    assert not refused.value.retryable


def test_keys_and_addresses_may_be_in_the_environment() -> None:
    seen: dict[str, Any] = {}

    def create(model: object, options: Any, connections: object) -> Any:
        seen.update(options)
        return object()

    config = msgspec.convert(
        {"provider": {"p": {"npm": "x", "env": ["A", "B"], "api": "http://${HOST}/${NONE}", "models": {"m": {}}}}},
        Config,
    )
    ProviderRegistry(
        config, connections=Connections(), environ={"A": "", "B": KEY, "HOST": "h"}, adapters={"x": create}
    ).resolve("p", "m")

    assert seen == {"apiKey": KEY, "baseURL": "http://h/${NONE}"}


def test_no_secret_is_listed() -> None:
    settings = {
        "npm": "x",
        "options": {
            "apiKey": KEY,
            "baseURL": f"http://user:{KEY}@host/v1",
            "headers": {"Authorization": KEY},
            "own": {"name": KEY, "size": 3},
            "timeout": 5,
        },
        "api": f"http://user:{KEY}@host/v1",
        "models": {
            "m": {
                "headers": {"X": KEY},
                "options": {"serviceToken": KEY, "reasoningEffort": "low"},
                "variants": {"v": {"apiKey": KEY, "b": 1}},
            }
        },
    }
    [provider, _] = registry(provider={"p": settings}).config_providers().providers

    assert KEY not in msgspec.json.encode(provider).decode()
    assert provider.options == {"baseURL": "http://host/v1", "own": {"size": 3}, "timeout": 5}
    assert provider.models["m"].options == {"reasoningEffort": "low"}
    assert provider.models["m"].variants == {"v": {"b": 1}}


def test_the_http_library_is_not_imported_before_it_is_needed() -> None:
    """It takes a fifth of a second, which would be a part of every start."""
    code = (
        "import sys\n"
        "from holdfast.agent.providers.connections import Connections\n"
        "from holdfast.agent.providers.registry import ProviderRegistry\n"
        "from holdfast.core.config import Config\n"
        "ProviderRegistry(Config(), connections=Connections(), environ={}).resolve('demo', 'demo-1')\n"
        "print('aiohttp' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))

    assert run.stdout == "False\n"


@pytest.mark.parametrize("text", ["", "gpt", "/gpt", "openai/"])
def test_a_model_is_named_by_provider_and_model(text: str) -> None:
    assert parse_model("openrouter/qwen/qwen3") == MessageModel(provider_id="openrouter", model_id="qwen/qwen3")
    with pytest.raises(Invalid, match="Not a model"):
        parse_model(text, "model")


# --- known providers --------------------------------------------------------------------------------------------


def test_a_key_in_the_environment_connects_a_known_provider() -> None:
    found = registry({"ANTHROPIC_API_KEY": KEY})

    assert [provider.id for provider in found.config_providers().providers] == ["anthropic", "demo"]
    assert found.config_providers().providers[0].source == "env"
    assert found.default_model().provider_id == "anthropic"
    model = found.model("anthropic", "claude-sonnet-4-6")
    assert model.limit.context == 1_000_000
    assert (model.cost.input, model.cost.output, model.cost.cache.read, model.cost.cache.write) == (3, 15, 0.3, 3.75)
    assert model.capabilities.reasoning
    assert model.capabilities.input.pdf
    assert model.variants["high"] == {"thinking": {"type": "adaptive"}, "effort": "high"}
    assert KEY not in json.dumps(wire(found.config_providers())) + json.dumps(wire(found.provider_list()))


def test_a_stored_key_connects_too_and_counts_more_than_the_environment() -> None:
    environ = {"OPENAI_API_KEY": "from-the-environment"}
    found = ProviderRegistry(Config(), connections=Connections(), environ=environ, keys={"openai": KEY})

    assert found.config_providers().providers[0].source == "api"
    provider, _ = found.resolve("openai", "gpt-5.4")
    assert isinstance(provider, PydanticAI)
    assert provider.settings.api_key == KEY


def test_the_configuration_changes_what_is_known() -> None:
    found = registry(
        {"ANTHROPIC_API_KEY": KEY},
        provider={
            "anthropic": {
                "options": {"baseURL": "http://127.0.0.1:1"},
                "models": {
                    "claude-sonnet-4-6": {"limit": {"context": 5, "output": 3}},
                    "mine": {"id": "claude-opus-4-8", "name": "Mine", "cost": {"input": 1, "output": 2}},
                },
                "blacklist": ["claude-3-haiku"],
            }
        },
    )

    models = found.config_providers().providers[0].models
    assert "claude-3-haiku" not in models
    assert models["claude-sonnet-4-6"].limit.context == 5
    assert models["claude-sonnet-4-6"].cost.input == 3  # as listed
    mine = models["mine"]
    assert (mine.name, mine.api.id, mine.cost.input, mine.limit.context) == ("Mine", "claude-opus-4-8", 1, 1_000_000)
    assert mine.api.npm == "@ai-sdk/anthropic"


def test_the_users_own_list_describes_and_connects_nothing() -> None:
    own = {
        "anthropic": ProviderConfig(
            models={
                "claude-next": ModelConfig(
                    cost=CostConfig(input=7, output=9), limit=LimitConfig(context=10, output=1), reasoning=False
                )
            }
        )
    }
    without = ProviderRegistry(Config(), connections=Connections(), environ={}, own=own)
    assert [provider.id for provider in without.config_providers().providers] == ["demo"]

    environ = {"ANTHROPIC_API_KEY": KEY}
    model = ProviderRegistry(Config(), connections=Connections(), environ=environ, own=own).model(
        "anthropic", "claude-next"
    )
    assert (model.cost.input, model.limit.context, model.capabilities.reasoning) == (7, 10, False)


def test_a_model_that_nobody_listed_works_without_cost() -> None:
    found = registry({"ANTHROPIC_API_KEY": KEY})

    provider, model = found.resolve("anthropic", "claude-brand-new")

    assert isinstance(provider, PydanticAI)
    assert (model.cost.input, model.limit.context) == (0, 0)
    with pytest.raises(NotFound):  # of a provider that is not connected, or not known
        found.model("openai", "gpt-5.4")


def test_larger_prompts_cost_what_their_tier_says() -> None:
    model = registry({"OPENAI_API_KEY": KEY}).model("openai", "gpt-5.4")
    few = Tokens(input=1000, output=100, reasoning=0, cache=CacheTokens(read=2000, write=0))
    many = Tokens(input=1000, output=100, reasoning=50, cache=CacheTokens(read=300_000, write=0))

    assert model.cost.of(few) == pytest.approx((1000 * 2.5 + 100 * 15 + 2000 * 0.25) / 1_000_000)
    assert model.cost.of(many) == pytest.approx((1000 * 5 + 150 * 22.5 + 300_000 * 0.5) / 1_000_000)


def test_the_price_list_is_not_read_without_need() -> None:
    """It takes a third of a second; a server with the demo alone, or with endpoints of its own, never pays it."""
    code = (
        "import sys, msgspec; from holdfast.agent.providers.registry import ProviderRegistry; "
        "from holdfast.agent.providers.connections import Connections; from holdfast.core.config import Config; "
        f"c = msgspec.convert({{'provider': {{'fake': {FAKE!r}}}}}, Config); "
        "ProviderRegistry(c, connections=Connections(), environ={}).config_providers(); "
        "print([m for m in ('genai_prices', 'pydantic_ai', 'openai', 'anthropic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("provider_id", KNOWN)
def test_every_known_provider_has_models_and_somebody_who_speaks_to_it(provider_id: str) -> None:
    found = ProviderRegistry(Config(), connections=Connections(), environ={}, keys={provider_id: KEY})

    model_id = found.config_providers().default[provider_id]
    provider, model = found.resolve(provider_id, model_id)

    assert isinstance(provider, PydanticAI | OpenAICompatible)
    assert model.cost.output > 0 or model.limit.context > 0
