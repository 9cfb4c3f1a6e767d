"""What a server offers: providers and their models, agents, commands, projects. Shapes as in OpenCode's V1 API.

Pure descriptions: what is in `agent.providers` speaks to a provider, what is in `service` lists agents and projects.
"""

from typing import Any, Literal

import msgspec

from holdfast.core.config import AgentMode, ModelStatus
from holdfast.core.errors import Invalid
from holdfast.core.messages import MessageModel
from holdfast.core.permissions import PermissionRule
from holdfast.core.session import Session, Tokens
from holdfast.core.wire import Wire

# --- models -----------------------------------------------------------------------------------------------------


class ModelApi(Wire):
    """How the provider is reached: its name for the model, the base address unless `options.baseURL` says another, and the
    package name that stands for the wire format."""

    id: str
    url: str
    npm: str


class Modalities(Wire):
    text: bool
    audio: bool
    image: bool
    video: bool
    pdf: bool


class Interleaved(Wire):
    """The field of an assistant message in which the LLM wants its reasoning back."""

    field: str


class Capabilities(Wire):
    temperature: bool
    reasoning: bool
    attachment: bool
    toolcall: bool
    input: Modalities
    output: Modalities
    interleaved: bool | Interleaved


class CacheCost(Wire):
    read: float
    write: float


class TieredCost(Wire):
    input: float
    output: float
    cache: CacheCost


class ContextTier(Wire):
    type: Literal["context"] = msgspec.field(default_factory=lambda: "context")
    size: int


class CostTier(TieredCost):
    """Prices for prompts of more than `tier.size` tokens."""

    tier: ContextTier


class ModelCost(Wire):
    """US dollars per million tokens. Prompts over the size of a tier have the prices of the largest such one for all of their
    tokens; `experimental_over_200k` is the same for more than 200,000 tokens, where there are no tiers."""

    input: float
    output: float
    cache: CacheCost
    tiers: tuple[CostTier, ...] | None = None
    experimental_over_200k: TieredCost | None = msgspec.field(name="experimentalOver200K", default=None)

    def of(self, tokens: Tokens) -> float:
        """What a step cost. Providers charge reasoning as output."""
        prices = self._prices(tokens.input + tokens.cache.read + tokens.cache.write)
        return (
            tokens.input * prices.input
            + (tokens.output + tokens.reasoning) * prices.output
            + tokens.cache.read * prices.cache.read
            + tokens.cache.write * prices.cache.write
        ) / 1_000_000

    def _prices(self, prompt: int) -> "ModelCost | TieredCost":
        if self.tiers:
            reached = [tier for tier in self.tiers if prompt > tier.tier.size]
            return max(reached, key=lambda tier: tier.tier.size) if reached else self
        over = self.experimental_over_200k
        return over if over is not None and prompt > 200_000 else self


class ModelLimit(Wire):
    """Tokens; 0 is unknown."""

    context: int
    input: int | None = None
    output: int


class Model(Wire):
    """An LLM. `options` and `headers` go into every request, those of a `variants` entry when the user chose it."""

    id: str
    provider_id: str
    api: ModelApi
    name: str
    family: str
    capabilities: Capabilities
    cost: ModelCost
    limit: ModelLimit
    status: ModelStatus
    options: dict[str, Any]
    headers: dict[str, str]
    release_date: str = msgspec.field(name="release_date")
    variants: dict[str, dict[str, Any]]


class Provider(Wire):
    """`options` without secrets; a key is never part of it."""

    id: str
    name: str
    source: Literal["env", "config", "custom", "api"]
    env: tuple[str, ...]
    options: dict[str, Any]
    models: dict[str, Model]


class ProviderList(Wire):
    """`connected` are those that can be used now; `default` is one model of each provider."""

    all: tuple[Provider, ...]
    default: dict[str, str]
    connected: tuple[str, ...]


class ConfigProviders(Wire):
    providers: tuple[Provider, ...]
    default: dict[str, str]


def parse_model(text: str, field: str | None = None) -> MessageModel:
    """`openrouter/qwen/qwen3` is model `qwen/qwen3` of provider `openrouter`. Raises Invalid without a slash."""
    provider_id, slash, model_id = text.partition("/")
    if not (slash and provider_id and model_id):
        raise Invalid(f"Not a model: {text[:64]!r}", field=field, hint='Write it as "provider/model".')
    return MessageModel(provider_id=provider_id, model_id=model_id)


# --- agents, commands -------------------------------------------------------------------------------------------


class AgentModel(Wire):
    model_id: str
    provider_id: str


class Agent(Wire):
    """`native` agents are built in; `hidden` ones are not offered to the user. `steps` limits the model steps of a turn."""

    name: str
    description: str | None = None
    mode: AgentMode
    native: bool | None = None
    hidden: bool | None = None
    top_p: float | None = None
    temperature: float | None = None
    color: str | None = None
    permission: tuple[PermissionRule, ...]
    model: AgentModel | None = None
    variant: str | None = None
    prompt: str | None = None
    options: dict[str, Any]
    steps: int | None = None


class Command(Wire):
    """A prompt template; `hints` are the placeholders it has."""

    name: str
    description: str | None = None
    agent: str | None = None
    model: str | None = None
    source: Literal["command", "mcp", "skill"] | None = None
    template: str
    subtask: bool | None = None
    hints: tuple[str, ...]


# --- tools, skills ----------------------------------------------------------------------------------------------


class ToolInfo(Wire):
    """`parameters` is the JSON schema of its input."""

    id: str
    description: str
    parameters: dict[str, Any]


class SkillInfo(Wire):
    """`location` is the file that holds it."""

    name: str
    description: str
    location: str
    content: str


# --- projects ---------------------------------------------------------------------------------------------------


class ProjectIcon(Wire):
    url: str | None = None
    override: str | None = None
    color: str | None = None


class ProjectCommands(Wire):
    start: str | None = None


class ProjectTime(Wire):
    created: int
    updated: int
    initialized: int | None = None


class Project(Wire):
    """`id` is the hash of the repository's root commit, "global" outside of git; `worktree` the root directory."""

    id: str
    worktree: str
    vcs: Literal["git"] | None = None
    name: str | None = None
    icon: ProjectIcon | None = None
    commands: ProjectCommands | None = None
    time: ProjectTime
    sandboxes: tuple[str, ...]


class ProjectSummary(Wire):
    id: str
    name: str | None = None
    worktree: str


class GlobalSession(Session):
    """A session with the project it belongs to, null if that is not known."""

    project: ProjectSummary | None


class Path(Wire):
    """Where things are, as absolute paths: the user's home, our state and configuration, the project."""

    home: str
    state: str
    config: str
    worktree: str
    directory: str
