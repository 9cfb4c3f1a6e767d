"""`/api/*`: what waits for the user, files and running sessions in the words of OpenCode's second API, where that is a matter of
words. Its sessions and messages have another shape and are not served.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, QueryParameter

from holdfast.core.errors import NotFound
from holdfast.core.permissions import PermissionRequest
from holdfast.core.questions import QuestionRequest
from holdfast.core.wire import Wire
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.opencode.parameters import InstanceOfLocation, RequestId, SessionId, documented_second
from holdfast.server.opencode.requests import NO_REQUEST, PermissionAnswer, QuestionAnswers
from holdfast.server.opencode.second_api import Location, location_of
from holdfast.server.opencode.sessions import NO_SESSION
from holdfast.service.files import FOUND_MAX, FOUND_MAX_MAX, FileService, FileType
from holdfast.service.requests import PERMISSION, QUESTION, RequestService
from holdfast.service.sessions import SessionService
from holdfast.service.turns import TurnService

# --- shapes -----------------------------------------------------------------------------------------------------


class AskingTool(Wire):
    type: Literal["tool"]
    message_id: str
    call_id: str


class LocatedPermission(Wire):
    """`save` is what "always" would allow for good."""

    id: str
    session_id: str
    action: str
    resources: tuple[str, ...]
    save: tuple[str, ...]
    metadata: dict[str, Any]
    source: AskingTool | None = None


class LocatedPermissions(Wire):
    location: Location
    data: tuple[LocatedPermission, ...]


class LocatedQuestions(Wire):
    location: Location
    data: tuple[QuestionRequest, ...]


class SessionPermissions(Wire):
    data: tuple[LocatedPermission, ...]


class SessionPermission(Wire):
    data: LocatedPermission


class SessionQuestions(Wire):
    data: tuple[QuestionRequest, ...]


class Running(Wire):
    type: Literal["running"]


class ActiveSessions(Wire):
    data: dict[str, Running]


class FileEntry(Wire):
    path: str
    type: FileType


class FileEntries(Wire):
    location: Location
    data: tuple[FileEntry, ...]


# --- routes -----------------------------------------------------------------------------------------------------


def second_api_request_routes(
    requests: RequestService, sessions: SessionService, turns: TurnService, files: FileService
) -> Sequence[HTTPRouteHandler]:
    missing: dict[str, Any] = {"missing": NO_REQUEST}

    @get("/api/permission/request", summary="Permission requests that wait", **documented_second(LocatedPermissions))
    async def permissions(located: InstanceOfLocation) -> Response[bytes]:
        found = tuple(map(_permission, await requests.permissions(located.directory)))
        return answer(LocatedPermissions(location=location_of(located), data=found))

    @get("/api/question/request", summary="Questions that wait", **documented_second(LocatedQuestions))
    async def questions(located: InstanceOfLocation) -> Response[bytes]:
        found = await requests.questions(located.directory)
        return answer(LocatedQuestions(location=location_of(located), data=found))

    @get(
        "/api/session/{sessionID:str}/permission",
        summary="Permission requests of a session that wait",
        **documented_second(SessionPermissions, missing=NO_SESSION),
    )
    async def session_permissions(session_id: SessionId) -> Response[bytes]:
        return answer(SessionPermissions(data=tuple(map(_permission, await permissions_of(session_id)))))

    @get(
        "/api/session/{sessionID:str}/permission/{requestID:str}",
        summary="A permission request that waits",
        **documented_second(SessionPermission, **missing),
    )
    async def session_permission(session_id: SessionId, request_id: RequestId) -> Response[bytes]:
        for request in await permissions_of(session_id):
            if request.id == request_id:
                return answer(SessionPermission(data=_permission(request)))
        raise NotFound(PERMISSION, request_id)

    @post(
        "/api/session/{sessionID:str}/permission/{requestID:str}/reply",
        summary="Reply to a permission request",
        dto=JsonBody[PermissionAnswer],
        **documented_second(None, status=204, **missing),
    )
    async def reply(session_id: SessionId, request_id: RequestId, data: JSONBody[PermissionAnswer]) -> None:
        await sessions.get(session_id)
        await requests.reply_permission(request_id, data.reply, data.message, session_id=session_id)

    @get(
        "/api/session/{sessionID:str}/question",
        summary="Questions of a session that wait",
        **documented_second(SessionQuestions, missing=NO_SESSION),
    )
    async def session_questions(session_id: SessionId) -> Response[bytes]:
        return answer(SessionQuestions(data=await questions_of(session_id)))

    @post(
        "/api/session/{sessionID:str}/question/{requestID:str}/reply",
        summary="Answer a question",
        dto=JsonBody[QuestionAnswers],
        **documented_second(None, status=204, **missing),
    )
    async def answer_question(session_id: SessionId, request_id: RequestId, data: JSONBody[QuestionAnswers]) -> None:
        await check_question(session_id, request_id)
        await requests.answer_question(request_id, data.answers)

    @post(
        "/api/session/{sessionID:str}/question/{requestID:str}/reject",
        summary="Dismiss a question",
        **documented_second(None, status=204, **missing),
    )
    async def reject_question(session_id: SessionId, request_id: RequestId) -> None:
        await check_question(session_id, request_id)
        await requests.reject_question(request_id)

    @get("/api/session/active", summary="Sessions with a turn that runs", **documented_second(ActiveSessions))
    async def active() -> Response[bytes]:
        running = {session_id: Running(type="running") for session_id in await turns.running()}
        return answer(ActiveSessions(data=running))

    @post(
        "/api/session/{sessionID:str}/interrupt",
        summary="Stop the running turn",
        **documented_second(None, status=204, missing=NO_SESSION),
    )
    async def interrupt(session_id: SessionId) -> None:
        await turns.abort(session_id)

    @get(
        "/api/fs/list",
        summary="Entries of a directory",
        **documented_second(FileEntries, missing="There is no such directory."),
    )
    async def list_files(
        located: InstanceOfLocation, path: Annotated[str, QueryParameter(name="path")] = ""
    ) -> Response[bytes]:
        found = tuple(FileEntry(path=node.path, type=node.type) for node in await files.list(located.directory, path))
        return answer(FileEntries(location=location_of(located), data=found))

    @get(
        "/api/fs/find",
        summary="Files and directories by name",
        **documented_second(FileEntries, "The closest name first."),
    )
    async def find_files(
        located: InstanceOfLocation,
        wanted: Annotated[str, QueryParameter(name="query")],
        type: Annotated[FileType | None, QueryParameter(name="type")] = None,
        limit: Annotated[int, QueryParameter(name="limit", ge=1, le=FOUND_MAX_MAX)] = FOUND_MAX,
    ) -> Response[bytes]:
        names = await files.find_files(located.directory, wanted, type=type, dirs=True, limit=limit)
        found = tuple(FileEntry(path=name, type="directory" if name.endswith("/") else "file") for name in names)
        return answer(FileEntries(location=location_of(located), data=found))

    async def permissions_of(session_id: str) -> tuple[PermissionRequest, ...]:
        session = await sessions.get(session_id)
        return tuple(one for one in await requests.permissions(session.directory) if one.session_id == session_id)

    async def questions_of(session_id: str) -> tuple[QuestionRequest, ...]:
        session = await sessions.get(session_id)
        return tuple(one for one in await requests.questions(session.directory) if one.session_id == session_id)

    async def check_question(session_id: str, request_id: str) -> None:
        """Raises NotFound unless it waits, and in that session."""
        if all(one.id != request_id for one in await questions_of(session_id)):
            raise NotFound(QUESTION, request_id)

    routes: list[Any] = [
        permissions,
        questions,
        session_permissions,
        session_permission,
        reply,
        session_questions,
        answer_question,
        reject_question,
        active,
        interrupt,
        list_files,
        find_files,
    ]
    return routes


def _permission(request: PermissionRequest) -> LocatedPermission:
    tool = request.tool
    return LocatedPermission(
        id=request.id,
        session_id=request.session_id,
        action=request.permission,
        resources=request.patterns,
        save=request.always,
        metadata=request.metadata,
        source=AskingTool(type="tool", message_id=tool.message_id, call_id=tool.call_id) if tool else None,
    )
