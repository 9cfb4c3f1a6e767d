"""The LLMs that there are: what they are (for `/provider` and the like) and who speaks to them.

A provider can be used ("connected") if the configuration describes it, or if it is a known one and its key was found. What a
model is, is said by the configuration, else by the user's own list (`Own`), else by the price list and by its name.

The built-in `demo` provider is always there, unless the configuration disables it; `provider.demo` may change its
options. An adapter is one module, imported when a model of it is first used: `ADAPTERS` is the whole list.
"""

import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, Protocol, TypeVar, cast

from msgspec.structs import replace

from holdfast.agent.providers.base import Provider
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.families import Traits, traits_of, variants_of
from holdfast.agent.providers.price_list import Listed, listed_models
from holdfast.core import catalogue
from holdfast.core.catalogue import (
    CacheCost,
    Capabilities,
    ConfigProviders,
    Interleaved,
    Modalities,
    Model,
    ModelApi,
    ModelCost,
    ModelLimit,
    ProviderList,
    TieredCost,
    parse_model,
)
from holdfast.core.config import (
    Config,
    CostConfig,
    InterleavedConfig,
    LimitConfig,
    Modality,
    ModelConfig,
    ProviderConfig,
    public_address,
    public_options,
    public_settings,
)
from holdfast.core.errors import NotFound, Unavailable
from holdfast.core.known_providers import KNOWN
from holdfast.core.messages import MessageModel

OPENAI_COMPATIBLE: Final = "@ai-sdk/openai-compatible"
_DEMO: Final = "@holdfast/demo"


class AdapterFactory(Protocol):
    def __call__(self, model: Model, options: Mapping[str, Any], connections: Connections) -> Provider:
        """`options` are those of the provider, with its key as `apiKey` and its address as `baseURL` when known.
        Raises Invalid if they do not do."""
        ...


Adapters = Mapping[str, str | AdapterFactory]
"""The package that `npm` names in `opencode.json` stands for a wire format. → `module:function`, imported when first used,
or the function itself."""

OPENAI_SHAPED: Final[Mapping[str, str]] = {
    "@ai-sdk/cerebras": "https://api.cerebras.ai/v1",
    "@ai-sdk/deepinfra": "https://api.deepinfra.com/v1/openai",
    "@ai-sdk/deepseek": "https://api.deepseek.com",
    "@ai-sdk/fireworks": "https://api.fireworks.ai/inference/v1",
    "@ai-sdk/perplexity": "https://api.perplexity.ai",
    "@ai-sdk/togetherai": "https://api.together.xyz/v1",
    "@ai-sdk/xai": "https://api.x.ai/v1",
}
"""Packages that speak OpenAI's chat completions at an address of their own."""

ADAPTERS: Final[Adapters] = {
    **dict.fromkeys((OPENAI_COMPATIBLE, *OPENAI_SHAPED), "holdfast.agent.providers.openai_compatible:create"),
    _DEMO: "holdfast.agent.providers.demo:create",
    **dict.fromkeys(
        (
            "@ai-sdk/amazon-bedrock",
            "@ai-sdk/anthropic",
            "@ai-sdk/google",
            "@ai-sdk/google-vertex",
            "@ai-sdk/groq",
            "@ai-sdk/mistral",
            "@ai-sdk/openai",
            "@openrouter/ai-sdk-provider",
        ),
        "holdfast.agent.providers.pydantic_ai_adapter:create",
    ),
}

DEMO_MODEL: Final = MessageModel(provider_id="demo", model_id="demo-1")

_BUILT_IN: Final[Mapping[str, ProviderConfig]] = {
    "demo": ProviderConfig(
        name="Holdfast demo",
        npm=_DEMO,
        models={
            "demo-1": ModelConfig(
                name="Demo (needs no key)", reasoning=True, limit=LimitConfig(context=100_000, output=10_000)
            )
        },
    )
}

# What OpenCode prefers where nothing is configured: models whose name holds one of these, the later the better, and
# small models of these families, the earlier the better.
_PREFERRED: Final = ("gpt-5", "claude-sonnet-4", "big-pickle", "gemini-3-pro")
_SMALL_FAMILIES: Final = ("gemini-flash", "gpt-nano", "claude-haiku")


class UnsupportedProvider(Unavailable):
    """The configuration asks for a wire format that no adapter speaks."""

    retryable = False


Own = Mapping[str, ProviderConfig]
"""What a user says of known providers, in the words of `provider` in `opencode.json`. It describes, and connects nothing."""


