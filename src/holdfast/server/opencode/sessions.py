"""`/session…`: sessions as a whole."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Response, delete, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, QueryParameter

from holdfast.core.catalogue import GlobalSession
from holdfast.core.session import FileDiff, Session, SessionStatus, Todo
from holdfast.core.store import SessionPage
from holdfast.server.bodies import JsonBody, answer, list_answer, raw_answer
from holdfast.server.opencode.parameters import LIMIT_MAX, InstanceOfRequest, SessionId, documented
from holdfast.service.sessions import (
    LIST_LIMIT,
    TIME_MAX,
    GlobalFilter,
    NewSession,
    SessionFilter,
    SessionPatch,
    SessionService,
)
from holdfast.service.turns import TurnService

NO_SESSION = "There is no such session."


PAGE = "Newest update first; `x-next-cursor` is there when there are more."

CursorQuery = Annotated[
    float | None,
    QueryParameter(ge=0, le=TIME_MAX, description="Updated before, in ms: the `x-next-cursor` of the page before."),
]
SearchQuery = Annotated[
    str | None, QueryParameter(description="Words of the title, or of a text of the conversation, in any letter case.")
]


def session_routes(sessions: SessionService, turns: TurnService) -> Sequence[HTTPRouteHandler]:
    @get("/session", summary="List sessions", **documented(list[Session], PAGE))
    async def list_sessions(
        instance: InstanceOfRequest,
        scope_name: Annotated[
            str | None, QueryParameter(name="scope", description="`project`: of all its directories.")
        ] = None,
        path: Annotated[str | None, QueryParameter(description="Directory relative to the project's root.")] = None,
        roots: Annotated[bool, QueryParameter(description="Leave out child sessions.")] = False,
        start: Annotated[int | None, QueryParameter(ge=0, le=TIME_MAX, description="Updated since, in ms.")] = None,
        cursor: CursorQuery = None,
        search: SearchQuery = None,
        limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)] = LIST_LIMIT,
    ) -> Response[bytes]:
        filter = SessionFilter(
            path=path,
            project=scope_name == "project",
            roots=roots,
            start=start,
            cursor=cursor,
            search=search,
            limit=limit,
        )
        return _page_answer(await sessions.list(instance, filter))

    @get("/experimental/session", summary="Sessions of all directories", **documented(list[GlobalSession], PAGE))
    async def all_sessions(
        directory: Annotated[str | None, QueryParameter(description="Only those of this one.")] = None,
        roots: Annotated[bool, QueryParameter(description="Leave out child sessions.")] = False,
        start: Annotated[int | None, QueryParameter(ge=0, le=TIME_MAX, description="Updated since, in ms.")] = None,
        cursor: CursorQuery = None,
        search: SearchQuery = None,
        archived: Annotated[bool, QueryParameter(description="Archived ones too.")] = False,
        limit: Annotated[int, QueryParameter(ge=1, le=LIMIT_MAX)] = LIST_LIMIT,
    ) -> Response[bytes]:
        filter = GlobalFilter(
            directory=directory,
            roots=roots,
            start=start,
            cursor=cursor,
            search=search,
            archived=archived,
            limit=limit,
        )
        return _page_answer(await sessions.everywhere(filter))

    @post(
        "/session",
        summary="Create a session",
        dto=JsonBody[NewSession],
        **documented(Session, missing="No such parent."),
    )
    async def create_session(instance: InstanceOfRequest, data: JSONBody[NewSession | None] = None) -> Response[bytes]:
        return answer(await sessions.create(instance, data or NewSession()))

    @get(
        "/session/status",
        summary="Sessions that are busy",
        **documented(dict[str, SessionStatus], "By session id; idle ones are not in it."),
    )
    async def session_statuses(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await sessions.statuses(instance))

    @get("/session/{sessionID:str}", summary="Get a session", **documented(Session, missing=NO_SESSION))
    async def get_session(session_id: SessionId) -> Response[bytes]:
        return answer(await sessions.get(session_id))

    @patch(
        "/session/{sessionID:str}",
        summary="Change title, metadata or permissions, or archive it",
        dto=JsonBody[SessionPatch],
        **documented(Session, missing=NO_SESSION),
    )
    async def patch_session(session_id: SessionId, data: JSONBody[SessionPatch]) -> Response[bytes]:
        return answer(await sessions.patch(session_id, data))

    @delete(
        "/session/{sessionID:str}",
        summary="End its turn, and delete it with its children",
        **documented(bool, missing=NO_SESSION),
    )
    async def delete_session(session_id: SessionId) -> Response[bytes]:
        await sessions.delete(session_id)
        return answer(True)

    @get("/session/{sessionID:str}/children", summary="Child sessions", **documented(list[Session], missing=NO_SESSION))
    async def session_children(session_id: SessionId) -> Response[bytes]:
        return list_answer(await sessions.children(session_id))

    @get("/session/{sessionID:str}/todo", summary="The todo list", **documented(list[Todo], missing=NO_SESSION))
    async def session_todos(session_id: SessionId) -> Response[bytes]:
        return answer(await sessions.todos(session_id))

    @get("/session/{sessionID:str}/diff", summary="Changes to files", **documented(list[FileDiff], missing=NO_SESSION))
    async def session_diff(
        session_id: SessionId,
        message_id: Annotated[
            str | None, QueryParameter(name="messageID", description="Of the turn that answers this prompt.")
        ] = None,
    ) -> Response[bytes]:
        return answer(await sessions.diff(session_id, message_id))

    @post(
        "/session/{sessionID:str}/abort",
        summary="Stop the running turn; queued prompts stay",
        **documented(bool, missing=NO_SESSION),
    )
    async def abort_session(session_id: SessionId) -> Response[bytes]:
        await turns.abort(session_id)
        return answer(True)

    routes: list[Any] = [
        list_sessions,
        all_sessions,
        create_session,
        session_statuses,
        get_session,
        patch_session,
        delete_session,
        session_children,
        session_todos,
        session_diff,
        abort_session,
    ]
    return routes


def _page_answer(page: SessionPage) -> Response[bytes]:
    headers = None
    if page.next is not None:
        headers = {"Access-Control-Expose-Headers": "X-Next-Cursor", "X-Next-Cursor": str(page.next)}
    return raw_answer(b"[%b]" % b",".join(page.sessions), headers=headers)
