"""What has to be tidied away so that nothing grows without limit (promise 10), beside the compaction of the log.

Rules
 1. In small pieces, so that whoever works hardly notices; each task on its own: one that fails is logged and tried again the
    next time, and stops neither the others nor the server.
 2. Nothing goes away that a client could still ask for, within the times written below.
 3. Time is the clock's, also for the age of files; but the age of snapshots is counted by git.
"""

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog

from holdfast.agent.snapshots import Snapshots
from holdfast.core.clock import Clock
from holdfast.core.errors import NotFound
from holdfast.core.store import SessionStore
from holdfast.service.instances import Instances

OUTPUT_KEPT_MS: Final = 7 * 24 * 3600 * 1000
"""How long a file with a tool's whole output is kept."""

KEYS_KEPT_MS: Final = 30 * 24 * 3600 * 1000
"""How long a retry of an append is known by its idempotency key."""

INSTANCE_IDLE_MS: Final = 30 * 60 * 1000

_FIRST_MS: Final = 5 * 60 * 1000
_DAY_MS: Final = 24 * 3600 * 1000
_LOOK_MS: Final = 10 * 60 * 1000
_KEYS_MAX: Final = 500
_PAUSE_MS: Final = 50

log = structlog.get_logger()


class Upkeep:
    """`run` for as long as the server runs. `tool_output` and `snapshots` are None where they are not this server's own."""

    def __init__(
        self,
        store: SessionStore,
        *,
        clock: Clock,
        instances: Instances,
        tool_output: Path | None,
        snapshots: Snapshots | None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._instances = instances
        self._tool_output = tool_output
        self._snapshots = snapshots

    async def run(self) -> None:
        """Idle instances every ten minutes; everything else some minutes after the start, and then once a day."""
        daily = self._clock.now_ms() + _FIRST_MS
        look = daily
        while True:
            await self._clock.sleep_until(min(look, daily))
            now = self._clock.now_ms()
            look, daily = min(look, now + _LOOK_MS), min(daily, now + _DAY_MS)  # from when the clock was far ahead
            if now >= look:
                look = now + _LOOK_MS
                await self._safely("instances", self.drop_idle_instances)
            if now >= daily:
                daily = now + _DAY_MS
                await self.tidy()

    async def tidy(self) -> None:
        """What is done once a day."""
        await self._safely("tool_output", self.remove_old_output)
        await self._safely("keys", self.forget_old_keys)
        if self._snapshots is not None:
            await self._safely("snapshots", self._snapshots.tidy)

    async def _safely(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:  # whatever it is: it must not end the server, and the next time may go better
            log.exception("upkeep.failed", task=task)

    async def drop_idle_instances(self) -> None:
        """Of directories that nobody asked for lately. One whose turn runs stays: it is the last configuration of that turn
        that could be read."""
        busy: set[str] = set()
        for session_id in await self._store.statuses():
            with contextlib.suppress(NotFound):  # deleted meanwhile
                busy.add((await self._store.session(session_id)).directory)
        self._instances.drop_idle(self._clock.now_ms() - INSTANCE_IDLE_MS, keep=busy)

    async def remove_old_output(self) -> None:
        """Files over the age, and all of sessions that were deleted."""
        if self._tool_output is None:
            return
        before = self._clock.now_ms() - OUTPUT_KEPT_MS
        for directory in await asyncio.to_thread(_directories, self._tool_output):
            if await self._is_deleted(directory.name):
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            else:
                await asyncio.to_thread(_remove_older, directory, before)

    async def _is_deleted(self, session_id: str) -> bool:
        try:
            await self._store.session(session_id)
        except NotFound:
            return True
        return False

    async def forget_old_keys(self) -> None:
        before = self._clock.now_ms() - KEYS_KEPT_MS
        while await self._store.forget_keys(before_ms=before, keys_max=_KEYS_MAX):
            await self._clock.sleep_until(self._clock.now_ms() + _PAUSE_MS)


def _directories(parent: Path) -> Sequence[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(parent) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return ()


def _remove_older(directory: Path, before_ms: int) -> None:
    """Of files that went away meanwhile, or that are not ours to remove, nothing is said."""
    for parent, _, names in os.walk(directory, topdown=False):
        for name in names:
            path = Path(parent, name)
            try:
                if path.lstat().st_mtime_ns < before_ms * 1_000_000:
                    path.unlink()
            except OSError:
                continue
        try:
            os.rmdir(parent)
        except OSError:
            continue  # something is left in it