class ProviderRegistry:
    """`environ` is where keys (`provider.*.env`) and `${NAME}` in addresses are looked up, `keys` are those that users stored,
    `adapters` who speaks what. To make one may take a while, when a known provider is connected: do it in a thread."""

    def __init__(
        self,
        config: Config,
        *,
        connections: Connections,
        environ: Mapping[str, str],
        adapters: Adapters = ADAPTERS,
        keys: Mapping[str, str] | None = None,
        own: Own | None = None,
    ) -> None:
        self._config = config
        self._factories = adapters
        self._connections = connections
        self._environ = environ
        self._keys = keys or {}
        self._own = own or {}
        self._configs: dict[str, ProviderConfig] = {}
        self._models: dict[str, dict[str, Model]] = {}
        self._adapters: dict[tuple[str, str], Provider] = {}
        self._unconnected: tuple[catalogue.Provider, ...] | None = None
        for provider_id, settings in self._connected().items():
            models = _models(provider_id, settings, self._own.get(provider_id))
            if models and _is_allowed(config, provider_id):
                self._configs[provider_id] = settings
                self._models[provider_id] = models

    def _connected(self) -> dict[str, ProviderConfig]:
        configured = self._config.provider or {}
        found = {
            provider_id: _known_settings(provider_id, settings, self._own.get(provider_id))
            for provider_id, settings in configured.items()
        }
        for provider_id in KNOWN:
            if provider_id not in found:
                settings = _known_settings(provider_id, None, self._own.get(provider_id))
                if self._key(provider_id, settings):
                    found[provider_id] = settings
        return _with_built_in(found)

    def _key(self, provider_id: str, settings: ProviderConfig) -> str | None:
        found = (key for name in settings.env or () if (key := self._environ.get(name)))
        return self._keys.get(provider_id) or next(found, None)

    # --- what there is -----------------------------------------------------------------------------------------

    def config_providers(self) -> ConfigProviders:
        """As `GET /config/providers` answers."""
        return ConfigProviders(providers=self._infos(), default=self._defaults())

    def provider_list(self) -> ProviderList:
        """As `GET /provider` answers: the known providers that are not connected come last. Reads the whole price list, so
        call it in a thread."""
        if self._unconnected is None:
            infos: list[catalogue.Provider] = []
            for provider_id in KNOWN:
                if provider_id not in self._models and _is_allowed(self._config, provider_id):
                    own = self._own.get(provider_id)
                    settings = _known_settings(provider_id, None, own)
                    infos.append(self._info(provider_id, settings, _models(provider_id, settings, own)))
            self._unconnected = tuple(infos)
        return ProviderList(
            all=(*self._infos(), *self._unconnected),
            default=self._defaults()
            | {info.id: _best(info.models.values()).id for info in self._unconnected if info.models},
            connected=tuple(self._models),
        )

    def takes_key(self, provider_id: str) -> bool:
        """Whether a key is what this provider needs."""
        return provider_id in KNOWN or (provider_id in self._configs and provider_id not in _BUILT_IN)

    def ids(self) -> tuple[str, ...]:
        """Of all providers, connected or not."""
        return tuple(dict.fromkeys((*self._models, *KNOWN)))

    def model(self, provider_id: str, model_id: str) -> Model:
        """One that a known provider has and nobody listed is taken at its word, without limits and prices. Raises NotFound
        for any other that is not there, with a hint of what is near."""
        model = self._models.get(provider_id, {}).get(model_id)
        if model is None and provider_id in KNOWN and provider_id in self._models:
            settings = self._configs[provider_id]
            if model_id not in (settings.blacklist or ()) and settings.whitelist is None:
                return _model(provider_id, settings, model_id, ModelConfig(), None)
        if model is None:
            raise NotFound("Model", f"{provider_id}/{model_id}", hint=self._near(provider_id, model_id))
        return model

    def default_model(self) -> MessageModel:
        """What the configuration says; else a model of the first provider it describes; else of the first one whose key was
        found; else the demo."""
        if self._config.model is not None:
            return parse_model(self._config.model, "model")
        for provider_id in self._models:
            if provider_id not in _BUILT_IN:
                return MessageModel(provider_id=provider_id, model_id=_best(self._models[provider_id].values()).id)
        return DEMO_MODEL

    def small_model(self, provider_id: str) -> MessageModel | None:
        """A cheap model for titles and the like: what the configuration says, if it is there, else one of the same
        provider that is known to be small. None: use the model of the session."""
        if self._config.small_model is not None:
            chosen = parse_model(self._config.small_model, "small_model")
            return chosen if chosen.model_id in self._models.get(chosen.provider_id, {}) else None
        models = self._models.get(provider_id, {}).values()
        for family in _SMALL_FAMILIES:
            candidates = [model for model in models if model.family == family]
            if candidates:
                newest = max(candidates, key=lambda model: (model.release_date, model.id))
                return MessageModel(provider_id=provider_id, model_id=newest.id)
        return None

    # --- who speaks to it --------------------------------------------------------------------------------------

    def resolve(self, provider_id: str, model_id: str) -> tuple[Provider, Model]:
        """Raises NotFound for a model that is not there, UnsupportedProvider for a wire format that nobody here speaks,
        Invalid if the provider's options do not do."""
        model = self.model(provider_id, model_id)
        adapter = self._adapters.get((provider_id, model_id))
        if adapter is None:
            adapter = self._factory(model)(model, self._options(model), self._connections)
            self._adapters[provider_id, model_id] = adapter
        return adapter, model

    def _factory(self, model: Model) -> AdapterFactory:
        factory = self._factories.get(model.api.npm)
        if factory is None:
            raise UnsupportedProvider(
                f'Provider "{model.provider_id}" needs "{model.api.npm}", which is not supported. '
                f"Supported: {', '.join(sorted(npm for npm in self._factories if npm.startswith('@') and npm != _DEMO))}.",
                hint=f'Most providers also speak that of "{OPENAI_COMPATIBLE}": set "npm" and options.baseURL of the '
                "provider in opencode.json.",
            )
        if isinstance(factory, str):
            module, _, function = factory.partition(":")
            factory = cast(AdapterFactory, getattr(importlib.import_module(module), function))
        return factory

    def _options(self, model: Model) -> dict[str, Any]:
        settings = self._configs[model.provider_id]
        options = dict(settings.options or {})
        if not options.get("apiKey"):
            options["apiKey"] = self._key(model.provider_id, settings)
        address = options.get("baseURL") or model.api.url or OPENAI_SHAPED.get(model.api.npm)
        if isinstance(address, str):
            options["baseURL"] = re.sub(r"\$\{([^}]+)\}", lambda found: self._environ.get(found[1], found[0]), address)
        return options

    # --- plumbing ----------------------------------------------------------------------------------------------

    def _infos(self) -> tuple[catalogue.Provider, ...]:
        return tuple(self._info(id, self._configs[id], models) for id, models in self._models.items())

    def _info(self, provider_id: str, settings: ProviderConfig, models: Mapping[str, Model]) -> catalogue.Provider:
        return catalogue.Provider(
            id=provider_id,
            name=settings.name or provider_id,
            source=self._source(provider_id),
            env=settings.env or (),
            options=public_options(settings.options or {}),
            models={id: _public(model) for id, model in models.items()},
        )

    def _source(self, provider_id: str) -> Literal["env", "config", "custom", "api"]:
        if provider_id in (self._config.provider or {}):
            return "config"
        if provider_id in self._keys:
            return "api"
        return "env" if provider_id in self._models and provider_id not in _BUILT_IN else "custom"

    def _defaults(self) -> dict[str, str]:
        return {provider_id: _best(models.values()).id for provider_id, models in self._models.items()}

    def _near(self, provider_id: str, model_id: str) -> str:
        known = [f"{provider}/{model}" for provider, models in self._models.items() for model in models]
        near = [name for name in known if name.partition("/")[2] == model_id]
        near += difflib.get_close_matches(f"{provider_id}/{model_id}", known, n=3, cutoff=0.5)
        if near:
            return f"Did you mean {' or '.join(dict.fromkeys(near))}?"
        return f"Configured models: {', '.join(known[:10])}." if known else "No model is configured."


