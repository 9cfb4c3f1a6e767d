"""`/pty`: terminals, and the WebSocket that shows one.

A connection is first sent what was shown since its `cursor` (0 or none: all that is kept; -1: nothing), in text frames, then
a binary frame of a zero byte and `{"cursor": N}`, then what comes, in text frames. A client that adds the length of each
text to the cursor can come back with it. What it sends is typed. The connection closes with the program.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final
from urllib.parse import parse_qs

from litestar import Response, delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody, PathParameter, QueryParameter

from holdfast.core.errors import Denied, Invalid
from holdfast.core.workspace import Pty, PtyTicket, Shell
from holdfast.server.asgi import JSON, HttpScope, Receive, Send
from holdfast.server.bodies import JsonBody, answer
from holdfast.server.errors import SECOND_API, Answer, TaggedError, answer_to
from holdfast.server.opencode.parameters import InstanceOfRequest, documented
from holdfast.service.pty import Connection, NewPty, PtyPatch, PtyService

PtyId = Annotated[str, PathParameter(name="ptyID", description="`pty_…`")]
NO_PTY: Final = "There is no such terminal."

_CONNECT: Final = re.compile(r"(?:/api)?/pty/([^/]+)/connect/?")
_FRAME_UNITS_MAX: Final = 64 * 1024
_CURSOR: Final = re.compile(r"-1|[0-9]{1,15}")


def pty_routes(ptys: PtyService) -> Sequence[HTTPRouteHandler]:
    missing: Mapping[str, Any] = {"missing": NO_PTY, "missing_shape": TaggedError}

    @get("/pty/shells", summary="Shells of this machine", **documented(list[Shell]))
    async def shells() -> Response[bytes]:
        return answer(ptys.shells())

    @get("/pty", summary="Terminals that run", **documented(list[Pty]))
    async def list_ptys(instance: InstanceOfRequest) -> Response[bytes]:
        return answer(ptys.list(instance.directory))

    @post("/pty", summary="Open a terminal", dto=JsonBody[NewPty], **documented(Pty))
    async def create_pty(instance: InstanceOfRequest, data: JSONBody[NewPty]) -> Response[bytes]:
        return answer(await ptys.create(instance.directory, data))

    @get("/pty/{ptyID:str}", summary="A terminal", **documented(Pty, **missing))
    async def get_pty(instance: InstanceOfRequest, pty_id: PtyId) -> Response[bytes]:
        return answer(ptys.get(instance.directory, checked_pty(pty_id)))

    @put(
        "/pty/{ptyID:str}", summary="Rename or resize a terminal", dto=JsonBody[PtyPatch], **documented(Pty, **missing)
    )
    async def update_pty(instance: InstanceOfRequest, pty_id: PtyId, data: JSONBody[PtyPatch]) -> Response[bytes]:
        return answer(ptys.update(instance.directory, checked_pty(pty_id), data))

    @delete("/pty/{ptyID:str}", summary="End a terminal and all it started", **documented(bool, **missing))
    async def remove_pty(instance: InstanceOfRequest, pty_id: PtyId) -> Response[bytes]:
        await ptys.remove(instance.directory, checked_pty(pty_id))
        return answer(True)

    @post(
        "/pty/{ptyID:str}/connect-token",
        summary="A ticket for one connection",
        **documented(PtyTicket, "For clients that cannot send a credential with a WebSocket.", **missing),
    )
    async def connect_token(instance: InstanceOfRequest, pty_id: PtyId) -> Response[bytes]:
        return answer(ptys.ticket(instance.directory, checked_pty(pty_id)))

    @get(
        "/pty/{ptyID:str}/connect",
        summary="Follow a terminal (WebSocket)",
        **documented(bool, "Never: the connection becomes a WebSocket.", **missing),
    )
    async def connect(
        pty_id: PtyId,
        cursor: Annotated[
            str | None, QueryParameter(name="cursor", description="Where to go on; -1: only what comes.")
        ] = None,
        ticket: Annotated[str | None, QueryParameter(name="ticket", description="Of `connect-token`.")] = None,
    ) -> Response[bytes]:
        ptys.connect(checked_pty(pty_id))
        raise Invalid("This is a WebSocket: ask for an upgrade.")

    routes: list[Any] = [
        shells,
        list_ptys,
        create_pty,
        get_pty,
        update_pty,
        remove_pty,
        connect_token,
        connect,
    ]
    return routes


class PtySockets:
    """The WebSockets of terminals: raw ASGI, for the `websocket` scope."""

    def __init__(self, ptys: PtyService) -> None:
        self._ptys = ptys

    async def __call__(self, scope: HttpScope, receive: Receive, send: Send, *, is_known: bool) -> None:
        """`is_known`: the client has the server's credential; if not, it needs a ticket."""
        try:
            connection = self._open(scope, is_known)
        except Exception as error:
            is_second = scope["path"].startswith(SECOND_API)
            await self.refuse(scope, receive, send, answer_to(error, second_api=is_second))
            return
        await receive()
        await send({"type": "websocket.accept"})
        showing = asyncio.create_task(_show(connection, send))
        typing = asyncio.create_task(_type(connection, receive))
        try:
            await asyncio.wait((showing, typing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (showing, typing):
                task.cancel()
            await asyncio.gather(showing, typing, return_exceptions=True)

    @staticmethod
    async def refuse(scope: HttpScope, receive: Receive, send: Send, answer: Answer) -> None:
        """Answer with an error, where the server in front of us can; else close the connection."""
        await receive()
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008})
            return
        await send({"type": "websocket.http.response.start", "status": answer.status, "headers": [JSON]})
        await send({"type": "websocket.http.response.body", "body": answer.json})

    def _open(self, scope: HttpScope, is_known: bool) -> Connection:
        """Raises NotFound, Invalid, Denied."""
        path = _CONNECT.fullmatch(scope["path"])
        if path is None:
            raise Invalid("There is no WebSocket at this path.")
        query = parse_qs(scope["query_string"].decode("latin-1"))
        pty_id = checked_pty(path[1])
        ticket = query.get("ticket", [""])[-1]
        if ticket:
            self._ptys.redeem(pty_id, ticket)
        elif not is_known:
            raise Denied("Connecting needs the server's password, or a ticket.", hint="Ask for one at connect-token.")
        cursor = query.get("cursor", ["0"])[-1]
        if not _CURSOR.fullmatch(cursor):
            raise Invalid("cursor is a number that this server sent, or -1.", field="cursor")
        return self._ptys.connect(pty_id, None if cursor == "-1" else int(cursor))


async def _show(connection: Connection, send: Send) -> None:
    """What was shown, where that ends, what comes; then the end. A send returns when the client can take more."""
    replayed = connection.end
    while connection.cursor < replayed and (text := connection.take(_FRAME_UNITS_MAX)):
        await send({"type": "websocket.send", "text": text})
    await send({"type": "websocket.send", "bytes": b'\0{"cursor":%d}' % connection.cursor})
    while await connection.more():
        await send({"type": "websocket.send", "text": connection.take(_FRAME_UNITS_MAX)})
    await send({"type": "websocket.close", "code": 1000})


async def _type(connection: Connection, receive: Receive) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        connection.type(text if text is not None else message["bytes"].decode(errors="replace"))


def checked_pty(pty_id: str) -> str:
    """Raises Invalid for what cannot be the id of a terminal."""
    if not pty_id.startswith("pty"):
        raise Invalid(f'Expected a string starting with "pty", got {pty_id[:64]!r}', field="ptyID")
    return pty_id
