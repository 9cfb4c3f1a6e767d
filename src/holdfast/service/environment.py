"""What a turn needs to know of the world around its session, from the instance of its directory."""

import asyncio
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

from holdfast.agent.permissions import denied_entirely, matches, permission_of
from holdfast.agent.providers.families import default_options, small_options
from holdfast.agent.providers.registry import DEMO_MODEL
from holdfast.agent.runner import ModelSettings, ResolvedModel
from holdfast.agent.skills import Skill, find_skills
from holdfast.agent.snapshots import Snapshots, WorkTree
from holdfast.agent.tools import ToolBox
from holdfast.agent.tools.invalid import INVALID
from holdfast.agent.tools.skill import SKILL
from holdfast.agent.tools.structured_output import StructuredOutput
from holdfast.agent.turn.decide import STRUCTURED
from holdfast.core.catalogue import Agent, Model
from holdfast.core.clock import Clock
from holdfast.core.config import CompactionConfig
from holdfast.core.errors import Invalid
from holdfast.core.known_providers import KNOWN
from holdfast.core.messages import MessageModel, OutputFormatJsonSchema, UserMessage
from holdfast.core.permissions import PermissionRule
from holdfast.core.session import Session
from holdfast.service.instances import Instance, Instances
from holdfast.service.mcp import McpService
from holdfast.service.projects import worktree_of

_INTRODUCTION: Final = """\
You are a software engineer who works in the user's project through tools. Do what is asked, completely, and no more.
Look before you change: read the files that matter and follow the conventions you find in them. After a change, check that
it works, with the project's own tests where there are some. Say plainly what you did, what you could not do, and what
failed. Be brief; the user reads your answers in a terminal. Refer to code as path:line."""

_FORM: Final = f"""\
The user wants your answer in a form of its own, which is that of the tool {STRUCTURED}. Do all that is needed first, then call
that tool once with the whole answer. Nothing that you write beside it reaches the user."""

_SKILLS: Final = (
    "There are skills, instructions for a kind of work. Before such work, read the one for it with the tool skill:"
)
_SKILLS_CHARACTERS_MAX: Final = 20_000
_DIRECTORIES_MAX: Final = 1000

_INSTRUCTION_FILES: Final = ("AGENTS.md", "CLAUDE.md")
_RESERVED_TOKENS_MAX: Final = 20_000
_INSTRUCTION_BYTES_MAX: Final = 64 * 1024


class InstanceEnvironment:
    """`agent.runner.Environment` on instances. `configuration` is the directory of the user's own."""

    def __init__(
        self,
        instances: Instances,
        *,
        tools: ToolBox,
        clock: Clock,
        tool_output: Path,
        snapshots: Snapshots | None = None,
        mcp: McpService | None = None,
        configuration: Path | None = None,
    ) -> None:
        self._configuration = configuration
        self._used: dict[str, Instance] = {}
        self._skills: dict[str, tuple[Skill, ...]] = {}
        self._instances = instances
        self._snapshots = snapshots
        self._mcp = mcp
        self._tools = tools
        self._clock = clock
        self._tool_output = tool_output

    async def prepare(self, session: Session) -> None:
        instance = await self._instance(session)
        if self._mcp is not None:
            await self._mcp.prepare(instance)
        if len(self._skills) >= _DIRECTORIES_MAX:
            self._skills.clear()
        self._skills[session.directory] = await asyncio.to_thread(
            find_skills, Path(session.directory), Path(instance.place.worktree), self._configuration
        )

    async def model(self, session: Session, user: UserMessage) -> ResolvedModel:
        instance = await self._instance(session)
        provider, model = instance.registry.resolve(user.model.provider_id, user.model.model_id)
        return ResolvedModel(
            provider=provider,
            model_id=model.api.id,
            input_tokens_max=_room(model, instance.config.compaction),
            output_tokens_max=model.limit.output or None,
            settings=_settings(model, instance.agents.get(user.agent), user.model.variant, session.id),
        )

    async def title_model(self, session: Session, user: UserMessage) -> ResolvedModel | None:
        instance = await self._instance(session)
        small = instance.registry.small_model(user.model.provider_id) or user.model
        if small.provider_id == DEMO_MODEL.provider_id:
            return None
        provider, model = instance.registry.resolve(small.provider_id, small.model_id)
        titles = instance.agents.get("title")
        settings = ModelSettings(
            temperature=titles.temperature if titles is not None and _takes_temperature(model) else None,
            options=_merged(model.options, small_options(model)),
        )
        return ResolvedModel(provider=provider, model_id=model.api.id, settings=settings)

    def tools(self, session: Session, user: UserMessage) -> ToolBox:
        """Those that the agent may use at all, and the prompt does not turn off."""
        rules = self.rules(session, user)
        off = [name for name, wanted in (user.tools or {}).items() if not wanted]
        foreign = self._mcp.tools(session.directory, self._tools) if self._mcp is not None else ()

        def is_wanted(id: str) -> bool:
            is_off = any(matches(name, id) for name in off)
            return id == INVALID or not (is_off or denied_entirely(permission_of(id), rules))

        form = user.format
        schema = form.schema if isinstance(form, OutputFormatJsonSchema) else None
        answers = (StructuredOutput(schema),) if isinstance(schema, dict) else ()
        return ToolBox((*(tool for tool in (*self._tools.values(), *foreign) if is_wanted(tool.id)), *answers))

    def prunes(self, session: Session) -> bool:
        instance = self._known(session)
        settings = instance.config.compaction if instance is not None else None
        return settings is not None and settings.prune is True

    def steps_max(self, session: Session, user: UserMessage) -> int | None:
        instance = self._known(session)
        agent = instance.agents.get(user.agent) if instance is not None else None
        return max(agent.steps, 1) if agent is not None and agent.steps is not None else None

    def rules(self, session: Session, user: UserMessage) -> tuple[PermissionRule, ...]:
        instance = self._known(session)
        agent = instance.agents.get(user.agent) if instance is not None else None
        return (*(agent.permission if agent is not None else ()), *(session.permission or ()))

    def agent_model(self, session: Session, agent: str) -> MessageModel | None:
        instance = self._known(session)
        known = instance.agents.get(agent) if instance is not None else None
        if known is None or known.model is None:
            return None
        return MessageModel(provider_id=known.model.provider_id, model_id=known.model.model_id, variant=known.variant)

    def subagents(self, session: Session) -> tuple[str, ...]:
        instance = self._known(session)
        agents = instance.agents.values() if instance is not None else ()
        return tuple(agent.name for agent in agents if agent.mode != "primary" and not agent.hidden)

    def system(self, session: Session, user: UserMessage, agent: str) -> tuple[str, ...]:
        instance = self._known(session)
        known = instance.agents.get(agent) if instance is not None else None
        if known is not None and known.hidden and known.prompt:  # it works on the conversation, not on the project
            return (known.prompt,)
        paragraphs = [(known.prompt if known is not None else None) or _INTRODUCTION, self._surroundings(session)]
        paragraphs += _instructions(Path(session.directory), Path(self.worktree(session)))
        skills = self._skills.get(session.directory, ())
        if skills and SKILL in self.tools(session, user):
            paragraphs.append(_listed(skills))
        if user.system:
            paragraphs.append(user.system)
        if isinstance(user.format, OutputFormatJsonSchema):
            paragraphs.append(_FORM)
        return tuple(paragraphs)

    def snapshots(self, session: Session) -> WorkTree | None:
        instance = self._known(session)
        if self._snapshots is None or (instance is not None and instance.config.snapshot is False):
            return None
        worktree = self.worktree(session)
        return self._snapshots.of(session.directory if worktree == "/" else worktree)

    def worktree(self, session: Session) -> str:
        return worktree_of(session.directory) or "/"

    def output_directory(self, session: Session) -> Path:
        return self._tool_output / session.id

    async def _instance(self, session: Session) -> Instance:
        """A configuration that was broken by an edit in mid-turn does not end the turn."""
        try:
            instance = await self._instances.open(session.directory)
        except Invalid:
            last = self._known(session)
            if last is None:
                raise
            instance = last
        if len(self._used) >= _DIRECTORIES_MAX:
            self._used.clear()
        self._used[session.directory] = instance
        return instance

    def _known(self, session: Session) -> Instance | None:
        """As it is now; where it was disposed of in mid-step, as the step had it: a call must not run without its rules."""
        return self._instances.opened(session.directory) or self._used.get(session.directory)

    def _surroundings(self, session: Session) -> str:
        today = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).strftime("%Y-%m-%d")
        return "\n".join(
            (
                f"Working directory: {session.directory}",
                f"Project root: {self.worktree(session)}",
                f"Platform: {platform.system().lower()}",
                f"Date: {today}",
            )
        )