def _with_built_in(configured: Mapping[str, ProviderConfig]) -> dict[str, ProviderConfig]:
    merged = dict(configured)
    for provider_id, built_in in _BUILT_IN.items():
        own = configured.get(provider_id, built_in)
        merged[provider_id] = replace(
            built_in,
            name=own.name or built_in.name,
            options=own.options,
            whitelist=own.whitelist,
            blacklist=own.blacklist,
        )
    return merged


def _is_allowed(config: Config, provider_id: str) -> bool:
    if provider_id in (config.disabled_providers or ()):
        return False
    return config.enabled_providers is None or provider_id in config.enabled_providers


def _best(models: Iterable[Model]) -> Model:
    def merit(model: Model) -> tuple[int, bool, str]:
        preferred = next((rank for rank, name in enumerate(_PREFERRED) if name in model.id), -1)
        return preferred, "latest" in model.id, model.id

    return max(models, key=merit)


# --- configuration → Model --------------------------------------------------------------------------------------


def _known_settings(provider_id: str, configured: ProviderConfig | None, own: ProviderConfig | None) -> ProviderConfig:
    """What the configuration says, else what the user says, else what is known of the provider."""
    known = KNOWN.get(provider_id)
    base = ProviderConfig()
    if known is not None:
        base = ProviderConfig(name=known.name, npm=known.npm, env=known.env, api=known.address or None)
    return _over(_over(base, own), configured)


