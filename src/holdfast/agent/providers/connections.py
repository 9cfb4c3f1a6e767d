"""The HTTP connections of all adapters: one pool for each HTTP library that one of them needs, opened with the first
request and closed when the server stops."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import holdfast

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS_MAX: Final = 30.0
USER_AGENT: Final = f"holdfast/{holdfast.__version__}"


class Closable(Protocol):
    async def aclose(self) -> None: ...


P = TypeVar("P", bound=Closable)


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for this address (`https_proxy`, `no_proxy`, …)."""
    proxies = getproxies()
    address = urlsplit(url)
    return proxies.get(address.scheme) if proxies and not proxy_bypass(address.hostname or "") else None


class Connections:
    """Makes no connection, and does not even import the HTTP library, before somebody needs one."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._pools: dict[str, Closable] = {}
        self._lock = threading.Lock()

    def session(self) -> aiohttp.ClientSession:
        """To be called in the event loop. Limits per request are the adapter's business."""
        if self._session is None or self._session.closed:
            import aiohttp

            self._session = aiohttp.ClientSession(
                # Each turn holds its connection for as long as the LLM speaks, so a limit would make turns wait unseen.
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": USER_AGENT},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX),
                trust_env=False,  # it would send passwords of ~/.netrc along; see `proxy_for`
            )
        return self._session

    def pool(self, library: str, make: Callable[[], P]) -> P:
        """The pool of another HTTP library, for SDKs that bring their own. May be called from any thread."""
        with self._lock:
            if library not in self._pools:
                self._pools[library] = make()
            return cast(P, self._pools[library])

    async def close(self) -> None:
        while self._pools:
            await self._pools.popitem()[1].aclose()
        if self._session is not None:
            await self._session.close()
            self._session = None
