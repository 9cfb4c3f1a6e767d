"""`/api/*`: the catalogue of OpenCode's second API, which the TUI reads when it starts. The same agents, models and commands
as in the first one, in other words; keys and other secrets are left out here too.

What is here is about a location (`location[directory]`), and says which one in the answer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import PathParameter

from holdfast.core.catalogue import (
    Agent,
    CacheCost,
    Command,
    Modalities,
    Model,
    ModelCost,
    Provider,
    SkillInfo,
    TieredCost,
    parse_model,
)
from holdfast.core.config import AgentMode, ModelStatus, public_settings
from holdfast.core.errors import Invalid, NotFound
from holdfast.core.permissions import PermissionAction
from holdfast.core.session import SessionModel
from holdfast.core.wire import Wire
from holdfast.server.bodies import answer
from holdfast.server.errors import PROVIDER
from holdfast.server.opencode.parameters import InstanceOfLocation, documented_second
from holdfast.service.instances import Instance
from holdfast.service.offers import OfferService

# --- shapes -----------------------------------------------------------------------------------------------------


class Healthy(Wire):
    healthy: bool


class LocationProject(Wire):
    """`directory` is the root of the work tree, `/` outside of git."""

    id: str
    directory: str


class Location(Wire):
    directory: str
    project: LocationProject


class RequestSettings(Wire):
    """What goes into each request to the LLM besides the conversation."""

    headers: dict[str, str]
    body: dict[str, Any]


class Rule(Wire):
    action: str
    resource: str
    effect: PermissionAction


class LocatedAgent(Wire):
    id: str
    model: SessionModel | None = None
    request: RequestSettings
    system: str | None = None
    description: str | None = None
    mode: AgentMode
    hidden: bool
    color: str | None = None
    steps: int | None = None
    permissions: tuple[Rule, ...]


class PackageApi(Wire):
    """How a provider is reached: the package name that stands for the wire format, and the address."""

    type: Literal["aisdk"]
    package: str
    url: str | None = None
    settings: dict[str, Any] | None = None


class PackageModelApi(PackageApi):
    """`id` is the provider's name for the model."""

    id: str


class LocatedCapabilities(Wire):
    tools: bool
    input: tuple[str, ...]
    output: tuple[str, ...]


class LocatedVariant(Wire):
    id: str
    headers: dict[str, str]
    body: dict[str, Any]


class Released(Wire):
    """Milliseconds; 0 is unknown."""

    released: int


class CostTier(Wire):
    type: Literal["context"]
    size: int


class LocatedCost(Wire):
    """US dollars per million tokens, for conversations of at least `tier.size` tokens if there is a tier."""

    tier: CostTier | None = None
    input: float
    output: float
    cache: CacheCost


class LocatedLimit(Wire):
    context: int
    input: int | None = None
    output: int


class LocatedModel(Wire):
    id: str
    provider_id: str
    family: str | None = None
    name: str
    api: PackageModelApi
    capabilities: LocatedCapabilities
    request: RequestSettings
    variants: tuple[LocatedVariant, ...]
    time: Released
    cost: tuple[LocatedCost, ...]
    status: ModelStatus
    enabled: bool
    limit: LocatedLimit


class LocatedProvider(Wire):
    id: str
    name: str
    api: PackageApi
    request: RequestSettings


class EnvironmentMethod(Wire):
    type: Literal["env"]
    names: tuple[str, ...]


class EnvironmentConnection(Wire):
    type: Literal["env"]
    name: str


class Integration(Wire):
    """How a provider can be given its key."""

    id: str
    name: str
    methods: tuple[EnvironmentMethod, ...]
    connections: tuple[EnvironmentConnection, ...]


class LocatedCommand(Wire):
    name: str
    template: str
    description: str | None = None
    agent: str | None = None
    model: SessionModel | None = None
    subtask: bool | None = None


class Reference(Wire):
    name: str
    path: str


class LocatedAgents(Wire):
    location: Location
    data: tuple[LocatedAgent, ...]


class LocatedModels(Wire):
    location: Location
    data: tuple[LocatedModel, ...]


class LocatedProviders(Wire):
    location: Location
    data: tuple[LocatedProvider, ...]


