"""Further work trees of a project, for work side by side: each in a directory of ours, on a branch of its own.

They are git's own (`git worktree list` shows them), so nothing about them is kept here. What a client names is looked at
before anything happens to it: only what lies in our directory for the project is reset or removed, and only while no turn
works there. Nothing is fetched. A branch with commits that are nowhere else outlives its work tree.
"""

import asyncio
import contextlib
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from holdfast.agent.git import Git, GitFailed
from holdfast.agent.tools import Processes
from holdfast.core.codec import to_json
from holdfast.core.errors import Conflict, Invalid
from holdfast.core.store import SessionStore
from holdfast.core.wire import Wire
from holdfast.service.instances import Instance
from holdfast.service.projects import GLOBAL
from holdfast.service.slugs import new_slug
from holdfast.service.vcs import default_commit

Text = Annotated[str, msgspec.Meta(max_length=10_000)]

_NAME_LENGTH_MAX: Final = 60
_TRIES: Final = 20
_CHECKOUT_SECONDS_MAX: Final = 300.0
_BRANCHES: Final = "opencode/"
_UNSAID: Final = re.compile(r"[^a-z0-9]+")


class NewWorktree(Wire):
    """`start_command` is run in the new work tree by a shell, once it is there."""

    name: Text | None = None
    start_command: Text | None = None


class WorktreePlace(Wire):
    directory: str


class Worktree(Wire):
    name: str
    branch: str | None = None
    directory: str


class WorktreeReady(Wire):
    name: str
    branch: str


class WorktreeFailed(Wire):
    message: str


