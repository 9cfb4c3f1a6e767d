"""Which of pydantic-ai's models speaks a wire format, and how the options of `opencode.json` are called there.

`npm` in `opencode.json` names a package of the AI SDK, and options have the names that it gives them. Those that we know
are translated; all others go into the body of the request as they are, where the format has room for them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

import httpx
import httpx2
from pydantic_ai.models import Model as AiModel
from pydantic_ai.profiles.openai import SAMPLING_PARAMS
from pydantic_ai.settings import ModelSettings

from holdfast.agent.providers.base import ModelRequest
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.limits import Limits
from holdfast.agent.providers.pydantic_ai_http import make_client
from holdfast.core.catalogue import Model
from holdfast.core.config import ProviderOptions
from holdfast.core.errors import Invalid


class Made(NamedTuple):
    """`renamed` are options by the name that pydantic-ai gives them, `settings` what always holds. `takes` are the kinds of
    files that the format has a place for, `takes_headers` and `takes_body` say whether it has one for headers of a single
    request, and for options that nobody knows."""

    model: AiModel
    renamed: Mapping[str, str]
    settings: Mapping[str, Any] = {}
    takes: frozenset[str] = frozenset({"image", "pdf"})
    takes_headers: bool = True
    takes_body: bool = True

    def settings_for(self, request: ModelRequest, model: Model) -> ModelSettings:
        settings: dict[str, Any] = {**_ALWAYS, **self.settings}
        body: dict[str, Any] = {}
        for name, value in (model.options | request.options).items():
            known = self.renamed.get(name)
            if known == "":
                continue
            if known is not None:
                settings[known] = _snake_case(value) if known in _NESTED else value
            else:
                body[name] = value
        if body and self.takes_body:
            settings["extra_body"] = body
        if request.tools and request.tool_choice == "none":  # some LLMs that think refuse to be told to call one
            settings["tool_choice"] = "none"
        if request.headers and self.takes_headers:
            settings["extra_headers"] = dict(request.headers)
        limits = {"max_tokens": request.output_tokens_max, "temperature": request.temperature, "top_p": request.top_p}
        settings |= {name: value for name, value in limits.items() if value is not None}
        if not _takes_sampling(cast(Mapping[str, Any], self.model.profile), settings):
            settings = {name: value for name, value in settings.items() if name not in SAMPLING_PARAMS}
        return cast(ModelSettings, settings)


def _takes_sampling(profile: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """OpenAI's models that think take no temperature and the like while they do. (The AI SDK of OpenCode leaves them out too;
    pydantic-ai would, with a warning for each request.)"""
    if not profile.get("openai_supports_reasoning"):
        return True
    efforts = profile.get("openai_reasoning_efforts")
    may_rest = "none" in efforts if efforts is not None else profile.get("openai_supports_reasoning_effort_none", False)
    effort = settings.get("openai_reasoning_effort")
    thinks = profile.get("thinking_enabled_by_default", False) if effort is None else effort != "none"
    return bool(may_rest and not thinks)


_ALWAYS: Final = {
    "max_retries": 0,
    "cache": True,  # marks for those who want them: the system prompt, the tools, the newest message
    "framing_announcement": "never",  # nothing of pydantic-ai's own in our system prompt
}

_EVERYTHING: Final = frozenset({"image", "pdf", "audio", "video"})

_NESTED: Final = frozenset({"anthropic_thinking", "google_thinking_config"})
"""Settings whose own fields have other names, too."""

_COMMON: Final = {
    "parallelToolCalls": "parallel_tool_calls",
    "topK": "top_k",
    "seed": "seed",
    "serviceTier": "service_tier",
}

_OPENAI: Final = {
    **_COMMON,
    "reasoningEffort": "openai_reasoning_effort",
    "reasoningSummary": "openai_reasoning_summary",
    "textVerbosity": "openai_text_verbosity",
    "serviceTier": "openai_service_tier",
    "promptCacheKey": "openai_prompt_cache_key",
    "promptCacheRetention": "openai_prompt_cache_retention",
    "store": "openai_store",
    "user": "openai_user",
    "truncation": "openai_truncation",
    "include": "",  # what has to come back is asked for anyway
}
_ANTHROPIC: Final = {
    **_COMMON,
    "thinking": "anthropic_thinking",
    "effort": "anthropic_effort",
    "metadata": "anthropic_metadata",
    "anthropicBeta": "anthropic_betas",
    "toolStreaming": "anthropic_eager_input_streaming",
}
_GOOGLE: Final = {
    **_COMMON,
    "thinkingConfig": "google_thinking_config",
    "safetySettings": "google_safety_settings",
    "cachedContent": "google_cached_content",
    "labels": "google_labels",
}
_BEDROCK: Final = {
    **_COMMON,
    "additionalModelRequestFields": "bedrock_additional_model_requests_fields",
    "guardrailConfig": "bedrock_guardrail_config",
}
_MISTRAL: Final = {**_COMMON, "promptCacheKey": "mistral_prompt_cache_key"}
_GROQ: Final = {
    **_COMMON,
    "reasoningFormat": "groq_reasoning_format",
    "reasoningEffort": "groq_reasoning_effort",
    "user": "",
}
_OPENROUTER: Final = {
    **_COMMON,
    "reasoning": "openrouter_reasoning",
    "reasoningEffort": "openai_reasoning_effort",
    "provider": "openrouter_provider",
    "models": "openrouter_models",
    "transforms": "openrouter_transforms",
    "usage": "openrouter_usage",
    "user": "openai_user",
}


class Place(NamedTuple):
    """What all makers need: the model's name, the provider's options, and a way to make the HTTP client of a library."""

    model: Model
    settings: ProviderOptions
    options: Mapping[str, Any]
    client: Callable[[Any], Any]

    @property
    def name(self) -> str:
        return self.model.api.id

    def key(self) -> str:
        if not self.settings.api_key:
            raise Invalid(
                f'Provider "{self.model.provider_id}" has no key.',
                field=f"provider.{self.model.provider_id}.options.apiKey",
                hint="Set its apiKey, one of its environment variables, or PUT /auth/{providerID}.",
            )
        return self.settings.api_key

    def address(self, default: str, *, without: str = "") -> str:
        """`without` is the end of the path that the AI SDK counts to the address and this SDK does not."""
        address = (self.settings.base_url or default).strip().rstrip("/")
        return address.removesuffix(without) if without else address

    def text(self, name: str) -> str | None:
        value = self.options.get(name)
        return value if isinstance(value, str) and value else None


def make(
    model: Model, settings: ProviderOptions, options: Mapping[str, Any], limits: Limits, pool: Connections
) -> Made:
    """Takes long, for an SDK is imported: call it in a thread. Raises Invalid if the options do not do."""

    def client(library: Any) -> Any:
        headers = (settings.headers or {}) | model.headers
        return make_client(library, pool, limits, headers=headers, query=settings.query_params or {})

    return _MAKERS[model.api.npm](Place(model, settings, options, client))


def _openai(place: Place) -> Made:
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    address = place.address("https://api.openai.com/v1")
    provider = OpenAIProvider(base_url=address, api_key=place.key(), http_client=place.client(httpx2))
    return Made(OpenAIResponsesModel(place.name, provider=provider), _OPENAI, {"openai_store": False})


def _anthropic(place: Place) -> Made:
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    address = place.address("https://api.anthropic.com", without="/v1")
    provider = AnthropicProvider(base_url=address, api_key=place.key(), http_client=place.client(httpx2))
    return Made(AnthropicModel(place.name, provider=provider), _ANTHROPIC)


def _google(place: Place) -> Made:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google import GoogleProvider

    address = place.address("https://generativelanguage.googleapis.com", without="/v1beta")
    provider = GoogleProvider(base_url=address, api_key=place.key(), http_client=place.client(httpx2))
    return Made(GoogleModel(place.name, provider=provider), _GOOGLE, takes=_EVERYTHING, takes_body=False)


def _vertex(place: Place) -> Made:
    from pydantic_ai.models.google import GoogleModel
    from pydantic_ai.providers.google_cloud import GoogleCloudProvider

    client = place.client(httpx2)
    if place.settings.api_key:
        provider = GoogleCloudProvider(api_key=place.settings.api_key, http_client=client)
    else:  # the credentials of the machine
        project, location = place.text("project"), place.text("location") or "global"
        provider = GoogleCloudProvider(project=project, location=location, http_client=client)
    return Made(GoogleModel(place.name, provider=provider), _GOOGLE, takes=_EVERYTHING, takes_body=False)


def _bedrock(place: Place) -> Made:
    from pydantic_ai.models.bedrock import BedrockConverseModel
    from pydantic_ai.providers.bedrock import BedrockProvider

    options: dict[str, Any] = {
        "base_url": place.settings.base_url or None,
        "region_name": place.text("region") or "us-east-1",
    }
    if place.settings.api_key:
        options["api_key"] = place.settings.api_key
    else:  # the credentials of the machine, or those that are written down
        options |= {
            "profile_name": place.text("profile"),
            "aws_access_key_id": place.text("accessKeyId"),
            "aws_secret_access_key": place.text("secretAccessKey"),
            "aws_session_token": place.text("sessionToken"),
        }
    model = BedrockConverseModel(place.name, provider=BedrockProvider(**options))
    return Made(model, _BEDROCK, takes_body=False)


def _mistral(place: Place) -> Made:
    from pydantic_ai.models.mistral import MistralModel
    from pydantic_ai.providers.mistral import MistralProvider

    address = place.address("https://api.mistral.ai", without="/v1")
    provider = MistralProvider(base_url=address, api_key=place.key(), http_client=place.client(httpx2))
    return Made(MistralModel(place.name, provider=provider), _MISTRAL, takes_headers=False, takes_body=False)


def _groq(place: Place) -> Made:
    from pydantic_ai.models.groq import GroqModel
    from pydantic_ai.providers.groq import GroqProvider

    address = place.address("https://api.groq.com", without="/openai/v1")
    provider = GroqProvider(base_url=address, api_key=place.key(), http_client=place.client(httpx))
    return Made(GroqModel(place.name, provider=provider), _GROQ, takes=frozenset({"image"}))


def _openrouter(place: Place) -> Made:
    from openai import AsyncOpenAI
    from pydantic_ai.models.openrouter import OpenRouterModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openrouter import OpenRouterProvider

    address = place.address("https://openrouter.ai/api/v1")
    sdk = AsyncOpenAI(base_url=address, api_key=place.key(), http_client=place.client(httpx2))
    profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    model = OpenRouterModel(place.name, provider=OpenRouterProvider(openai_client=sdk), profile=profile)
    return Made(model, _OPENROUTER, {"openrouter_usage": {"include": True}})


_MAKERS: Final[Mapping[str, Callable[[Place], Made]]] = {
    "@ai-sdk/openai": _openai,
    "@ai-sdk/anthropic": _anthropic,
    "@ai-sdk/google": _google,
    "@ai-sdk/google-vertex": _vertex,
    "@ai-sdk/amazon-bedrock": _bedrock,
    "@ai-sdk/mistral": _mistral,
    "@ai-sdk/groq": _groq,
    "@openrouter/ai-sdk-provider": _openrouter,
}


def _snake_case(value: Any) -> Any:
    """`{"budgetTokens": 1}` → `{"budget_tokens": 1}`."""
    if not isinstance(value, dict):
        return value
    items = cast(dict[str, Any], value).items()
    return {
        "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in key): item for key, item in items
    }
