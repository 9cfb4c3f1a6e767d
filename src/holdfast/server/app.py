"""The server as one ASGI application: the gate, then event streams, then the typed routes.

Routes that carry streams are dispatched here, on the raw path; everything else by `routing`. What all routes share is in
this file: who may ask, cross-origin headers, HEAD, errors. Plain ASGI throughout, since each layer costs every request.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from litestar import Response, get

from holdfast import __version__
from holdfast.server.aisdk import chat_routes
from holdfast.server.asgi import JSON, App, Header, HttpScope, Message, Receive, Send, respond
from holdfast.server.auth import CHALLENGE, Gate, Refusal
from holdfast.server.bodies import raw_answer
from holdfast.server.document import document
from holdfast.server.errors import SECOND_API, Answer, Refused, answer_to, named, tagged
from holdfast.server.opencode import (
    EventStreams,
    InstanceProvider,
    LocationProvider,
    PtySockets,
    typed_routes,
    unserved,
)
from holdfast.server.routing import Provider, Routes
from holdfast.server.streams import STREAM_ROOT, STREAM_SECURITY, StreamFace
from holdfast.service.services import Services

BODY_BYTES_MAX: Final = 8 * 1024 * 1024
HEARTBEAT_SECONDS: Final = 10.0

_WELCOME: Final = f"""\
Holdfast {__version__}

    opencode attach ADDRESS   the OpenCode TUI on this server
    holdfast run PROMPT       one turn in the terminal
    GET /doc                  every route
"""

_DOCUMENT: Final = "/doc"
_VARY: Final[Header] = (b"vary", b"Origin")


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    gate: Gate
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    body_bytes_max: int = BODY_BYTES_MAX


def create_app(services: Services, stream_face: StreamFace, options: ServerOptions) -> App:
    streams = EventStreams(
        services.events,
        services.instances,
        clock=services.clock,
        new_id=services.new_id,
        heartbeat_seconds=options.heartbeat_seconds,
    )
    services.ptys.announce = streams.announce_event
    services.mcp.announce = streams.announce_event
    services.lsp.announce = streams.announce_event
    services.worktrees.announce = streams.announce
    services.projects.announce = streams.announce
    handlers = [*typed_routes(services, streams), *chat_routes(services)]
    providers: dict[str, Provider] = {
        "instance": InstanceProvider(services.instances),
        "located": LocationProvider(services.instances),
    }
    made: list[bytes] = []

    @get(_DOCUMENT, include_in_schema=False)
    async def openapi() -> Response[bytes]:
        if not made:
            made.append(await asyncio.to_thread(document, handlers, providers))
        return raw_answer(made[0])

    typed = Routes([*handlers, _welcome, openapi], providers, body_bytes_max=options.body_bytes_max, otherwise=unserved)
    return _Server(options.gate, streams.apps(), stream_face, PtySockets(services.ptys), typed)


def routes() -> Sequence[tuple[str, str]]:
    """(method, path) of every route of the OpenCode face, as it is documented: `GET`, `/session/{sessionID}`."""
    nothing: Any = _Nothing()
    streams = EventStreams(nothing, nothing, clock=nothing, new_id=nothing, heartbeat_seconds=0)
    typed = [*typed_routes(nothing, streams), *chat_routes(nothing), _welcome]
    served = [(method, path) for route in typed for path in route.paths for method in sorted(route.http_methods)]
    return [("GET", _DOCUMENT), *((method, path.replace(":str}", "}")) for method, path in served)]


class _Nothing:
    """In place of services where routes are only listed."""

    def __getattr__(self, name: str) -> "_Nothing":
        return self


class _Server:
    def __init__(
        self, gate: Gate, streams: Mapping[bytes, App], stream_face: StreamFace, sockets: PtySockets, typed: Routes
    ) -> None:
        self._gate = gate
        self._streams = streams
        self._stream_face = stream_face
        self._sockets = sockets
        self._typed = typed

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        if scope["type"] != "http":
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refusal = self._gate.refuse_place(headers, scope["scheme"])
        if len(headers) != len(scope["headers"]) and _is_repeated(scope["headers"], b"host"):
            refusal = Refusal(400, "A request has one Host.")
        if refusal is not None:
            security = STREAM_SECURITY if scope["raw_path"].startswith(STREAM_ROOT) else ()
            await _refuse(scope, send, refusal, (_VARY, *security))
            return
        origin = headers.get(b"origin")
        common = (_VARY,) if origin is None else (_VARY, (b"access-control-allow-origin", origin))
        if scope["raw_path"].startswith(STREAM_ROOT):
            await self._durable(scope, headers, receive, _Answering(send, common, is_head=scope["method"] == "HEAD"))
            return
        if origin is not None and b"access-control-request-method" in headers and scope["method"] == "OPTIONS":
            await respond(send, 204, headers=(*common, *_preflight(headers)))
            return
        refusal = self._gate.refuse_stranger(headers, scope["query_string"])
        if refusal is None and (b"%00" in scope["query_string"] or b"%00" in scope.get("raw_path", b"")):
            refusal = Refusal(400, "NUL characters are nowhere part of a name.")
        if refusal is not None:
            await _refuse(scope, send, refusal, common)
            return
        await self._dispatch(scope, headers, receive, _Answering(send, common, is_head=scope["method"] == "HEAD"))

    async def _socket(self, scope: HttpScope, receive: Receive, send: Send) -> None:
        """A WebSocket is always a terminal's. Its ticket is as good as the password."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        refusal = self._gate.refuse_place(headers, "https" if scope["scheme"] == "wss" else "http")
        if refusal is not None:
            await self._sockets.refuse(scope, receive, send, _answer_of(refusal, scope))
            return
        is_known = self._gate.refuse_stranger(headers, scope["query_string"]) is None
        await self._sockets(scope, receive, send, is_known=is_known)

    async def _durable(
        self, scope: HttpScope, headers: Mapping[bytes, bytes], receive: Receive, send: "_Answering"
    ) -> None:
        """Durable Streams have words of their own for errors and preflights, and credentials besides the password."""
        refusal = self._gate.refuse_stranger(headers, scope["query_string"])
        if refusal is not None and scope["method"] != "OPTIONS" and not self._stream_face.vouches_for(scope, headers):
            await _refuse(scope, send, refusal, STREAM_SECURITY)
            return
        try:
            await self._stream_face(scope, headers, receive, send, is_known=refusal is None)
        except Exception as error:
            if send.started:
                raise
            answer = answer_to(error)
            await respond(send, answer.status, answer.json, [JSON, *STREAM_SECURITY])

    async def _dispatch(
        self, scope: HttpScope, headers: Mapping[bytes, bytes], receive: Receive, send: "_Answering"
    ) -> None:
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        stream = self._streams.get(raw_path)
        try:
            if stream is None:
                await self._typed(scope, headers, "GET" if send.is_head else scope["method"], receive, send)
            elif scope["method"] in ("GET", "HEAD"):
                await stream(scope, receive, send)
            elif scope["method"] == "OPTIONS":
                await respond(send, 204, headers=[(b"allow", b"GET, HEAD, OPTIONS")])
            else:
                answer = named(405, f"{scope['path']} is read with GET.")
                raise Refused(answer, [(b"allow", b"GET, HEAD, OPTIONS")])
        except Exception as error:
            if send.started:
                raise
            answer = answer_to(error, second_api=_is_second(scope))
            more = error.headers if isinstance(error, Refused) else ()
            await respond(send, answer.status, answer.json, [JSON, *more])


