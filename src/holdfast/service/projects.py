"""Which project a directory belongs to: the git work tree around it, named by its first commit; else `global`.

The name is the same for every clone and every work tree of a repository, and stays when the directory moves.
"""

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from holdfast.agent.git import Git
from holdfast.core.catalogue import Project, ProjectSummary, ProjectTime
from holdfast.core.clock import Clock
from holdfast.core.codec import to_json
from holdfast.core.errors import Invalid, NotFound, Unavailable
from holdfast.core.store import SessionStore
from holdfast.core.wire import Wire
from holdfast.service.project_details import ProjectChange, ProjectDetails

GLOBAL: Final = "global"
_GIT_SECONDS_MAX: Final = 5.0
_COMMIT: Final = re.compile(r"[0-9a-f]{40,64}")


class Place(msgspec.Struct, frozen=True):
    """The project of a directory. `worktree` is the root of the work tree, `/` outside of git. A repository without a
    commit has no name yet, so it is `global` too, with its own work tree."""

    id: str
    worktree: str
    vcs: Literal["git"] | None = None


def checked_directory(text: str) -> str:
    """The directory without links, `..` and the like, as sessions record it. Raises Invalid unless it is one, given by
    an absolute path."""
    _check_path(text)
    try:
        directory = os.path.realpath(text, strict=True)
    except FileNotFoundError:
        raise Invalid(f"There is no directory {text[:200]!r}", field="directory") from None
    except (OSError, ValueError):  # a loop of links, no right to look, a name too long, bytes that are no name
        raise Invalid(f"The directory {text[:200]!r} cannot be opened", field="directory") from None
    if not os.path.isdir(directory):
        raise Invalid(f"Not a directory: {text[:200]!r}", field="directory")
    return directory


def named_directory(text: str) -> str:
    """The same of one that need not be there (any more). Raises Invalid unless it is an absolute path."""
    _check_path(text)
    try:
        return os.path.realpath(text)
    except (OSError, ValueError):
        raise Invalid(f"The directory {text[:200]!r} cannot be opened", field="directory") from None


def _check_path(text: str) -> None:
    if "\0" in text or len(text) > 4096:
        raise Invalid("A directory is a path of at most 4096 characters without NUL.", field="directory")
    if not os.path.isabs(text):
        raise Invalid(f"The directory must be an absolute path, got {text[:200]!r}", field="directory")


def worktree_of(directory: str) -> str | None:
    """The nearest parent with a `.git` (a directory, or a file in a linked work tree); None outside of git."""
    path = Path(directory)
    for candidate in (path, *path.parents):
        if (candidate / ".git").exists():
            return str(candidate)
    return None


async def find_place(directory: str) -> Place:
    """Asks git once; keep the answer."""
    worktree = worktree_of(directory)
    if worktree is None:
        return Place(id=GLOBAL, worktree="/")
    return Place(id=await _first_commit(worktree) or GLOBAL, worktree=worktree, vcs="git")


async def _first_commit(worktree: str) -> str | None:
    git = Git(directory=worktree)
    try:
        ended = await git.run("rev-list", "--max-parents=0", "HEAD", accept=range(256), seconds_max=_GIT_SECONDS_MAX)
    except Unavailable:  # no git, or it takes too long
        return None
    commits = sorted(ended.output.decode("ascii", "replace").split())
    return commits[0] if ended.status == 0 and commits and _COMMIT.fullmatch(commits[0]) else None


class _DirectoriesUpdated(Wire):
    project_id: str


class ProjectService:
    """The projects that sessions were made in. `announce` tells those who follow a directory what changed: (directory, type of
    the event, its properties as JSON)."""

    def __init__(self, store: SessionStore, clock: Clock, details: ProjectDetails) -> None:
        self.announce: Callable[[str, str, bytes], None] = lambda directory, kind, properties: None
        self._store = store
        self._clock = clock
        self._details = details
        self._directories: set[tuple[str, str]] | None = None

    async def all(self) -> tuple[Project, ...]:
        """Newest use first; a project that has several work trees here is listed with the one used last, and its others
        as `sandboxes`."""
        found: dict[str, Project] = {}
        for known in sorted(await self._store.directories(), key=lambda known: known.updated, reverse=True):
            worktree = worktree_of(known.directory)
            root = worktree or "/"
            project = found.get(known.project_id)
            if project is None:
                found[known.project_id] = Project(
                    id=known.project_id,
                    worktree=root,
                    vcs="git" if worktree else None,
                    time=ProjectTime(created=known.created, updated=known.updated),
                    sandboxes=(),
                )
            else:
                is_new = root != project.worktree and root not in project.sandboxes and project.id != GLOBAL
                found[known.project_id] = replace(
                    project,
                    time=replace(project.time, created=min(project.time.created, known.created)),
                    sandboxes=(*project.sandboxes, root) if is_new else project.sandboxes,
                )
        return tuple(map(self._details.added_to, found.values()))

    async def change(self, project_id: str, change: ProjectChange, place: Place) -> Project:
        """Raises NotFound unless it is the project of the place, or has sessions."""
        if project_id != place.id and all(project.id != project_id for project in await self.all()):
            raise NotFound("Project", project_id)
        await self._details.change(project_id, change)
        if project_id == place.id:
            return await self.current(place)
        return next(project for project in await self.all() if project.id == project_id)

    async def summaries(self) -> dict[str, ProjectSummary]:
        """Of each project that sessions were made in, by its id. What is outside of projects has no one root."""
        return {
            project.id: ProjectSummary(
                id=project.id, name=project.name, worktree="/" if project.id == GLOBAL else project.worktree
            )
            for project in await self.all()
        }

    async def current(self, place: Place) -> Project:
        """The project of a directory, whether it has sessions or not."""
        for project in await self.all():
            if project.id == place.id:
                return replace(project, worktree=place.worktree, vcs=place.vcs)
        now = self._clock.now_ms()
        return self._details.added_to(
            Project(
                id=place.id,
                worktree=place.worktree,
                vcs=place.vcs,
                time=ProjectTime(created=now, updated=now),
                sandboxes=(),
            )
        )

    async def directories(self, project_id: str, place: Place, directory: str) -> tuple[str, ...]:
        """Where sessions of the project work, without what is gone; if there are none yet, the directory that asks, if it is one
        of the project. Raises NotFound for any other project without sessions."""
        found = [known.directory for known in await self._store.directories() if known.project_id == project_id]
        if not found and project_id != place.id:
            raise NotFound("Project", project_id)
        return await asyncio.to_thread(lambda: tuple(filter(os.path.isdir, found or [directory])))

    async def look(self) -> None:
        """Know where sessions work already. Before one is made: `entered` tells what is new by it."""
        if self._directories is None:
            known = await self._store.directories()
            if self._directories is None:
                self._directories = {(directory.project_id, directory.directory) for directory in known}

    def entered(self, project_id: str, directory: str) -> None:
        """A session was made there. The first directory of a project was in its list before."""
        assert self._directories is not None
        if (project_id, directory) not in self._directories:
            is_further = any(known == project_id for known, _ in self._directories)
            self._directories.add((project_id, directory))
            if is_further:
                self.changed(project_id, directory)

    def changed(self, project_id: str, directory: str) -> None:
        """The directories of the project are others now."""
        self.announce(directory, "project.directories.updated", to_json(_DirectoriesUpdated(project_id=project_id)))


class Locations(msgspec.Struct, frozen=True, kw_only=True):
    """Where the user's and our own files are, as absolute paths."""

    home: str
    state: str
    config: str