class WorktreeRefused(Invalid):
    """`name` is that of the error on the wire."""

    code = "worktree_refused"

    def __init__(self, name: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name


class WorktreeService:
    """`root` is where the work trees of all projects are. `announce` tells those who follow a directory what became of a
    start command: (directory, type of the event, its properties as JSON)."""

    def __init__(self, store: SessionStore, root: Path, processes: Processes, pick: Callable[[int], int]) -> None:
        self.announce: Callable[[str, str, bytes], None] = lambda directory, kind, properties: None
        self._store = store
        self._root = Path(os.path.realpath(root))
        self._processes = processes
        self._pick = pick
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._starting: set[asyncio.Task[None]] = set()

    async def list(self, instance: Instance) -> tuple[str, ...]:
        """Their directories; none outside of git."""
        return tuple(sorted(await self._ours(instance))) if instance.place.vcs else ()

    async def create(self, instance: Instance, wanted: NewWorktree) -> Worktree:
        """From the last commit of the directory that asks. Raises WorktreeRefused."""
        git = _git(instance)
        if await git.line("rev-parse", "--verify", "--quiet", "HEAD") is None:
            raise WorktreeRefused("WorktreeCreateFailedError", "The repository has no commit yet.")
        folder = self._folder(instance)
        async with self._locks[instance.place.id]:
            name = await self._free_name(git, folder, wanted.name)
            created = Worktree(name=name, branch=_BRANCHES + name, directory=str(folder / name))
            await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
            try:
                await git.run(
                    *("worktree", "add", "--quiet", "-b", _BRANCHES + name, created.directory, "HEAD"),
                    seconds_max=_CHECKOUT_SECONDS_MAX,
                )
            except GitFailed as error:
                raise WorktreeRefused("WorktreeCreateFailedError", error.message, hint=error.hint) from error
        if wanted.start_command and wanted.start_command.strip():
            starting = asyncio.create_task(self._start(instance.directory, created, wanted.start_command))
            self._starting.add(starting)
            starting.add_done_callback(self._starting.discard)
        else:
            self._ready(instance.directory, created)
        return created

    async def remove(self, instance: Instance, directory: str) -> str:
        """With everything in it that is not committed; answers where it was. Raises WorktreeRefused for a directory that is none
        of ours, Conflict while a turn works there. One that is gone already is no error."""
        git = _git(instance)
        async with self._locks[instance.place.id]:
            place = self._checked(instance, directory, "WorktreeRemoveFailedError")
            branch = (await self._ours(instance)).get(place)
            await self._check_idle(place)
            try:
                if branch is not None:
                    await git.run("worktree", "remove", "--force", "--force", place)
                await git.run("worktree", "prune")
            except GitFailed as error:
                raise WorktreeRefused("WorktreeRemoveFailedError", error.message, hint=error.hint) from error
            if branch and branch.startswith(_BRANCHES):
                with contextlib.suppress(GitFailed):  # it has commits that are nowhere else
                    await git.run("branch", "--quiet", "-d", branch)
            return place

    async def reset(self, instance: Instance, directory: str) -> None:
        """To the default branch as it is known here, without anything that is not committed, ignored files too. Raises
        WorktreeRefused, Conflict."""
        _git(instance)
        async with self._locks[instance.place.id]:
            place = self._checked(instance, directory, "WorktreeResetFailedError")
            if place not in await self._ours(instance):
                raise WorktreeRefused("WorktreeResetFailedError", "There is no such work tree.")
            await self._check_idle(place)
            git = Git(directory=place)
            target = await default_commit(git)
            if target is None:
                raise WorktreeRefused("WorktreeResetFailedError", "It is not known which branch is the default one.")
            try:
                await git.run("reset", "--quiet", "--hard", target, seconds_max=_CHECKOUT_SECONDS_MAX)
                await git.run("clean", "--quiet", "-ffdx", seconds_max=_CHECKOUT_SECONDS_MAX)
            except GitFailed as error:
                raise WorktreeRefused("WorktreeResetFailedError", error.message, hint=error.hint) from error

    def _folder(self, instance: Instance) -> Path:
        return self._root / instance.place.id

    def _checked(self, instance: Instance, directory: str, name: str) -> str:
        """Without links and `..`. Raises WorktreeRefused unless it is right below our directory for the project."""
        place = os.path.realpath(directory) if os.path.isabs(directory) and "\0" not in directory else ""
        if Path(place).parent != self._folder(instance):
            raise WorktreeRefused(
                name, "That is no work tree of this project.", hint="GET /experimental/worktree lists them."
            )
        return place

    async def _check_idle(self, place: str) -> None:
        for known in await self._store.directories():
            if Path(known.directory).is_relative_to(place) and await self._store.statuses(known.directory):
                raise Conflict("A turn works in this work tree: abort it first.")

    async def _ours(self, instance: Instance) -> dict[str, str]:
        """Directory → branch ("" for none) of those in our directory."""
        listed = await _git(instance).run("worktree", "list", "--porcelain", "-z")
        found: dict[str, str] = {}
        for block in listed.output.decode(errors="surrogateescape").split("\0\0"):
            fields: dict[str, str] = {}
            for line in block.split("\0"):
                key, _, value = line.partition(" ")
                fields[key] = value
            place = os.path.realpath(fields.get("worktree", ""))
            if Path(place).parent == self._folder(instance) and os.path.isdir(place):
                found[place] = fields.get("branch", "").removeprefix("refs/heads/")
        return found

    async def _free_name(self, git: Git, folder: Path, wanted: str | None) -> str:
        stem = _UNSAID.sub("-", (wanted or "").lower())[:_NAME_LENGTH_MAX].strip("-")
        name = stem or new_slug(self._pick)
        for _ in range(_TRIES):
            taken = await git.line("rev-parse", "--verify", "--quiet", f"refs/heads/{_BRANCHES}{name}")
            if taken is None and not (folder / name).exists():
                return name
            name = f"{stem}-{new_slug(self._pick)}" if stem else new_slug(self._pick)
        raise WorktreeRefused("WorktreeNameGenerationFailedError", "No free name was found.", hint="Choose another.")

    async def _start(self, directory: str, created: Worktree, command: str) -> None:
        """Run the start command to its end; its output is not kept."""
        try:
            process = await self._processes.start(
                shutil.which("bash") or "/bin/sh", command, directory=Path(created.directory), part_id=created.name
            )
        except (OSError, ValueError) as error:
            failed = f"The start command could not be run: {type(error).__name__}."
        else:
            process.open_gate()
            process.output.drop()
            await process.wait()
            failed = f"The start command ended with status {process.status}." if process.status else None
        if failed is None:
            self._ready(directory, created)
        else:
            self.announce(directory, "worktree.failed", to_json(WorktreeFailed(message=failed)))

    def _ready(self, directory: str, created: Worktree) -> None:
        properties = WorktreeReady(name=created.name, branch=created.branch or "")
        self.announce(directory, "worktree.ready", to_json(properties))


def _git(instance: Instance) -> Git:
    if not instance.place.vcs or instance.place.id == GLOBAL:
        reason = "The repository has no commit yet." if instance.place.vcs else "Work trees need a git repository."
        raise WorktreeRefused("WorktreeNotGitError", reason)
    return Git(directory=instance.place.worktree)
