"""The agents and commands of a directory: the built-in ones, changed and joined by those of the configuration.

Permission rules are a list in which the last match counts: first what holds for every agent, then the agent's own, then
`permission` of the configuration, then `agent.NAME.permission`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec.structs import replace

from holdfast.core.catalogue import Agent, AgentModel, Command, parse_model
from holdfast.core.config import AgentConfig, Config, PermissionConfig
from holdfast.core.errors import Invalid
from holdfast.core.permissions import PermissionAction, PermissionRule

DEFAULT_AGENT: Final = "build"

_EXPLORE_PROMPT: Final = """\
You find things in a code base and report what you found. You change nothing.
Start broad (file names, then text search), then read only what matters. Report absolute paths with line numbers and the
few lines that prove the point. When something is not there, say where you looked."""

_COMPACTION_PROMPT: Final = """\
You write the summary from which this conversation will be continued by somebody who has not seen it.
Keep: what the user wants and the decisions taken, files and commands with their exact names, what was done and with what
result, what is still open and what comes next. Leave out greetings and whatever turned out not to matter."""

_TITLE_PROMPT: Final = """\
You name conversations. Answer with one line of at most eight words that lets the user find this conversation again: the
subject, in the user's language, without quotation marks, without a full stop. Do not answer the conversation itself."""

_SUMMARY_PROMPT: Final = """\
You say in two or three sentences, in the first person and without headings, what was changed in this conversation and
why, as one would in the description of a pull request."""

_INIT_TEMPLATE: Final = """\
Look at this project and write (or improve) the file AGENTS.md at its root: what a newcomer with tools needs before the
first change. Commands to build, to check and to run one test; the layout in a few lines; the conventions that the code
follows and that are not obvious. Verify each claim in the repository, keep it under a page, and keep what is already
right in an existing file.

$ARGUMENTS"""

_REVIEW_TEMPLATE: Final = """\
Review a change and report its defects: what breaks, for which input, at which line. Mention style only where it hides a
defect. The change is what follows; without anything there, it is everything that is not committed yet.

$ARGUMENTS"""

_PLACEHOLDER: Final = re.compile(r"\$(?:ARGUMENTS|[0-9]+)")


def agents_of(config: Config, tool_output: str) -> dict[str, Agent]:
    """By name. `tool_output` is the directory in which tools leave long output: every agent may read it."""
    agents = {agent.name: agent for agent in _built_in(tool_output)}
    configured = rules_of(config.permission)
    agents = {name: replace(agent, permission=agent.permission + configured) for name, agent in agents.items()}
    for name, settings in (config.agent or {}).items():
        if settings.disable:
            agents.pop(name, None)
            continue
        base = agents.get(name) or Agent(
            name=name, mode="all", permission=_everyone(tool_output) + configured, options={}
        )
        agents[name] = _configured(base, settings)
    return agents


def commands_of(config: Config) -> tuple[Command, ...]:
    commands = {
        "init": Command(
            name="init",
            description="write or improve AGENTS.md",
            source="command",
            template=_INIT_TEMPLATE,
            hints=_hints(_INIT_TEMPLATE),
        ),
        "review": Command(
            name="review",
            description="review a commit, a branch or what is not committed yet",
            source="command",
            template=_REVIEW_TEMPLATE,
            subtask=True,
            hints=_hints(_REVIEW_TEMPLATE),
        ),
    }
    for name, settings in (config.command or {}).items():
        commands[name] = Command(
            name=name,
            description=settings.description,
            agent=settings.agent,
            model=settings.model,
            source="command",
            template=settings.template,
            subtask=settings.subtask,
            hints=_hints(settings.template),
        )
    return tuple(commands.values())


def default_agent(config: Config, agents: Mapping[str, Agent]) -> str:
    """The configured one, else `build`, else the first that may lead a conversation. Raises Invalid if there is none."""
    usable = [agent.name for agent in agents.values() if agent.mode != "subagent" and not agent.hidden]
    for name in (config.default_agent, DEFAULT_AGENT, *usable):
        if name is not None and name in usable:
            return name
    raise Invalid("The configuration disables every agent that could answer.", field="agent")


