"""The HTTP client that the SDKs are given: ours, so that what holds for one adapter holds for every one of them.

Rules
 1. The limits of the provider's options count, not those of the SDK. What counts as a sign of life is a byte on the wire.
 2. Headers and query parameters of the configuration go out with every request.
 3. Nothing is compressed: what compresses, also holds back.
 4. A redirect is not followed, since it would carry the key somewhere else.
 5. Connections are shared by all models, and proxies are those of the environment.
 6. An `Exchange` knows what the provider answered when it refused, whatever the SDK makes of that, and closes what the SDK
    leaves open.

The SDKs use two HTTP libraries with the same interface, httpx and its successor httpx2: `library` is the module of either.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Generator, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final, NamedTuple
from urllib.request import getproxies, proxy_bypass

from holdfast.agent.providers.connections import CONNECT_SECONDS_MAX, USER_AGENT, Connections
from holdfast.agent.providers.limits import Limits, silent_for

_ERROR_BODY_BYTES_MAX: Final = 64 * 1024
_ERROR_BODY_S_MAX: Final = 10.0


class Refused(NamedTuple):
    """An answer that is none: its status, headers (names in lower case) and body."""

    status: int
    headers: dict[str, str]
    body: str


class Exchange:
    """What happens on the wire while one request is made: `with exchange.watched():` around the call of the SDK."""

    def __init__(self) -> None:
        self.refused: Refused | None = None
        self._bodies: list[Any] = []

    @contextlib.contextmanager
    def watched(self) -> Generator[None]:
        token = _exchange.set(self)
        try:
            yield
        finally:
            _exchange.reset(token)

    def opened(self, body: Any) -> None:
        self._bodies.append(body)

    async def aclose(self) -> None:
        while self._bodies:
            await self._bodies.pop().aclose()


_exchange: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


def make_client(
    library: ModuleType,
    connections: Connections,
    limits: Limits,
    *,
    headers: Mapping[str, str],
    query: Mapping[str, str],
) -> Any:
    """An `AsyncClient` of the library. It need not be closed: its connections belong to `connections`."""
    http: Any = library
    pool = connections.pool(library.__name__, lambda: _Pool(http))
    timeouts = {"connect": CONNECT_SECONDS_MAX, "read": None, "write": None, "pool": None}

    class Body(http.AsyncByteStream):
        """An iterator by itself: a generator that nobody finishes would close its connection some time later."""

        def __init__(self, body: Any) -> None:
            self._body = body
            self._pieces: Any = None

        def __aiter__(self) -> AsyncIterator[bytes]:
            self._pieces = aiter(self._body)
            return self

        async def __anext__(self) -> bytes:
            try:
                async with asyncio.timeout(limits.silence_s):
                    return await anext(self._pieces)
            except TimeoutError as error:
                raise http.ReadTimeout(silent_for(limits.silence_s)) from error

        async def aclose(self) -> None:
            if hasattr(self._pieces, "aclose"):
                await self._pieces.aclose()
            await self._body.aclose()

    class Transport(http.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            request.headers.update({"accept-encoding": "identity", "user-agent": USER_AGENT, **headers})
            if query:
                request.url = request.url.copy_merge_params(dict(query))
            request.extensions = {**request.extensions, "timeout": timeouts}
            try:
                async with asyncio.timeout(limits.header_s):
                    response = await pool.transport(request.url).handle_async_request(request)
            except TimeoutError as error:
                raise http.ReadTimeout(silent_for(limits.header_s)) from error
            body, status = Body(response.stream), response.status_code
            if status < 300 and "html" not in response.headers.get("content-type", ""):
                if (exchange := _exchange.get()) is not None:
                    exchange.opened(body)
                return http.Response(
                    status_code=status, headers=response.headers, stream=body, extensions=response.extensions
                )
            data = await _read(body, http)
            if (exchange := _exchange.get()) is not None:
                told = {name.lower(): value for name, value in response.headers.items()}
                exchange.refused = Refused(status, told, data.decode("utf-8", "replace"))
            # Some SDKs do not know what to do with a redirect, or with a page where an answer should be.
            return http.Response(
                status_code=status if status >= 400 else 502, headers=response.headers, content=data, request=request
            )

    return http.AsyncClient(transport=Transport(), timeout=None, follow_redirects=False)


async def _read(body: Any, http: Any) -> bytes:
    data = bytearray()
    try:
        async with asyncio.timeout(_ERROR_BODY_S_MAX):
            async for piece in body:
                data += piece
                if len(data) >= _ERROR_BODY_BYTES_MAX:
                    break
    except (TimeoutError, http.TransportError):
        pass  # what came until then says enough
    finally:
        await body.aclose()
    return bytes(data[:_ERROR_BODY_BYTES_MAX])


class _Pool:
    """One transport without a proxy, and one for each proxy that is used."""

    def __init__(self, http: Any) -> None:
        self._http = http
        # Each turn holds its connection for as long as the LLM speaks, so a limit would make turns wait unseen.
        self._limits = http.Limits(max_connections=None, max_keepalive_connections=20)
        self._transports: dict[str | None, Any] = {None: self._transport(None)}

    def transport(self, url: Any) -> Any:
        proxies = getproxies()
        proxy = None
        if proxies and not proxy_bypass(url.host):
            proxy = proxies.get(url.scheme) or proxies.get("all")
        if proxy not in self._transports:
            self._transports[proxy] = self._transport(proxy)
        return self._transports[proxy]

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()

    def _transport(self, proxy: str | None) -> Any:
        return self._http.AsyncHTTPTransport(limits=self._limits, proxy=proxy)