def _settings(model: Model, agent: Agent | None, variant: str | None, session_id: str) -> ModelSettings:
    """The agent's wishes over the model's options, and over both the variant: the prompt's, else the agent's if it is for this
    model. One that the model does not have changes nothing."""
    if agent is None:
        return ModelSettings(options=_merged(default_options(model, session_id), model.options))
    own = agent.model is None or (agent.model.provider_id, agent.model.model_id) == (model.provider_id, model.id)
    chosen = variant or (agent.variant if own else None)
    options = _merged(default_options(model, session_id), model.options)
    options = _merged(_merged(options, agent.options), model.variants.get(chosen or "", {}))
    return ModelSettings(
        temperature=agent.temperature if _takes_temperature(model) else None, top_p=agent.top_p, options=options
    )


def _takes_temperature(model: Model) -> bool:
    """Some refuse a request that has one. Of a model that nobody knows, its user knows better."""
    return model.capabilities.temperature or model.provider_id not in KNOWN


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = {**base, **over}
    for key in base.keys() & over.keys():
        below, above = base[key], over[key]
        if isinstance(below, Mapping) and isinstance(above, Mapping):
            result[key] = _merged(cast(Mapping[str, Any], below), cast(Mapping[str, Any], above))
    return result


def _listed(skills: Sequence[Skill]) -> str:
    lines = "\n".join(f"- {skill.name}: {skill.description}" for skill in skills)
    return f"{_SKILLS}\n{lines[:_SKILLS_CHARACTERS_MAX]}"


def _room(model: Model, settings: CompactionConfig | None) -> int | None:
    """How many tokens a conversation may have before it is summarised; None where the model's size is unknown, or the user
    does not want that."""
    if not model.limit.context or (settings is not None and settings.auto is False):
        return None
    wanted = settings.reserved if settings is not None else None
    reserved = wanted if wanted is not None else min(_RESERVED_TOKENS_MAX, model.limit.output or _RESERVED_TOKENS_MAX)
    return max((model.limit.input or model.limit.context - model.limit.output) - reserved, 0) or None


def _instructions(directory: Path, worktree: Path) -> list[str]:
    """The project's own words to agents, from its root down to the directory."""
    folders = [
        folder for folder in (directory, *directory.parents) if folder == directory or folder.is_relative_to(worktree)
    ]
    found: list[str] = []
    for folder in reversed(folders if worktree != Path("/") else [directory]):
        for name in _INSTRUCTION_FILES:
            file = folder / name
            try:
                text = file.read_bytes()[:_INSTRUCTION_BYTES_MAX].decode("utf-8", "replace")
            except OSError:
                continue
            found.append(f"Instructions from {file}:\n{text}")
            break
    return found