def _models(provider_id: str, settings: ProviderConfig, own: ProviderConfig | None) -> dict[str, Model]:
    listed = listed_models(provider_id)
    described = {**dict.fromkeys(listed, ModelConfig()), **((own.models if own else None) or {})}
    for model_id, model in (settings.models or {}).items():
        described[model_id] = _over(described.get(model_id, ModelConfig()), model)
    return {
        model_id: _model(provider_id, settings, model_id, model, listed.get(model.id or model_id))
        for model_id, model in described.items()
        if model.status not in ("alpha", "deprecated")
        and model_id not in (settings.blacklist or ())
        and (settings.whitelist is None or model_id in settings.whitelist)
    }


S = TypeVar("S", ProviderConfig, ModelConfig)


def _over(base: S, above: S | None) -> S:
    """The settings above, and those of the base where they say nothing."""
    if above is None:
        return base
    said = {field: value for field in above.__struct_fields__ if (value := getattr(above, field)) is not None}
    return replace(base, **said)


def _model(
    provider_id: str, settings: ProviderConfig, model_id: str, model: ModelConfig, listed: Listed | None
) -> Model:
    own = model.provider
    npm = (own.npm if own else None) or settings.npm or OPENAI_COMPATIBLE
    api_id = model.id or model_id
    traits = traits_of(api_id) if provider_id in KNOWN else Traits(temperature=False)
    capabilities = _capabilities(model, npm, api_id, traits)
    offered = variants_of(npm, api_id) if capabilities.reasoning else {}
    variants = {
        name: {key: value for key, value in variant.items() if key != "disabled"}
        for name, variant in (offered | (model.variants or {})).items()
        if not variant.get("disabled")
    }
    limit = model.limit
    return Model(
        id=model_id,
        provider_id=provider_id,
        api=ModelApi(id=api_id, url=(own.api if own else None) or settings.api or "", npm=npm),
        name=model.name or (listed.name if listed else model_id),
        family=model.family or traits.family,
        capabilities=capabilities,
        cost=listed.cost if model.cost is None and listed is not None else _cost(model.cost),
        limit=ModelLimit(
            context=limit.context if limit else (listed.context if listed else 0),
            input=limit.input if limit else None,
            output=limit.output if limit else (traits.output_max if listed else 0),
        ),
        status=model.status or "active",
        options=dict(model.options or {}),
        headers=dict(model.headers or {}),
        release_date=model.release_date or "",
        variants=variants,
    )


def _capabilities(model: ModelConfig, npm: str, api_id: str, traits: Traits) -> Capabilities:
    match model.interleaved:
        case InterleavedConfig(field=field) | str(field):
            interleaved = Interleaved(field=field)
        case None if npm == OPENAI_COMPATIBLE and "deepseek" in api_id:
            interleaved = Interleaved(field="reasoning_content")  # it refuses tool results without its reasoning
        case None | bool():
            interleaved = bool(model.interleaved)
    modalities = model.modalities
    inputs = (modalities.input if modalities else None) or traits.inputs
    return Capabilities(
        temperature=traits.temperature if model.temperature is None else model.temperature,
        reasoning=traits.reasoning if model.reasoning is None else model.reasoning,
        attachment=len(traits.inputs) > 1 if model.attachment is None else model.attachment,
        toolcall=model.tool_call is not False,
        input=_modalities(inputs),
        output=_modalities(modalities.output if modalities else None),
        interleaved=interleaved,
    )


def _modalities(names: tuple[Modality, ...] | None) -> Modalities:
    known = ("text",) if names is None else names
    return Modalities(
        text="text" in known,
        audio="audio" in known,
        image="image" in known,
        video="video" in known,
        pdf="pdf" in known,
    )


def _cost(cost: CostConfig | None) -> ModelCost:
    if cost is None:
        return ModelCost(input=0, output=0, cache=CacheCost(read=0, write=0))
    over = cost.context_over_200k
    return ModelCost(
        input=cost.input,
        output=cost.output,
        cache=CacheCost(read=cost.cache_read or 0, write=cost.cache_write or 0),
        experimental_over_200k=TieredCost(
            input=over.input,
            output=over.output,
            cache=CacheCost(read=over.cache_read or 0, write=over.cache_write or 0),
        )
        if over
        else None,
    )


def _public(model: Model) -> Model:
    return replace(
        model,
        api=replace(model.api, url=public_address(model.api.url)),
        headers={},
        options=public_settings(model.options),
        variants={name: public_settings(variant) for name, variant in model.variants.items()},
    )