class _Answering:
    """`send` that adds the headers of every answer, and leaves out the body of an answer to HEAD."""

    __slots__ = ("_common", "_send", "is_head", "started")

    def __init__(self, send: Send, common: Sequence[Header], *, is_head: bool) -> None:
        self._send = send
        self._common = common
        self.is_head = is_head
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message["headers"], *self._common]
        elif self.is_head and message.get("body"):
            message["body"] = b""
        await self._send(message)


async def _refuse(scope: HttpScope, send: Send, refusal: Refusal, common: Sequence[Header]) -> None:
    if refusal.reason is not None:
        answer = _answer_of(refusal, scope)
        await respond(send, answer.status, answer.json, (*common, JSON))
    elif _is_second(scope):
        answer = tagged(named(refusal.status, "Authentication required"))
        await respond(send, answer.status, answer.json, (*common, JSON, CHALLENGE))
    else:
        await respond(send, refusal.status, headers=(*common, CHALLENGE))


def _answer_of(refusal: Refusal, scope: HttpScope) -> Answer:
    answer = named(refusal.status, refusal.reason or "")
    return tagged(answer) if _is_second(scope) else answer


def _is_second(scope: HttpScope) -> bool:
    return scope["path"].startswith(SECOND_API)


def _is_repeated(headers: Sequence[Header], wanted: bytes) -> bool:
    return sum(name == wanted for name, _ in headers) > 1


def _preflight(headers: Mapping[bytes, bytes]) -> Sequence[Header]:
    return [
        (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"")),
        (b"access-control-max-age", b"600"),
    ]


@get("/", include_in_schema=False)
async def _welcome() -> Response[str]:
    return Response(_WELCOME, media_type="text/plain")
