"""`opencode.json` as OpenCode reads it, once merged and with its `{env:…}` and `{file:…}` filled in (`service.config`).

All of it is optional. Fields that no part of Holdfast has a use for are left out of these types and pass unnoticed:
a file is shared with OpenCode and with newer versions of us. The file mixes snake_case and camelCase, so names are
taken as they are, except for the few in `_CAMEL_CASE`.

Values may be secrets (`api_key`, headers, environments): only what `public` gives may leave the server.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import msgspec
from msgspec.structs import replace

from holdfast.core.permissions import PermissionAction
from holdfast.core.wire import Wire

_CAMEL_CASE = {
    "api_key": "apiKey",
    "base_url": "baseURL",
    "callback_port": "callbackPort",
    "chunk_timeout": "chunkTimeout",
    "client_id": "clientId",
    "client_secret": "clientSecret",
    "header_timeout": "headerTimeout",
    "include_usage": "includeUsage",
    "log_level": "logLevel",
    "max_steps": "maxSteps",
    "mdns_domain": "mdnsDomain",
    "open_telemetry": "openTelemetry",
    "query_params": "queryParams",
    "redirect_uri": "redirectUri",
    "schema": "$schema",
}


class Settings(Wire, rename=_CAMEL_CASE):
    """Base of all parts of the file."""


# --- providers --------------------------------------------------------------------------------------------------

Modality = Literal["text", "audio", "image", "video", "pdf"]
ModelStatus = Literal["alpha", "beta", "deprecated", "active"]


class ProviderOptions(Settings):
    """What an adapter that speaks HTTP understands of `options`. Timeouts are milliseconds, false is "never": `timeout` of
    the whole request, `header_timeout` until the answer begins, `chunk_timeout` between two pieces of it."""

    api_key: str | None = None
    base_url: str | None = None
    headers: dict[str, str] | None = None
    query_params: dict[str, str] | None = None
    include_usage: bool | None = None
    timeout: int | bool | None = None
    header_timeout: int | bool | None = None
    chunk_timeout: int | bool | None = None


class CostOver200kConfig(Settings):
    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None


class CostConfig(Settings):
    """US dollars per million tokens."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    context_over_200k: CostOver200kConfig | None = None


class LimitConfig(Settings):
    """Tokens."""

    context: int
    input: int | None = None
    output: int


class ModalitiesConfig(Settings):
    input: tuple[Modality, ...] | None = None
    output: tuple[Modality, ...] | None = None


class InterleavedConfig(Settings):
    """The field of a message in which the LLM wants its reasoning back."""

    field: str


class ModelProviderConfig(Settings):
    npm: str | None = None
    api: str | None = None


class ModelConfig(Settings):
    """`id` is the name the provider knows; without it, the key under which the model stands."""

    id: str | None = None
    name: str | None = None
    family: str | None = None
    release_date: str | None = None
    attachment: bool | None = None
    reasoning: bool | None = None
    temperature: bool | None = None
    tool_call: bool | None = None
    interleaved: bool | str | InterleavedConfig | None = None
    cost: CostConfig | None = None
    limit: LimitConfig | None = None
    modalities: ModalitiesConfig | None = None
    experimental: bool | None = None
    status: ModelStatus | None = None
    provider: ModelProviderConfig | None = None
    options: dict[str, Any] | None = None
    headers: dict[str, str] | None = None
    variants: dict[str, dict[str, Any]] | None = None


class ProviderConfig(Settings):
    """`npm` names the wire format, `env` the variables that may hold the key. `options` holds whatever the adapter
    understands (`ProviderOptions`) and what it passes on."""

    api: str | None = None
    name: str | None = None
    env: tuple[str, ...] | None = None
    id: str | None = None
    npm: str | None = None
    whitelist: tuple[str, ...] | None = None
    blacklist: tuple[str, ...] | None = None
    options: dict[str, Any] | None = None
    models: dict[str, ModelConfig] | None = None


# --- permissions, agents, commands ------------------------------------------------------------------------------

PermissionRuleConfig = PermissionAction | dict[str, PermissionAction]
"""One action for all, or an action by pattern; of several patterns that match, the last one counts."""

PermissionConfig = PermissionAction | dict[str, PermissionRuleConfig]
"""One action for everything, or a rule by permission; the order counts."""

AgentMode = Literal["subagent", "primary", "all"]


class AgentConfig(Settings):
    """`options` also holds the keys that OpenCode does not know: they go to the LLM's provider as they are. `tools` and
    `max_steps` are old names: the loader turns them into `permission` and `steps`."""

    model: str | None = None
    variant: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    prompt: str | None = None
    tools: dict[str, bool] | None = None
    disable: bool | None = None
    description: str | None = None
    mode: AgentMode | None = None
    hidden: bool | None = None
    options: dict[str, Any] | None = None
    color: str | None = None
    steps: int | None = None
    max_steps: int | None = None
    permission: PermissionConfig | None = None


