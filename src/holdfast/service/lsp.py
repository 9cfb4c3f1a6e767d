"""Language servers of each directory: those of its configuration (`lsp`), started when somebody first looks for a symbol, a tool
reads or changes a file of their kinds, or a user attaches one.

They follow the configuration without a restart, and end with the directory's instance.
"""

import asyncio
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from holdfast.agent import search
from holdfast.agent.lsp.servers import ANSWER_SECONDS, LanguageServer
from holdfast.agent.tools import Processes
from holdfast.agent.tools.base import FileChange
from holdfast.agent.tools.diagnostics import FileErrors, joined
from holdfast.core.clock import Clock
from holdfast.core.config import LanguageServerConfig
from holdfast.core.errors import Unavailable
from holdfast.core.wire import Wire
from holdfast.core.workspace import LanguageServerStatus, Symbol
from holdfast.service.instances import Instance

_QUERY_CHARACTERS_MAX: Final = 4096


class LspUpdated(Wire):
    """How a language server is has changed: told to who is there, not recorded."""

    type: ClassVar[str] = "lsp.updated"


Announce = Callable[[str, LspUpdated], None]
"""Told (directory, what happened); must not wait."""


class LspService:
    """Is also the tools' port to them (`agent.tools.diagnostics.CodeChecks`). `opened` tells a directory's instance, if there is
    one."""

    def __init__(
        self,
        processes: Processes,
        *,
        clock: Clock,
        opened: Callable[[str], Instance | None],
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._processes = processes
        self._opened = opened
        self._clock = clock
        self._answer_seconds = answer_seconds
        self._places: dict[str, dict[str, LanguageServer]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.announce: Announce = lambda directory, event: None

    async def find_symbols(self, instance: Instance, query: str) -> tuple[Symbol, ...]:
        """What the servers of the directory know by that name, server by server."""
        servers = self._synced(instance)
        missing = [name for name in _wanted(instance) if name not in servers]
        if missing:
            names = await _names(instance.directory)
            servers = self._synced(instance)
            for name, config in _wanted(instance).items():
                if name not in servers and not self._is_closed and _has_work(config, names):
                    servers[name] = self._made(instance.directory, name, config)
            for server in servers.values():
                if not server.is_shown_files:  # some know nothing of a project before one of its files is open
                    server.show(_example(server.config, instance.directory, names))
        query = query[:_QUERY_CHARACTERS_MAX]
        found = await asyncio.gather(*(server.symbols(query) for server in servers.values()))
        return tuple(itertools.chain.from_iterable(found))

    def take(self, directory: Path, path: str) -> bool:
        instance = self._opened(str(directory))
        return instance is not None and any(_is_for(config, os.fsencode(path)) for config in _wanted(instance).values())

    def read(self, directory: Path, path: str) -> None:
        for server in self._for(directory, path):
            server.show([path])

    def attached(self, instance: Instance, paths: Sequence[str]) -> None:
        """A user attached these files, absolute and without links. Those in the project are opened, like what a tool reads."""
        roots = {instance.directory, instance.place.worktree} - {"/"}
        for path in paths:
            is_inside = path == os.path.normpath(path) and any(Path(root) in Path(path).parents for root in roots)
            if is_inside and self.take(Path(instance.directory), path):
                self.read(Path(instance.directory), path)

    async def changed(self, directory: Path, changes: Sequence[FileChange]) -> Mapping[str, FileErrors]:
        told: dict[LanguageServer, list[FileChange]] = {}
        for change in changes:
            for server in self._for(directory, change.path):
                told.setdefault(server, []).append(change)
        return joined(await asyncio.gather(*(server.check(its) for server, its in told.items()))) if told else {}

    def status(self, instance: Instance) -> tuple[LanguageServerStatus, ...]:
        """Of those that were asked, and have answered or failed to. Starts none."""
        return tuple(
            LanguageServerStatus(id=server.name, name=server.name, root="", status=server.status)
            for server in self._synced(instance).values()
            if server.status is not None
        )

    def dispose(self, directory: str) -> None:
        """The directory's instance is gone, and so are its servers, soon."""
        for server in self._places.pop(directory, {}).values():
            self._close(server)

    async def close(self) -> None:
        """The server stops. Returns when the programs of all servers are dead."""
        self._is_closed = True
        for directory in tuple(self._places):
            self.dispose(directory)
        await asyncio.gather(*self._closing)

    def _synced(self, instance: Instance) -> dict[str, LanguageServer]:
        """Those that were made, without what the configuration no longer wants."""
        if self._is_closed:
            return {}
        servers = self._places.setdefault(instance.directory, {})
        wanted = _wanted(instance)
        for name in tuple(servers):
            if servers[name].config != wanted.get(name):
                server = servers.pop(name)
                self._close(server)
                if server.status is not None:
                    self.announce(instance.directory, LspUpdated())
        return servers

    def _for(self, directory: Path, path: str) -> Sequence[LanguageServer]:
        """Those for this file, made if need be."""
        instance = self._opened(str(directory))
        if instance is None or self._is_closed:
            return ()
        servers = self._synced(instance)
        wanted = {key: config for key, config in _wanted(instance).items() if _is_for(config, os.fsencode(path))}
        for key, config in wanted.items():
            if key not in servers:
                servers[key] = self._made(instance.directory, key, config)
        return [servers[key] for key in wanted]

    def _made(self, directory: str, name: str, config: LanguageServerConfig) -> LanguageServer:
        return LanguageServer(
            name,
            config,
            directory=directory,
            processes=self._processes,
            clock=self._clock,
            changed=lambda: self.announce(directory, LspUpdated()),
            answer_seconds=self._answer_seconds,
        )

    def _close(self, server: LanguageServer) -> None:
        task = asyncio.create_task(server.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _wanted(instance: Instance) -> Mapping[str, LanguageServerConfig]:
    """Without a command it is one that OpenCode brings along; we bring none."""
    servers = instance.config.lsp
    if not isinstance(servers, dict):
        return {}
    return {name: config for name, config in servers.items() if config.command and not config.disabled}


async def _names(directory: str) -> tuple[bytes, ...] | None:
    """Of all files; None if it cannot be said."""
    try:
        return (await search.find_files(directory)).names
    except Unavailable:
        return None


def _has_work(config: LanguageServerConfig, names: tuple[bytes, ...] | None) -> bool:
    """Whether there is a file of its kinds."""
    return names is None or not config.extensions or any(_is_for(config, name) for name in names)


def _is_for(config: LanguageServerConfig, name: bytes) -> bool:
    """One that names no kinds takes all."""
    return not config.extensions or name.endswith(tuple(os.fsencode(extension) for extension in config.extensions))


def _example(config: LanguageServerConfig, directory: str, names: tuple[bytes, ...] | None) -> list[str]:
    """A file of its kinds, if it names some."""
    found = (name for name in names or () if config.extensions and _is_for(config, name))
    return [os.path.realpath(os.path.join(directory, os.fsdecode(name))) for name in itertools.islice(found, 1)]