def rules_of(config: PermissionConfig | None) -> tuple[PermissionRule, ...]:
    """`"ask"` → one rule for everything; `{"bash": {"git *": "allow"}}` → a rule each, in the order of the file."""
    if config is None:
        return ()
    if isinstance(config, str):
        return (_rule("*", "*", config),)
    rules: list[PermissionRule] = []
    for permission, actions in config.items():
        if isinstance(actions, str):
            rules.append(_rule(permission, "*", actions))
        else:
            rules += (_rule(permission, pattern, action) for pattern, action in actions.items())
    return tuple(rules)


def _built_in(tool_output: str) -> Iterable[Agent]:
    everyone = _everyone(tool_output)
    nothing = (_rule("*", "*", "deny"),)
    yield Agent(
        name="build",
        description="The default agent: reads, changes and runs things as its permissions allow.",
        mode="primary",
        native=True,
        permission=(*everyone, _rule("question", "*", "allow"), _rule("plan_enter", "*", "allow")),
        options={},
    )
    yield Agent(
        name="plan",
        description="Looks and thinks, but changes no file.",
        mode="primary",
        native=True,
        permission=(
            *everyone,
            _rule("question", "*", "allow"),
            _rule("plan_exit", "*", "allow"),
            _rule("task", "general", "deny"),
            _rule("edit", "*", "deny"),
            _rule("edit", ".opencode/plans/*.md", "allow"),
        ),
        options={},
    )
    yield Agent(
        name="general",
        description="Takes over a task of several steps, or a question that needs much searching.",
        mode="subagent",
        native=True,
        permission=(*everyone, _rule("todowrite", "*", "deny")),
        options={},
    )
    yield Agent(
        name="explore",
        description="Finds its way in a code base quickly, without changing it: where is what, how does it work.",
        mode="subagent",
        native=True,
        permission=(
            *everyone,
            *nothing,
            *(
                _rule(permission, "*", "allow")
                for permission in ("grep", "glob", "list", "bash", "webfetch", "websearch", "read")
            ),
            *_outside(tool_output),
        ),
        prompt=_EXPLORE_PROMPT,
        options={},
    )
    for name, prompt, temperature in (
        ("compaction", _COMPACTION_PROMPT, None),
        ("title", _TITLE_PROMPT, 0.5),
        ("summary", _SUMMARY_PROMPT, None),
    ):
        yield Agent(
            name=name,
            mode="primary",
            native=True,
            hidden=True,
            temperature=temperature,
            permission=(*everyone, *nothing),
            prompt=prompt,
            options={},
        )


def _everyone(tool_output: str) -> tuple[PermissionRule, ...]:
    return (
        _rule("*", "*", "allow"),
        _rule("doom_loop", "*", "ask"),
        *_outside(tool_output),
        _rule("question", "*", "deny"),
        _rule("plan_enter", "*", "deny"),
        _rule("plan_exit", "*", "deny"),
        _rule("read", "*", "allow"),
        _rule("read", "*.env", "ask"),
        _rule("read", "*.env.*", "ask"),
        _rule("read", "*.env.example", "allow"),
    )


def _outside(tool_output: str) -> tuple[PermissionRule, ...]:
    return _rule("external_directory", "*", "ask"), _rule("external_directory", f"{tool_output}/*", "allow")


def _rule(permission: str, pattern: str, action: PermissionAction) -> PermissionRule:
    return PermissionRule(permission=permission, pattern=pattern, action=action)


def _configured(agent: Agent, settings: AgentConfig) -> Agent:
    model = parse_model(settings.model, f"agent.{agent.name}.model") if settings.model is not None else None
    chosen = AgentModel(model_id=model.model_id, provider_id=model.provider_id) if model else agent.model
    return replace(
        agent,
        description=settings.description if settings.description is not None else agent.description,
        mode=settings.mode or agent.mode,
        hidden=settings.hidden if settings.hidden is not None else agent.hidden,
        top_p=settings.top_p if settings.top_p is not None else agent.top_p,
        temperature=settings.temperature if settings.temperature is not None else agent.temperature,
        color=settings.color or agent.color,
        permission=agent.permission + rules_of(settings.permission),
        model=chosen,
        variant=settings.variant or agent.variant,
        prompt=settings.prompt or agent.prompt,
        options={**agent.options, **(settings.options or {})},
        steps=settings.steps if settings.steps is not None else agent.steps,
    )


def _hints(template: str) -> tuple[str, ...]:
    """Each placeholder once: `$1`, `$2`, …, then `$ARGUMENTS`."""
    return tuple(sorted(dict.fromkeys(_PLACEHOLDER.findall(template))))
