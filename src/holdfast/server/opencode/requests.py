"""`/permission`, `/question`: what waits for the user, and the replies."""

from collections.abc import Sequence
from typing import Any

from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from holdfast.core.permissions import PermissionReply, PermissionRequest
from holdfast.core.questions import QuestionRequest
from holdfast.core.wire import Wire
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.errors import TaggedError
from holdfast.server.opencode.parameters import InstanceOfRequest, RequestId, SessionId, documented
from holdfast.service.requests import RequestService

NO_REQUEST = "There is no such request, or its turn is over."


class PermissionAnswer(Wire):
    """`message` tells the model what to do instead, when rejected."""

    reply: PermissionReply
    message: str | None = None


class OldPermissionAnswer(Wire):
    response: PermissionReply


class QuestionAnswers(Wire):
    """One list of labels per question."""

    answers: tuple[tuple[str, ...], ...]


def request_routes(requests: RequestService) -> Sequence[HTTPRouteHandler]:
    @get("/permission", summary="Permission requests that wait", **documented(list[PermissionRequest]))
    async def list_permissions(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await requests.permissions(instance.directory))

    @post(
        "/permission/{requestID:str}/reply",
        summary="Reply to a permission request",
        dto=JsonBody[PermissionAnswer],
        **documented(bool, missing=NO_REQUEST, missing_shape=TaggedError),
    )
    async def reply_permission(request_id: RequestId, data: JSONBody[PermissionAnswer]) -> Response[bytes]:
        await requests.reply_permission(request_id, data.reply, data.message)
        return answer(True)

    @post(
        "/session/{sessionID:str}/permissions/{requestID:str}",
        summary="Reply to a permission request (old form)",
        dto=JsonBody[OldPermissionAnswer],
        **documented(bool, missing=NO_REQUEST, missing_shape=TaggedError),
    )
    async def reply_permission_of_session(
        session_id: SessionId, request_id: RequestId, data: JSONBody[OldPermissionAnswer]
    ) -> Response[bytes]:
        await requests.reply_permission(request_id, data.response, session_id=session_id)
        return answer(True)

    @get("/question", summary="Questions that wait", **documented(list[QuestionRequest]))
    async def list_questions(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(await requests.questions(instance.directory))

    @post(
        "/question/{requestID:str}/reply",
        summary="Answer a question",
        dto=JsonBody[QuestionAnswers],
        **documented(bool, missing=NO_REQUEST, missing_shape=TaggedError),
    )
    async def answer_question(request_id: RequestId, data: JSONBody[QuestionAnswers]) -> Response[bytes]:
        await requests.answer_question(request_id, data.answers)
        return answer(True)

    @post(
        "/question/{requestID:str}/reject",
        summary="Dismiss a question",
        **documented(bool, missing=NO_REQUEST, missing_shape=TaggedError),
    )
    async def reject_question(request_id: RequestId) -> Response[bytes]:
        await requests.reject_question(request_id)
        return answer(True)

    routes: list[Any] = [
        list_permissions,
        reply_permission,
        reply_permission_of_session,
        list_questions,
        answer_question,
        reject_question,
    ]
    return routes
