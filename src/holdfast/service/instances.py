"""A project directory as the server works on it: its project, configuration, models, agents and commands.

Made when a directory is first asked for and kept until it is disposed of, idle, or many others were used since. One
directory has one instance, however it is spelled. Configuration files are looked at again every now and then, so an edit
holds for the next prompt; a turn that runs keeps the last configuration that could be read.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from typing import Final, Protocol
from weakref import WeakSet

import msgspec

from holdfast.agent.providers.registry import ProviderRegistry
from holdfast.core.catalogue import Agent, Command
from holdfast.core.clock import Clock
from holdfast.core.config import Config
from holdfast.core.errors import Invalid, NotFound
from holdfast.core.messages import MessageModel
from holdfast.core.session import SessionModel
from holdfast.service.agents import agents_of, commands_of, default_agent
from holdfast.service.projects import Place, checked_directory, find_place

_INSTANCES_MAX: Final = 256
_LOOK_AGAIN_MS: Final = 1000


class Configuration(Protocol):
    """`service.config.Configuration`. Reads files. Both raise Invalid, naming the file that is wrong, and answer the very
    same objects for as long as no file changes."""

    def config(self, directory: str, worktree: str) -> Config: ...

    def providers(self, directory: str, worktree: str) -> ProviderRegistry: ...


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """`path` is the directory relative to the project's root, "" for the root itself."""

    directory: str
    path: str
    place: Place
    config: Config
    registry: ProviderRegistry
    agents: Mapping[str, Agent]
    commands: tuple[Command, ...]

    def agent(self, name: str) -> Agent:
        """Raises Invalid for one that is not there."""
        agent = self.agents.get(name)
        if agent is None:
            known = ", ".join(sorted(agent.name for agent in self.agents.values() if not agent.hidden))
            raise Invalid(f'Agent not found: "{name[:64]}". Available agents: {known}', field="agent")
        return agent

    def check_model(self, provider_id: str, model_id: str) -> None:
        """Raises Invalid for one that is not there, with what is near."""
        try:
            self.registry.model(provider_id, model_id)
        except NotFound as unknown:
            raise Invalid(f"{unknown.message}. {unknown.hint or ''}".rstrip(), field="model") from None

    def default_agent(self) -> str:
        return default_agent(self.config, self.agents)

    def agent_for(self, wanted: str | None, last: str | None) -> Agent:
        """What answers a prompt: the agent it names, else the session's last (if it is still there), else the default.
        Raises Invalid if the one it names is not there."""
        if wanted is not None:
            return self.agent(wanted)
        return self.agents[last if last is not None and last in self.agents else self.default_agent()]

    def model_for(self, agent: Agent, last: SessionModel | None) -> MessageModel:
        """What answers a prompt that names no model: the agent's, else the session's last (if it is still there), else the
        default. Raises Invalid if that is not there."""
        if agent.model is not None:
            chosen = MessageModel(provider_id=agent.model.provider_id, model_id=agent.model.model_id)
        elif last is not None and self._has(last):
            return MessageModel(provider_id=last.provider_id, model_id=last.id, variant=last.variant)
        else:
            chosen = self.registry.default_model()
        self.check_model(chosen.provider_id, chosen.model_id)
        return chosen

    def _has(self, model: SessionModel) -> bool:
        try:
            self.registry.model(model.provider_id, model.id)
        except NotFound:
            return False
        return True


class Instances:
    """`default_directory` is what a request means that names none; `tool_output` where tools leave long output. `disposed` is
    told of each directory whose instance is gone; it must not wait."""

    def __init__(self, default_directory: str, *, configuration: Configuration, clock: Clock, tool_output: str) -> None:
        self.default_directory = default_directory
        self._configuration = configuration
        self._clock = clock
        self._tool_output = tool_output
        self._known: dict[str, tuple[Instance, int]] = {}
        self._opening: dict[str, asyncio.Task[Instance]] = {}
        self._outdated: WeakSet[asyncio.Task[Instance]] = WeakSet()
        self.disposed: Callable[[str], None] = lambda directory: None

    async def open(self, directory: str | None = None) -> Instance:
        """Raises Invalid unless it is an existing directory given by an absolute path, with a readable configuration."""
        spelled = directory or self.default_directory
        known = self._known.get(spelled)
        if known is not None and self._clock.now_ms() < known[1] + _LOOK_AGAIN_MS and os.path.isdir(spelled):
            return known[0]
        return await self._open(spelled)

    def opened(self, directory: str) -> Instance | None:
        """The instance as it was last read, if it was."""
        known = self._known.get(directory)
        return known[0] if known is not None else None

    def look_again(self) -> None:
        """The next request reads every configuration anew, if it changed; what runs keeps what it has until then."""
        due_ms = self._clock.now_ms() - _LOOK_AGAIN_MS
        for spelled, (instance, looked_ms) in tuple(self._known.items()):
            self._known[spelled] = instance, min(looked_ms, due_ms)

    def dispose(self, directory: str | None = None) -> None:
        """Forget one instance, or all: the next request makes it anew. What is being read just now may be of before the change
        for which it is disposed of: it serves those who wait for it, and nobody after them."""
        for being_read in tuple(self._opening) if directory is None else (directory,):
            opening = self._opening.pop(being_read, None)
            if opening is not None:
                self._outdated.add(opening)
        for spelled, (instance, _) in tuple(self._known.items()):
            if directory is None or instance.directory == directory:
                self._forget(spelled)

    def drop_idle(self, before_ms: int, *, keep: Collection[str]) -> None:
        """Forget those that nobody asked for since, but for those of the directories in `keep`."""
        for spelled, (instance, asked_ms) in tuple(self._known.items()):
            if asked_ms < before_ms and instance.directory not in keep:
                self._forget(spelled)

    async def _open(self, spelled: str) -> Instance:
        directory = checked_directory(spelled)
        opening = self._opening.get(directory)
        if opening is None:
            opening = self._opening[directory] = asyncio.create_task(self._read(directory))
            opening.add_done_callback(lambda done: self._was_read(directory, done))
        instance = await asyncio.shield(opening)
        if opening in self._outdated:
            return instance
        for name in {directory, spelled}:
            self._known.pop(name, None)
            self._known[name] = instance, self._clock.now_ms()
        while len(self._known) > _INSTANCES_MAX:
            self._forget(next(iter(self._known)))
        return instance

    def _was_read(self, directory: str, opening: asyncio.Task[Instance]) -> None:
        if self._opening.get(directory) is opening:
            del self._opening[directory]

    def _forget(self, spelled: str) -> None:
        instance, _ = self._known.pop(spelled)
        if not any(other.directory == instance.directory for other, _ in self._known.values()):
            self.disposed(instance.directory)

    async def _read(self, directory: str) -> Instance:
        last = self.opened(directory)
        place = last.place if last is not None else await find_place(directory)
        root = place.worktree if place.vcs else directory
        config = await asyncio.to_thread(self._configuration.config, directory, root)
        if last is not None and last.config is config:
            return last
        path = os.path.relpath(directory, place.worktree)
        return Instance(
            directory=directory,
            path="" if path == "." else path,
            place=place,
            config=config,
            registry=self._configuration.providers(directory, root),
            agents=agents_of(config, self._tool_output),
            commands=commands_of(config),
        )