class OneProvider(Wire):
    location: Location
    data: LocatedProvider


class Integrations(Wire):
    location: Location
    data: tuple[Integration, ...]


class OneIntegration(Wire):
    """`data` is null for a provider that is not known."""

    location: Location
    data: Integration | None


class LocatedCommands(Wire):
    location: Location
    data: tuple[LocatedCommand, ...]


class LocatedSkills(Wire):
    location: Location
    data: tuple[SkillInfo, ...]


class References(Wire):
    location: Location
    data: tuple[Reference, ...]


# --- routes -----------------------------------------------------------------------------------------------------

ProviderId = Annotated[str, PathParameter(name="providerID")]
IntegrationId = Annotated[str, PathParameter(name="integrationID")]


def second_api_routes(offers: OfferService) -> Sequence[HTTPRouteHandler]:
    @get("/api/health", summary="Is the server up?", **documented_second(Healthy))
    async def health() -> Response[bytes]:
        return answer(Healthy(healthy=True))

    @get("/api/location", summary="The directory and its project", **documented_second(Location))
    async def location(located: InstanceOfLocation) -> Response[bytes]:
        return answer(location_of(located))

    @get("/api/agent", summary="Agents", **documented_second(LocatedAgents))
    async def agents(located: InstanceOfLocation) -> Response[bytes]:
        return answer(LocatedAgents(location=location_of(located), data=tuple(map(_agent, located.agents.values()))))

    @get("/api/model", summary="Models", **documented_second(LocatedModels))
    async def models(located: InstanceOfLocation) -> Response[bytes]:
        known = [model for provider in _providers(located) for model in provider.models.values()]
        return answer(LocatedModels(location=location_of(located), data=tuple(map(_model, known))))

    @get("/api/provider", summary="Providers that are configured", **documented_second(LocatedProviders))
    async def providers(located: InstanceOfLocation) -> Response[bytes]:
        return answer(LocatedProviders(location=location_of(located), data=tuple(map(_provider, _providers(located)))))

    @get(
        "/api/provider/{providerID:str}",
        summary="One provider",
        **documented_second(OneProvider, missing="There is no such provider."),
    )
    async def one_provider(provider_id: ProviderId, located: InstanceOfLocation) -> Response[bytes]:
        for provider in _providers(located):
            if provider.id == provider_id:
                return answer(OneProvider(location=location_of(located), data=_provider(provider)))
        raise NotFound(PROVIDER, provider_id)

    @get("/api/integration", summary="How providers are given their keys", **documented_second(Integrations))
    async def integrations(located: InstanceOfLocation) -> Response[bytes]:
        return answer(Integrations(location=location_of(located), data=_integrations(located)))

    @get(
        "/api/integration/{integrationID:str}",
        summary="How one provider is given its key",
        **documented_second(OneIntegration),
    )
    async def one_integration(integration_id: IntegrationId, located: InstanceOfLocation) -> Response[bytes]:
        found = next((one for one in _integrations(located) if one.id == integration_id), None)
        return answer(OneIntegration(location=location_of(located), data=found))

    @get("/api/command", summary="Commands", **documented_second(LocatedCommands))
    async def commands(located: InstanceOfLocation) -> Response[bytes]:
        return answer(LocatedCommands(location=location_of(located), data=tuple(map(_command, located.commands))))

    @get("/api/skill", summary="Skills", **documented_second(LocatedSkills))
    async def skills(located: InstanceOfLocation) -> Response[bytes]:
        return answer(LocatedSkills(location=location_of(located), data=await offers.skills(located)))

    @get(
        "/api/reference",
        summary="Other projects that agents may look at",
        **documented_second(References, "None: there are no references here."),
    )
    async def references(located: InstanceOfLocation) -> Response[bytes]:
        return answer(References(location=location_of(located), data=()))

    routes: list[Any] = [
        health,
        location,
        agents,
        models,
        providers,
        one_provider,
        integrations,
        one_integration,
        commands,
        skills,
        references,
    ]
    return routes


# --- the first API's words → the second one's -------------------------------------------------------------------


def location_of(instance: Instance) -> Location:
    place = instance.place
    return Location(directory=instance.directory, project=LocationProject(id=place.id, directory=place.worktree))