AGENT_KEYS = frozenset(field.encode_name for field in msgspec.structs.fields(AgentConfig)) | {"name"}
"""What is a setting of an agent; every other key is an option for the LLM."""


class CommandConfig(Settings):
    template: str
    description: str | None = None
    agent: str | None = None
    model: str | None = None
    variant: str | None = None
    subtask: bool | None = None


# --- the rest ---------------------------------------------------------------------------------------------------


class ServerConfig(Settings):
    port: int | None = None
    hostname: str | None = None
    mdns: bool | None = None
    mdns_domain: str | None = None
    cors: tuple[str, ...] | None = None


class McpOAuthConfig(Settings):
    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None
    callback_port: int | None = None
    redirect_uri: str | None = None


class McpConfig(Settings):
    """A tool server: `local` runs `command`, `remote` is at `url`. With `enabled` alone, it switches on or off a server
    that another file describes. `timeout` is milliseconds."""

    type: Literal["local", "remote"] | None = None
    command: tuple[str, ...] | None = None
    cwd: str | None = None
    environment: dict[str, str] | None = None
    url: str | None = None
    headers: dict[str, str] | None = None
    oauth: McpOAuthConfig | bool | None = None
    enabled: bool | None = None
    timeout: int | None = None


class SkillsConfig(Settings):
    paths: tuple[str, ...] | None = None
    urls: tuple[str, ...] | None = None


class WatcherConfig(Settings):
    ignore: tuple[str, ...] | None = None


class ToolOutputConfig(Settings):
    max_lines: int | None = None
    max_bytes: int | None = None


class CompactionConfig(Settings):
    """`reserved` and `preserve_recent_tokens` are tokens."""

    auto: bool | None = None
    prune: bool | None = None
    tail_turns: int | None = None
    preserve_recent_tokens: int | None = None
    reserved: int | None = None


class ImageAttachmentConfig(Settings):
    auto_resize: bool | None = None
    max_width: int | None = None
    max_height: int | None = None
    max_base64_bytes: int | None = None


class AttachmentConfig(Settings):
    image: ImageAttachmentConfig | None = None


class EnterpriseConfig(Settings):
    url: str | None = None


class ReferenceConfig(Settings):
    """Another project that agents may look at: a local `path`, or a git `repository`."""

    path: str | None = None
    repository: str | None = None
    branch: str | None = None
    description: str | None = None
    hidden: bool | None = None


class FormatterConfig(Settings):
    disabled: bool | None = None
    command: tuple[str, ...] | None = None
    environment: dict[str, str] | None = None
    extensions: tuple[str, ...] | None = None


class LanguageServerConfig(Settings):
    disabled: bool | None = None
    command: tuple[str, ...] | None = None
    extensions: tuple[str, ...] | None = None
    env: dict[str, str] | None = None
    initialization: dict[str, Any] | None = None


class PolicyConfig(Settings):
    effect: Literal["allow", "deny"]
    action: Literal["provider.use"]
    resource: str


class ExperimentalConfig(Settings):
    disable_paste_summary: bool | None = None
    batch_tool: bool | None = None
    open_telemetry: bool | None = None
    policies: tuple[PolicyConfig, ...] | None = None
    primary_tools: tuple[str, ...] | None = None
    continue_loop_on_deny: bool | None = None
    mcp_timeout: int | None = None


class Config(Settings):
    """What is of no use here is known all the same (`attachment`, `enterprise`, `references`, …), so that it can be read and
    written. `model`, `small_model` and the models of agents and commands are `provider/model`. `mode` is the old name of `agent`:
    the loader moves it there."""

    schema: str | None = None
    shell: str | None = None
    log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"] | None = None
    server: ServerConfig | None = None
    command: dict[str, CommandConfig] | None = None
    skills: SkillsConfig | None = None
    watcher: WatcherConfig | None = None
    snapshot: bool | None = None
    plugin: tuple[Any, ...] | None = None
    share: Literal["manual", "auto", "disabled"] | None = None
    autoshare: bool | None = None
    autoupdate: bool | Literal["notify"] | None = None
    disabled_providers: tuple[str, ...] | None = None
    enabled_providers: tuple[str, ...] | None = None
    model: str | None = None
    small_model: str | None = None
    default_agent: str | None = None
    subagent_depth: int | None = None
    username: str | None = None
    mode: dict[str, AgentConfig] | None = None
    agent: dict[str, AgentConfig] | None = None
    provider: dict[str, ProviderConfig] | None = None
    mcp: dict[str, McpConfig] | None = None
    formatter: bool | dict[str, FormatterConfig] | None = None
    lsp: bool | dict[str, LanguageServerConfig] | None = None
    instructions: tuple[str, ...] | None = None
    layout: Literal["auto", "stretch"] | None = None
    permission: PermissionConfig | None = None
    tools: dict[str, bool] | None = None
    tool_output: ToolOutputConfig | None = None
    attachment: AttachmentConfig | None = None
    enterprise: EnterpriseConfig | None = None
    reference: dict[str, str | ReferenceConfig] | None = None
    references: dict[str, str | ReferenceConfig] | None = None
    compaction: CompactionConfig | None = None
    experimental: ExperimentalConfig | None = None


