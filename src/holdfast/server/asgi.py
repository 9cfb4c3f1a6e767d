"""Names for the ASGI interface, and the few things that raw ASGI applications need."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Final

from holdfast.core.errors import Invalid, TooLarge

HttpScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[HttpScope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")


PIECE_BYTES_MAX: Final = 128 << 10


async def send_body(send: Send, body: bytes, *, more_body: bool = False) -> None:
    """In pieces, each when the client has taken enough of those before it: what waits to be sent is a copy, and so is never much,
    however slow the client is."""
    at = 0
    while len(body) - at > PIECE_BYTES_MAX:
        piece = body[at : at + PIECE_BYTES_MAX]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        at += PIECE_BYTES_MAX
    await send({"type": "http.response.body", "body": body[at:], "more_body": more_body})


async def respond(send: Send, status: int, body: bytes = b"", headers: Iterable[Header] = ()) -> None:
    if status != 204:
        headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send_body(send, body)


def streamed(pieces: AsyncIterator[bytes], content_type: str, more_headers: Iterable[Header] = ()) -> App:
    """An answer that is sent as it is made, for as long as there is somebody to read it."""

    async def answer(scope: HttpScope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            headers = [(b"content-type", content_type.encode()), *more_headers]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for piece in pieces:
                if gone.done():
                    return
                await send_body(send, piece, more_body=True)
            await send_body(send, b"")
        finally:
            gone.cancel()

    return answer


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], bytes_max: int, *, hint: str | None = None
) -> bytes:
    """All of a request's body. Raises TooLarge as early as it is known, with the hint; Invalid if the client goes meanwhile, or
    if the body is not sent as it is."""
    if b"content-encoding" in headers or b"transfer-encoding" in headers:
        _check_coding(headers)
    length = headers.get(b"content-length")
    size = int(length) if length is not None else 0
    pieces: list[bytes] = []
    if size <= bytes_max:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Invalid("The request was cut off.")
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > bytes_max or not message.get("more_body", False):
                break
    if size > bytes_max:
        raise TooLarge(f"The body is larger than {bytes_max} bytes.", hint=hint)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_coding(headers: Mapping[bytes, bytes]) -> None:
    """Chunks are undone before anybody sees them; nothing else is."""
    for name in (b"content-encoding", b"transfer-encoding"):
        coding = headers.get(name, b"").strip().lower()
        if coding not in (b"", b"identity", b"chunked"):
            raise Invalid(f"The body is encoded: {coding.decode('latin-1')[:64]}.", hint="Send it as it is.")


async def disconnected(receive: Receive) -> None:
    """Return once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