def _providers(instance: Instance) -> Sequence[Provider]:
    """Already without secrets."""
    return instance.registry.config_providers().providers


def _agent(agent: Agent) -> LocatedAgent:
    model = agent.model
    return LocatedAgent(
        id=agent.name,
        model=SessionModel(id=model.model_id, provider_id=model.provider_id, variant=agent.variant) if model else None,
        request=RequestSettings(headers={}, body=public_settings(agent.options)),
        system=agent.prompt,
        description=agent.description,
        mode=agent.mode,
        hidden=bool(agent.hidden),
        color=agent.color,
        steps=agent.steps,
        permissions=tuple(
            Rule(action=rule.permission, resource=rule.pattern, effect=rule.action) for rule in agent.permission
        ),
    )


def _provider(provider: Provider) -> LocatedProvider:
    model = next(iter(provider.models.values()))  # a provider without models is not listed
    return LocatedProvider(
        id=provider.id,
        name=provider.name,
        api=PackageApi(
            type="aisdk", package=model.api.npm, url=_address(provider, model), settings=provider.options or None
        ),
        request=RequestSettings(headers={}, body={}),
    )


def _address(provider: Provider, model: Model) -> str | None:
    return provider.options.get("baseURL") or model.api.url or None


def _model(model: Model) -> LocatedModel:
    capabilities = model.capabilities
    return LocatedModel(
        id=model.id,
        provider_id=model.provider_id,
        family=model.family or None,
        name=model.name,
        api=PackageModelApi(type="aisdk", id=model.api.id, package=model.api.npm, url=model.api.url or None),
        capabilities=LocatedCapabilities(
            tools=capabilities.toolcall, input=_names(capabilities.input), output=_names(capabilities.output)
        ),
        request=RequestSettings(headers={}, body=model.options),
        variants=tuple(LocatedVariant(id=name, headers={}, body=body) for name, body in model.variants.items()),
        time=Released(released=_milliseconds(model.release_date)),
        cost=_costs(model.cost),
        status=model.status,
        enabled=True,
        limit=LocatedLimit(context=model.limit.context, input=model.limit.input, output=model.limit.output),
    )


def _names(modalities: Modalities) -> tuple[str, ...]:
    return tuple(name for name in ("text", "audio", "image", "video", "pdf") if getattr(modalities, name))


def _costs(cost: ModelCost) -> tuple[LocatedCost, ...]:
    prices = (_cost(cost, None),)
    over = cost.experimental_over_200k
    return prices if over is None else (*prices, _cost(over, CostTier(type="context", size=200_000)))


def _cost(prices: ModelCost | TieredCost, tier: CostTier | None) -> LocatedCost:
    return LocatedCost(tier=tier, input=prices.input, output=prices.output, cache=prices.cache)


def _milliseconds(date: str) -> int:
    """`2025-08-07`, or only `2025-08`; what cannot be read is unknown."""
    for form in ("%Y-%m-%d", "%Y-%m", "%Y"):
        try:
            return int(datetime.strptime(date, form).replace(tzinfo=UTC).timestamp() * 1000)
        except (ValueError, OverflowError):
            continue
    return 0


def _integrations(instance: Instance) -> tuple[Integration, ...]:
    """Those whose key may come from a variable of the environment."""
    return tuple(
        Integration(
            id=provider.id,
            name=provider.name,
            methods=(EnvironmentMethod(type="env", names=provider.env),),
            connections=tuple(EnvironmentConnection(type="env", name=name) for name in provider.env)
            if provider.source == "env"
            else (),
        )
        for provider in _providers(instance)
        if provider.env
    )


def _command(command: Command) -> LocatedCommand:
    return LocatedCommand(
        name=command.name,
        template=command.template,
        description=command.description,
        agent=command.agent,
        model=_model_of(command.model),
        subtask=command.subtask,
    )


def _model_of(text: str | None) -> SessionModel | None:
    """The configuration's `provider/model`; one that is spelled otherwise is refused where the command is used."""
    if text is None:
        return None
    try:
        model = parse_model(text)
    except Invalid:
        return None
    return SessionModel(id=model.model_id, provider_id=model.provider_id)
