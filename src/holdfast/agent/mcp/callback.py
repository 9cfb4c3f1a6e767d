"""The page that a browser comes back to after a login: a listener on loopback, for as long as the login takes.

It is not a route of our server, because the browser has no credential for that, and because servers know the address of this
page from the registration. It believes only who brings the login's `state`.
"""

import asyncio
import contextlib
import hmac
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import parse_qs, urlsplit

from holdfast.agent.mcp.logins import Attempt

_HEAD_BYTES_MAX: Final = 16 * 1024
_SECONDS_MAX: Final = 10.0
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@contextlib.asynccontextmanager
async def listening(redirect_uri: str, attempt: Attempt) -> AsyncGenerator[None, None]:
    """Take the code for `attempt` while the context is open. Does nothing for a page that is not on loopback. Raises OSError
    if the port cannot be had."""
    page = urlsplit(redirect_uri)
    if page.scheme != "http" or page.hostname not in _LOOPBACK:
        yield
        return

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_SECONDS_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
                status, words = _taken(head, page.path, attempt)
                body = f"<!doctype html><title>Holdfast</title><p>{words}</p>".encode()
                writer.write(
                    b"HTTP/1.1 %d \r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                    % (status, len(body), body)
                )
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, page.hostname, page.port or 80, limit=_HEAD_BYTES_MAX)
    try:
        yield
    finally:
        server.close()


def _taken(head: bytes, path: str, attempt: Attempt) -> tuple[int, str]:
    """Status and words for the user."""
    words = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    try:
        target = urlsplit(words[1] if len(words) == 3 else "")
    except ValueError:
        return 404, "There is nothing here."
    if words[0] != "GET" or target.path != path:
        return 404, "There is nothing here."
    query = {name: values[-1] for name, values in parse_qs(target.query).items()}
    wanted = attempt.state
    if not wanted or not hmac.compare_digest(query.get("state", "").encode(), wanted.encode()):
        return 400, "This is not the answer to the login that was asked for."
    if "code" not in query:
        attempt.refuse()
        return 400, "The login was refused. You can close this page."
    attempt.answer(query["code"])
    return 200, "You are logged in. You can close this page."
