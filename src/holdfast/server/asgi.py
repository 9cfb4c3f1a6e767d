"""Names for the ASGI interface, and the few things that raw ASGI applications need."""

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final

HttpScope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[HttpScope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")


async def respond(send: Send, status: int, body: bytes = b"", headers: Iterable[Header] = ()) -> None:
    length: Header = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def disconnected(receive: Receive) -> None:
    """Return once the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
