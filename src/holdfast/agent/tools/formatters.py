"""Programs that bring a file into shape after a tool changed it: those of the configuration (`formatter`), by the file's name.

What they do is for looks: one that fails, is missing or takes too long is logged, and the file stays as it left it. They are
owned like a tool's process (`processes`), and see no secrets of the server.
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog

from holdfast.agent.tools.conversations import LastWords, end, listen, path_of, uninterrupted
from holdfast.agent.tools.processes import Conversation, Processes
from holdfast.core.config import FormatterConfig

SECONDS_MAX: Final = 30.0
"""For all the formatters of a call."""

_FILE: Final = "$FILE"
_CHUNK_BYTES: Final = 64 * 1024

log = structlog.get_logger()


class Formatters:
    """`configured` tells those of a directory, by name."""

    def __init__(
        self,
        processes: Processes,
        configured: Callable[[str], Mapping[str, FormatterConfig]],
        *,
        seconds_max: float = SECONDS_MAX,
    ) -> None:
        self._processes = processes
        self._configured = configured
        self._seconds_max = seconds_max

    def take(self, directory: Path, path: str) -> bool:
        """Whether one is for this file."""
        return any(_is_for(config, path) for config in self._configured(str(directory)).values())

    async def run(self, directory: Path, paths: list[str]) -> None:
        """All that are for these files, one after the other. When cancelled, ends the one that runs first."""
        formatters = self._configured(str(directory))
        name = ""
        try:
            async with asyncio.timeout(self._seconds_max):
                for path in paths:
                    for name, config in formatters.items():
                        if _is_for(config, path):
                            await self._run(name, config, directory, path)
        except TimeoutError:
            log.warning("formatter.failed", formatter=name, reason=f"it took more than {self._seconds_max:g} seconds")

    async def _run(self, name: str, config: FormatterConfig, directory: Path, path: str) -> None:
        command = [word.replace(_FILE, path) for word in config.command or ()]
        variables = config.environment or {}
        program = path_of(command[0], directory, variables)
        if program is None:
            log.warning("formatter.failed", formatter=name, reason="there is no such program")
            return
        try:
            talk = await self._processes.converse(
                program,
                command[1:],
                directory=directory,
                variables=variables,
                id=f"fmt_{secrets.token_hex(8)}",
                line_max=_CHUNK_BYTES,
            )
        except (OSError, ValueError) as error:
            log.warning("formatter.failed", formatter=name, reason=f"it cannot be started ({type(error).__name__})")
            return
        tasks = (
            asyncio.create_task(_discard(talk)),
            asyncio.create_task(listen(talk, LastWords(lambda line: None))),  # which may say anything
        )
        try:
            talk.stdin.close()
            await talk.process.wait()
        finally:
            await uninterrupted(end(talk, tasks))
        if talk.process.status != 0:
            log.warning("formatter.failed", formatter=name, reason=f"exit status {talk.process.status}", file=path)


def is_there(config: FormatterConfig, directory: str) -> bool:
    """Whether its program is."""
    if not config.command or not config.command[0]:
        return False
    return path_of(config.command[0], Path(directory), config.environment or {}) is not None


def _is_for(config: FormatterConfig, path: str) -> bool:
    return (
        bool(config.command and config.command[0])
        and not config.disabled
        and os.path.splitext(path)[1] in (config.extensions or ())
    )


async def _discard(talk: Conversation) -> None:
    while await talk.stdout.read(_CHUNK_BYTES):
        pass
