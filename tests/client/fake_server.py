"""A server's event stream and routes behind httpx, with connections that break where the test says."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from holdfast.core.offsets import to_offset


class Broken(httpx.AsyncByteStream):
    """Some pieces of a body, and then, unless `whole`, a connection that breaks."""

    def __init__(self, pieces: list[bytes], *, whole: bool = False) -> None:
        self._pieces = pieces
        self._whole = whole

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if not self._whole:
            raise httpx.ReadError("reset by peer")


def frame(position: int | None, type: str, session_id: str | None = "ses_1", **properties: Any) -> bytes:
    named = {"sessionID": session_id} if session_id else {}
    data = json.dumps({"id": f"evt_{position or 0}", "type": type, "properties": named | properties})
    id = f"id: {to_offset(position)}\n" if position is not None else ""
    return f"{id}data: {data}\n\n".encode()


def stream(pieces: list[bytes], *, whole: bool = False) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Broken(pieces, whole=whole))


class Transport(httpx.AsyncBaseTransport):
    """Answers each request with what `answer` makes of it; `requests` are those that came."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response]) -> None:
        self._answer = answer
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        return self._answer(request)
