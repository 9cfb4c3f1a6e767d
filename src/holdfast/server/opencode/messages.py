"""`/session/{id}/message…`: prompts, and the messages of a session in pages."""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final, cast
from urllib.parse import parse_qsl, urlencode

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, QueryParameter
from litestar.types import Scope

from holdfast.core.codec import to_json
from holdfast.core.errors import Invalid
from holdfast.core.messages import WithParts
from holdfast.core.store import RawMessage
from holdfast.core.wire import Wire
from holdfast.server.asgi import App, HttpScope, streamed
from holdfast.server.bodies import JsonBody, raw_answer
from holdfast.server.opencode.parameters import LIMIT_MAX, MessageId, SessionId, documented
from holdfast.server.opencode.sessions import NO_SESSION
from holdfast.service.messages import MessageService, Prompt, message_json, raw_json
from holdfast.service.sessions import TIME_MAX

_PIECE_BYTES: Final = 256 * 1024

NO_MESSAGE = "There is no such session, or no such message in it."


def message_routes(messages: MessageService) -> Sequence[HTTPRouteHandler]:
    @get(
        "/session/{sessionID:str}/message",
        summary="Messages, oldest first",
        **documented(
            list[WithParts],
            "With `limit`, the newest; more are behind the `Link` and `x-next-cursor` headers.",
            missing=NO_SESSION,
        ),
    )
    async def list_messages(
        scope: Scope,
        session_id: SessionId,
        limit: Annotated[int | None, QueryParameter(ge=1, le=LIMIT_MAX)] = None,
        before: Annotated[str | None, QueryParameter(description="A cursor that an earlier page gave.")] = None,
    ) -> Response[bytes] | App:
        page = await messages.page(session_id, limit=limit, before=_version(before) if before is not None else None)
        headers: dict[str, str] = {}
        if page.more and page.messages:
            headers = _next_page(cast(HttpScope, scope), _cursor(page.messages[0]))
        if sum(len(part) for message in page.messages for part in message.parts) <= _PIECE_BYTES:
            return raw_answer(b"[%b]" % b",".join([raw_json(message) for message in page.messages]), headers=headers)
        named = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        return streamed(_pieces(page.messages), "application/json", named)

    @post(
        "/session/{sessionID:str}/message",
        summary="Prompt, and wait for the answer",
        dto=JsonBody[Prompt],
        **documented(WithParts, "The last message of the turn; with `noReply` the prompt itself.", missing=NO_SESSION),
    )
    async def prompt(session_id: SessionId, data: JSONBody[Prompt]) -> Response[bytes]:
        return raw_answer(message_json(await messages.prompt(session_id, data)))

    @post(
        "/session/{sessionID:str}/prompt_async",
        summary="Prompt, and go on at once",
        dto=JsonBody[Prompt],
        **documented(None, "Recorded; the turn shows in the events.", missing=NO_SESSION, status=204),
    )
    async def prompt_async(session_id: SessionId, data: JSONBody[Prompt]) -> None:
        await messages.prompt_async(session_id, data)

    @get(
        "/session/{sessionID:str}/message/{messageID:str}",
        summary="Get a message",
        **documented(WithParts, missing=NO_MESSAGE),
    )
    async def get_message(session_id: SessionId, message_id: MessageId) -> Response[bytes]:
        return raw_answer(to_json(await messages.get(session_id, message_id)))

    routes: list[Any] = [list_messages, prompt, prompt_async, get_message]
    return routes


async def _pieces(messages: Sequence[RawMessage]) -> AsyncIterator[bytes]:
    """The list, so much at a time: all of a long session in one piece would be 50 MB, and nobody served while it is made."""
    gathered: list[bytes] = []
    size = 0
    separator = b"["
    for message in messages:
        gathered += (separator, raw_json(message))
        separator = b","
        size += len(gathered[-1])
        if size >= _PIECE_BYTES:
            yield b"".join(gathered)
            gathered, size = [], 0
            await asyncio.sleep(0)  # where the client takes all at once, nothing else would wait
    yield b"".join((*gathered, b"]"))


# --- pages ------------------------------------------------------------------------------------------------------


class _Cursor(Wire):
    """What clients pass back. OpenCode's has `id` and `time`; `version` is what finds the place."""

    id: str
    time: int
    version: Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX)]


class _Created(Wire):
    created: int


class _Timed(Wire):
    time: _Created


_cursor_decoder = msgspec.json.Decoder(_Cursor)
_timed_decoder = msgspec.json.Decoder(_Timed)


def _cursor(oldest: RawMessage) -> str:
    created = _timed_decoder.decode(oldest.info).time.created
    cursor = to_json(_Cursor(id=oldest.id, time=created, version=oldest.version))
    return base64.urlsafe_b64encode(cursor).decode().rstrip("=")


def _version(cursor: str) -> int:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return _cursor_decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True)).version
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise Invalid("Not a cursor of this server.", field="before", hint="Use the one of the page before.") from None


def _next_page(scope: HttpScope, cursor: str) -> dict[str, str]:
    query = [
        (name, value)
        for name, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        if name not in ("before", "auth_token")
    ]
    host = dict[bytes, bytes](scope["headers"]).get(b"host", b"").decode("latin-1")
    url = f"{scope['scheme']}://{host}{scope['path']}"
    return {
        "Access-Control-Expose-Headers": "Link, X-Next-Cursor",
        "Link": f'<{url}?{urlencode([*query, ("before", cursor)])}>; rel="next"',
        "X-Next-Cursor": cursor,
    }
