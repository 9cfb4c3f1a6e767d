"""`/session/{id}/…`: run a command, summarise, take back, copy, edit."""

from collections.abc import Sequence
from typing import Annotated, Any

from litestar import Response, delete, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter

from holdfast.core.messages import Part, WithParts
from holdfast.core.session import Session
from holdfast.server.bodies import JsonBody, answer, raw_answer
from holdfast.server.opencode.messages import NO_MESSAGE
from holdfast.server.opencode.parameters import MessageId, SessionId, documented
from holdfast.server.opencode.sessions import NO_SESSION
from holdfast.service.messages import message_json
from holdfast.service.operations import Fork, OperationService, Revert, Shell, Summarize

PartId = Annotated[str, PathParameter(name="partID", description="`prt_…`")]


def operation_routes(operations: OperationService) -> Sequence[HTTPRouteHandler]:
    @post(
        "/session/{sessionID:str}/shell",
        summary="Run a command",
        dto=JsonBody[Shell],
        **documented(WithParts, "The message with the tool call.", missing=NO_SESSION),
    )
    async def shell(session_id: SessionId, data: JSONBody[Shell]) -> Response[bytes]:
        return raw_answer(message_json(await operations.shell(session_id, data)))

    @post(
        "/session/{sessionID:str}/summarize",
        summary="Summarise the conversation",
        dto=JsonBody[Summarize],
        **documented(bool, "Summarised.", missing=NO_SESSION),
    )
    async def summarize(session_id: SessionId, data: JSONBody[Summarize]) -> Response[bytes]:
        await operations.summarize(session_id, data)
        return answer(True)

    @post(
        "/session/{sessionID:str}/revert",
        summary="Take back from a message on",
        dto=JsonBody[Revert],
        **documented(Session, "Files are as they were; the messages go with the next prompt.", missing=NO_MESSAGE),
    )
    async def revert(session_id: SessionId, data: JSONBody[Revert]) -> Response[bytes]:
        return answer(await operations.revert(session_id, data))

    @post(
        "/session/{sessionID:str}/unrevert",
        summary="Undo the taking back",
        **documented(Session, missing=NO_SESSION),
    )
    async def unrevert(session_id: SessionId) -> Response[bytes]:
        return answer(await operations.unrevert(session_id))

    @post(
        "/session/{sessionID:str}/fork",
        summary="Copy a conversation into a new session",
        dto=JsonBody[Fork],
        **documented(Session, "The new session.", missing=NO_MESSAGE),
    )
    async def fork(session_id: SessionId, data: JSONBody[Fork | None] = None) -> Response[bytes]:
        return answer(await operations.fork(session_id, data or Fork()))

    @post("/session/{sessionID:str}/share", summary="Share (needs a hub)", **documented(Session, missing=NO_SESSION))
    async def share(session_id: SessionId) -> Response[bytes]:
        return answer(operations.share(session_id))

    @delete(
        "/session/{sessionID:str}/share",
        summary="Stop sharing (needs a hub)",
        **documented(Session, missing=NO_SESSION),
    )
    async def unshare(session_id: SessionId) -> Response[bytes]:
        return answer(operations.share(session_id))

    @delete(
        "/session/{sessionID:str}/message/{messageID:str}",
        summary="Remove a message with its parts",
        **documented(bool, missing=NO_MESSAGE),
    )
    async def remove_message(session_id: SessionId, message_id: MessageId) -> Response[bytes]:
        await operations.remove_message(session_id, message_id)
        return answer(True)

    @delete(
        "/session/{sessionID:str}/message/{messageID:str}/part/{partID:str}",
        summary="Remove a part",
        **documented(bool, missing=NO_MESSAGE),
    )
    async def remove_part(session_id: SessionId, message_id: MessageId, part_id: PartId) -> Response[bytes]:
        await operations.remove_part(session_id, message_id, part_id)
        return answer(True)

    @patch(
        "/session/{sessionID:str}/message/{messageID:str}/part/{partID:str}",
        summary="Replace a part",
        dto=JsonBody[Part],
        **documented(Part, "The part as it is now.", missing=NO_MESSAGE),
    )
    async def replace_part(
        session_id: SessionId, message_id: MessageId, part_id: PartId, data: JSONBody[Part]
    ) -> Response[bytes]:
        return answer(await operations.replace_part(session_id, message_id, part_id, data))

    routes: list[Any] = [
        *(shell, summarize, revert, unrevert, fork, share, unshare),
        *(remove_message, remove_part, replace_part),
    ]
    return routes
