"""What a user can do with sessions as a whole."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec.structs import replace

from holdfast import __version__
from holdfast.core.clock import Clock
from holdfast.core.codec import to_json
from holdfast.core.errors import Conflict, Invalid, NotFound
from holdfast.core.events import Event, SessionCreated, SessionDeleted, SessionUpdated
from holdfast.core.ids import Prefix, check_id
from holdfast.core.messages import UserMessage
from holdfast.core.permissions import PermissionRule
from holdfast.core.reducer import Get
from holdfast.core.session import NO_TOKENS, FileDiff, Session, SessionModel, SessionStatus, SessionTime, Todo
from holdfast.core.state import SESSION
from holdfast.core.store import SessionPage, SessionQuery, SessionStore
from holdfast.core.wire import Wire
from holdfast.service.instances import Instance, Instances
from holdfast.service.projects import ProjectService, named_directory
from holdfast.service.slugs import new_slug
from holdfast.service.turns import TurnService

LIST_LIMIT: Final = 100
TIME_MAX: Final = (1 << 53) - 1
"""The largest time in ms that every client can hold."""

_TITLE_CHARACTERS_MAX: Final = 10_000


class NewSession(Wire):
    """`id` makes creation repeatable: a second request with it answers the session of the first."""

    id: str | None = None
    parent_id: str | None = None
    title: str | None = None
    agent: str | None = None
    model: SessionModel | None = None
    metadata: dict[str, Any] | None = None
    permission: tuple[PermissionRule, ...] | None = None
    workspace_id: str | None = None


class SessionTimePatch(Wire):
    """`archived` in ms; null takes the session out of the archive."""

    archived: Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX)] | msgspec.UnsetType | None = msgspec.UNSET


class SessionPatch(Wire):
    title: str | None = None
    metadata: dict[str, Any] | None = None
    permission: tuple[PermissionRule, ...] | None = None
    time: SessionTimePatch | None = None


class SessionFilter(Wire):
    """Updated at or after `start`, and before `cursor`. `path` is relative to the project's root; with `project`, the
    sessions of all its directories are meant."""

    path: str | None = None
    project: bool = False
    roots: bool = False
    start: int | None = None
    cursor: float | None = None
    search: str | None = None
    limit: int = LIST_LIMIT


class GlobalFilter(Wire):
    """Of every directory, unless one is given; with `archived`, archived ones too."""

    directory: str | None = None
    roots: bool = False
    start: int | None = None
    cursor: float | None = None
    search: str | None = None
    archived: bool = False
    limit: int = LIST_LIMIT


class SessionService:
    """`pick(n)` gives a random number in [0, n)."""

    def __init__(
        self,
        store: SessionStore,
        *,
        clock: Clock,
        new_id: Callable[[Prefix], str],
        pick: Callable[[int], int],
        instances: Instances,
        turns: TurnService,
        projects: ProjectService,
    ) -> None:
        self._projects = projects
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._pick = pick
        self._instances = instances
        self._turns = turns

    async def create(self, instance: Instance, request: NewSession) -> Session:
        """Raises Invalid for an unknown agent or model, NotFound for an unknown parent."""
        id = check_id("ses", request.id, "id") if request.id is not None else self._new_id("ses")
        if request.parent_id is not None:
            instance = await self._instances.open((await self.get(request.parent_id)).directory)
        if request.agent is not None:
            instance.agent(request.agent)
        if request.model is not None:
            instance.check_model(request.model.provider_id, request.model.id)
        now = self._clock.now_ms()
        session = Session(
            id=id,
            slug=new_slug(self._pick),
            version=__version__,
            project_id=instance.place.id,
            directory=instance.directory,
            path=instance.path,
            workspace_id=request.workspace_id,
            parent_id=request.parent_id,
            title=_title(request.title, now, is_child=request.parent_id is not None),
            agent=request.agent,
            model=request.model,
            cost=0,
            tokens=NO_TOKENS,
            metadata=request.metadata,
            permission=request.permission,
            time=SessionTime(created=now, updated=now),
        )
        await self._projects.look()
        appended = await self._append_new(session)
        if appended:
            self._projects.entered(session.project_id, session.directory)
        if appended and request.parent_id is not None:
            await self._check_parent(id, request.parent_id)
        return session if appended else await self._store.session(id)

    async def _append_new(self, session: Session) -> bool:
        try:
            appended = await self._store.append(session.id, [SessionCreated(session_id=session.id, info=session)])
        except NotFound:
            raise Conflict(f"Session {session.id} was deleted; its id cannot be used again.") from None
        return appended.recorded > 0

    async def _check_parent(self, session_id: str, parent_id: str) -> None:
        """A parent that was deleted while its child was made has not seen it: the child goes, too. Raises NotFound then."""
        try:
            await self._store.session(parent_id)
        except NotFound:
            with contextlib.suppress(NotFound):
                await self.delete(session_id)
            raise

    async def get(self, session_id: str) -> Session:
        return await self._store.session(check_session_id(session_id))

    async def list(self, instance: Instance, filter: SessionFilter) -> SessionPage:
        """Newest update first."""
        directory = instance.directory
        if filter.path is not None:
            directory = os.path.normpath(os.path.join(instance.place.worktree, filter.path))
        return await self._store.session_page(
            SessionQuery(
                directory=None if filter.project else directory,
                project_id=instance.place.id if filter.project else None,
                roots=filter.roots,
                updated_since=filter.start,
                updated_before=filter.cursor,
                search=filter.search,
                limit=filter.limit,
            )
        )

    async def everywhere(self, filter: GlobalFilter) -> SessionPage:
        """Newest update first, each with its project (`core.catalogue.GlobalSession`). Raises Invalid for a directory that is
        no absolute path; one that is gone may have left sessions."""
        page = await self._store.session_page(
            SessionQuery(
                directory=named_directory(filter.directory) if filter.directory else None,
                roots=filter.roots,
                updated_since=filter.start,
                updated_before=filter.cursor or None,
                archived=None if filter.archived else False,
                search=filter.search,
                limit=filter.limit,
            )
        )
        projects = {id: to_json(project) for id, project in (await self._projects.summaries()).items()}
        return SessionPage(tuple(_with_project(session, projects) for session in page.sessions), page.next)

    async def children(self, session_id: str) -> Sequence[bytes]:
        await self.get(session_id)
        return await self._store.sessions(SessionQuery(parent_id=session_id))

    async def statuses(self, instance: Instance) -> dict[str, SessionStatus]:
        """Of every session of the directory that is not idle."""
        return await self._store.statuses(instance.directory)

    async def todos(self, session_id: str) -> tuple[Todo, ...]:
        return await self._store.todos(check_session_id(session_id))

    async def diff(self, session_id: str, message_id: str | None) -> tuple[FileDiff, ...]:
        """What a prompt's turn did to files; without a prompt, what the session's summary has."""
        session = await self.get(session_id)
        if message_id is None:
            return (session.summary and session.summary.diffs) or ()
        info = (await self._store.message(session_id, check_id("msg", message_id, "messageID"))).info
        return info.summary.diffs if isinstance(info, UserMessage) and info.summary else ()

    async def patch(self, session_id: str, patch: SessionPatch) -> Session:
        """Change what is given, leave the rest. `time.updated` stays: it orders the list by conversation."""
        check_session_id(session_id)
        patched: list[Session] = []

        def decide(get: Get) -> Sequence[Event]:
            session = session_of(get, session_id)
            changed = _patched(session, patch)
            patched[:] = [changed]
            return [SessionUpdated(session_id=session_id, info=changed)] if changed != session else []

        await self._store.append(session_id, decide)
        return patched[0]

    async def delete(self, session_id: str) -> None:
        """End its turn, then delete it, and its children before it. Raises NotFound."""
        check_session_id(session_id)
        await self._turns.end_all(session_id)
        await self._delete_children(session_id)
        await self._store.append(
            session_id,
            lambda get: [SessionDeleted(session_id=session_id, info=_remembered(session_of(get, session_id)))],
        )
        await self._delete_children(
            session_id
        )  # those that were made meanwhile; who makes one now sees that it has no parent

    async def _delete_children(self, session_id: str) -> None:
        children = await self._store.sessions(SessionQuery(parent_id=session_id))
        ids = [msgspec.json.decode(child, type=Session).id for child in children]
        for outcome in await asyncio.gather(*(self.delete(id) for id in ids), return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, NotFound):
                raise outcome


class _OfProject(Wire):
    project_id: str


_of_project: Final = msgspec.json.Decoder(_OfProject)


def _with_project(session: bytes, projects: Mapping[str, bytes]) -> bytes:
    project = projects.get(_of_project.decode(session).project_id, b"null")
    return b'%b,"project":%b}' % (session[:-1], project)


def check_session_id(session_id: str) -> str:
    return check_id("ses", session_id, "sessionID")


def session_of(get: Get, session_id: str) -> Session:
    session = get(SESSION)
    if not isinstance(session, Session):
        raise NotFound("Session", session_id)
    return session


def _remembered(session: Session) -> Session:
    """What stays of a deleted session for ever is its last record: without the patches, which may be megabytes."""
    summary = replace(session.summary, diffs=None) if session.summary is not None else None
    revert = replace(session.revert, diff=None) if session.revert is not None else None
    return replace(session, summary=summary, revert=revert)


def _title(title: str | None, now_ms: int, *, is_child: bool) -> str:
    if title is not None:
        return _checked_title(title)
    moment = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return f"{'Child' if is_child else 'New'} session - {moment.replace('+00:00', 'Z')}"


def _checked_title(title: str) -> str:
    if len(title) > _TITLE_CHARACTERS_MAX:
        raise Invalid(f"A title has at most {_TITLE_CHARACTERS_MAX} characters.", field="title")
    return title


def _patched(session: Session, patch: SessionPatch) -> Session:
    changes: dict[str, Any] = {}
    if patch.title is not None:
        changes["title"] = _checked_title(patch.title)
    if patch.metadata is not None:
        changes["metadata"] = patch.metadata
    if patch.permission is not None:
        given = {(rule.permission, rule.pattern) for rule in patch.permission}  # of two alike, the last one counts
        kept = [rule for rule in session.permission or () if (rule.permission, rule.pattern) not in given]
        changes["permission"] = (*kept, *patch.permission)
    if patch.time is not None and not isinstance(patch.time.archived, msgspec.UnsetType):
        changes["time"] = replace(session.time, archived=patch.time.archived)
    return replace(session, **changes) if changes else session
