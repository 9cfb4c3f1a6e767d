"""The HTTP client behind webhooks. A module of its own because aiohttp takes a third of a second to import: a server that never
calls a webhook never does.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

CONNECTIONS_MAX: Final = 1024
CONNECTIONS_OF_ONE_MAX: Final = 32
"""To one host and port: whoever does not answer holds up those who wait for the same one, and nobody else."""

_REDIRECTS: Final = (307, 308)


class Unreachable(Exception):
    """No answer came."""


class Reply(NamedTuple):
    """`location`: where else to ask."""

    status: int
    body: bytes
    location: str | None


class Calls:
    """`may_reach(host, address)` decides about what a name resolved to, at the moment a connection is made."""

    def __init__(self, may_reach: Callable[[str, str], bool], *, seconds_max: float, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_ChoosyResolver(may_reach), limit=CONNECTIONS_MAX, limit_per_host=CONNECTIONS_OF_ONE_MAX
            ),
            timeout=aiohttp.ClientTimeout(total=seconds_max),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Once, following nothing. Raises Unreachable."""
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                location = response.headers.get("location") if response.status in _REDIRECTS else None
                return Reply(response.status, await _beginning(response.content, self._bytes_max), location)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Unreachable(type(error).__name__) from error

    async def close(self) -> None:
        await self._session.close()


async def _beginning(content: aiohttp.StreamReader, bytes_max: int) -> bytes:
    """The whole of a short answer, in however many pieces it comes."""
    body = b""
    while len(body) < bytes_max and (piece := await content.read(bytes_max - len(body))):
        body += piece
    return body


class _ChoosyResolver(AbstractResolver):
    def __init__(self, may_reach: Callable[[str, str], bool]) -> None:
        self._may_reach = may_reach
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        found = [result for result in found if self._may_reach(host, result["host"])]
        if not found:
            raise OSError(f"{host} has no public address")
        return found

    async def close(self) -> None:
        await self._resolver.close()
