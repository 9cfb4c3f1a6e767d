"""The HTTP connections of all adapters: one pool, opened with the first request and closed when the server stops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import holdfast

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS_MAX: Final = 30.0


class Connections:
    """Makes no connection, and does not even import the HTTP library, before somebody needs one."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    def session(self) -> aiohttp.ClientSession:
        """To be called in the event loop. Limits per request are the adapter's business."""
        if self._session is None or self._session.closed:
            import aiohttp

            self._session = aiohttp.ClientSession(
                # Each turn holds its connection for as long as the LLM speaks, so a limit would make turns wait unseen.
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": f"holdfast/{holdfast.__version__}"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS_MAX),
                trust_env=True,
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None