# --- what may leave the server ----------------------------------------------------------------------------------

HARMLESS_OPTIONS = frozenset({"baseURL", "enterpriseUrl", "region", "location", "project", "resourceName"})
"""Options of a provider that are texts and no secrets."""

_SECRET_NAME = re.compile(r"key|token|secret|passw|credential|auth|cookie", re.IGNORECASE)
_USER_INFO = re.compile(r"//[^/@\s]*@")
_QUERY_VALUE = re.compile(r"(?<=[?&;])([^=&;#\s]+)=([^&;#\s]+)")
_NAMED_VALUE = re.compile(r"([^\s=:]+)([=:]\s*)\S.*", re.DOTALL)
_LEFT_OUT = "…"


def public(config: Config) -> Config:
    """The configuration without anything that may be a secret: no keys, no headers, no environments."""
    providers = {
        name: replace(
            provider,
            api=public_address(provider.api) if provider.api is not None else None,
            options=public_options(provider.options) if provider.options is not None else None,
            models={id: _public_model(model) for id, model in provider.models.items()} if provider.models else None,
        )
        for name, provider in (config.provider or {}).items()
    }
    servers = {
        name: replace(
            server,
            command=_public_command(server.command),
            url=public_address(server.url) if server.url is not None else None,
            environment=None,
            headers=None,
            oauth=None,
        )
        for name, server in (config.mcp or {}).items()
    }
    agents = {
        name: replace(agent, options=public_settings(agent.options) if agent.options is not None else None)
        for name, agent in (config.agent or {}).items()
    }
    return replace(
        config,
        provider=providers if config.provider is not None else None,
        mcp=servers if config.mcp is not None else None,
        agent=agents if config.agent is not None else None,
        formatter=_public_commands(config.formatter),
        lsp=_public_servers(config.lsp),
        plugin=(),
    )


def _public_commands(formatters: bool | dict[str, FormatterConfig] | None) -> bool | dict[str, FormatterConfig] | None:
    if not isinstance(formatters, dict):
        return formatters
    return {
        name: replace(formatter, environment=None, command=_public_command(formatter.command))
        for name, formatter in formatters.items()
    }


def _public_servers(
    servers: bool | dict[str, LanguageServerConfig] | None,
) -> bool | dict[str, LanguageServerConfig] | None:
    if not isinstance(servers, dict):
        return servers
    return {
        name: replace(server, env=None, initialization=None, command=_public_command(server.command))
        for name, server in servers.items()
    }


def public_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A provider's options. Texts are left out unless they are known to be harmless: adapters give keys many names."""
    shown: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, str):
            if name in HARMLESS_OPTIONS:
                shown[name] = public_address(value)
        elif isinstance(value, Mapping):
            if name != "headers":
                shown[name] = public_options(cast(Mapping[str, Any], value))
        elif value is None or isinstance(value, bool | int | float):
            shown[name] = value
    return shown


def public_address(url: str) -> str:
    """Without what some put into it: a user and password, and parameters that are named like secrets."""
    return _QUERY_VALUE.sub(
        lambda found: f"{found[1]}={_LEFT_OUT}" if _SECRET_NAME.search(found[1]) else found[0],
        _USER_INFO.sub("//", url),
    )


def _public_command(command: Sequence[str] | None) -> tuple[str, ...] | None:
    """A command line without the values of arguments that are named like secrets: `--token T`, `--api-key=K`, `TOKEN=T`,
    `Authorization: Bearer B`."""
    if command is None:
        return None
    shown: list[str] = []
    is_secret = False
    for argument in command:
        named = _NAMED_VALUE.fullmatch(argument)
        if is_secret and not argument.startswith("-"):
            shown.append(_LEFT_OUT)
        elif named is not None and "//" not in named[1] and _SECRET_NAME.search(named[1]):
            shown.append(f"{named[1]}{named[2]}{_LEFT_OUT}")
        else:
            shown.append(public_address(argument))
        is_secret = argument.startswith("-") and named is None and _SECRET_NAME.search(argument) is not None
    return tuple(shown)


def public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a model or agent, which say how to think and write: only what is named like a secret is left out."""
    return {
        name: public_settings(cast(Mapping[str, Any], value)) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name != "headers" and not (isinstance(value, str) and _SECRET_NAME.search(name))
    }


def _public_model(model: ModelConfig) -> ModelConfig:
    return replace(
        model,
        headers=None,
        options=public_settings(model.options) if model.options is not None else None,
        variants={name: public_settings(variant) for name, variant in model.variants.items()}
        if model.variants
        else None,
    )
