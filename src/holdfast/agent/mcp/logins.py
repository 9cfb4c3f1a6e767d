"""Who the user is at remote servers: what they granted, and the asking for it.

A grant goes to the server it was granted by and nowhere else: it is found by the server's name and address, and one of the two
changed means another login.
"""

import asyncio
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog

from holdfast.agent.mcp.base import ServerFailed
from holdfast.core.config import McpConfig, McpOAuthConfig

CALLBACK_PORT: Final = 19876
CALLBACK_PATH: Final = "/mcp/oauth/callback"
_SECRET: Final = frozenset(("access_token", "refresh_token", "id_token", "client_secret", "registration_access_token"))

log = structlog.get_logger()


class Grant(msgspec.Struct, omit_defaults=True):
    """`tokens`, `client` (how we are registered) and `server` (where tokens are renewed) are as the protocol has them."""

    tokens: dict[str, Any] | None = None
    expires_ms: int | None = None
    client: dict[str, Any] | None = None
    server: dict[str, Any] | None = None


class Grants(Protocol):
    """All that was granted to this Holdfast (`service.mcp_grants`)."""

    def get(self, key: str) -> Grant:
        """An empty one if nothing was granted."""
        ...

    def put(self, key: str, grant: Grant) -> None:
        """Durable when it returns. Raises HoldfastError if it cannot be kept."""
        ...

    def remove(self, key: str) -> None:
        """Durable when it returns; harmless if there is none."""
        ...


class Attempt:
    """A login that the user is asked for: first the address they have to go to, then the code they come back with."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.address: asyncio.Future[str] = loop.create_future()
        self.code: asyncio.Future[str] = loop.create_future()
        self.over = asyncio.Event()

    @property
    def state(self) -> str:
        """By which the answer is known to belong to this question. Empty before the user is asked."""
        if not self.address.done() or self.address.cancelled():
            return ""
        return parse_qs(urlsplit(self.address.result()).query).get("state", [""])[0]

    def ask(self, address: str) -> None:
        if not self.address.done():
            self.address.set_result(address)

    def answer(self, code: str) -> None:
        if not self.code.done():
            self.code.set_result(code)

    def refuse(self) -> None:
        """The user did not want to, or the server did not let them."""
        if not self.code.done():
            self.code.set_exception(ServerFailed("The login was refused."))

    def finish(self) -> None:
        """It is over, however it ended."""
        for future in (self.address, self.code):
            future.cancel()
        self.over.set()


class Login:
    """How one server is logged in at."""

    def __init__(self, name: str, config: McpConfig, grants: Grants) -> None:
        assert config.url
        self.url = config.url
        self.settings = config.oauth if isinstance(config.oauth, McpOAuthConfig) else McpOAuthConfig()
        self._key = f"{name} {config.url}"
        self._grants = grants

    @property
    def redirect_uri(self) -> str:
        """Where the browser brings the code."""
        port = self.settings.callback_port or CALLBACK_PORT
        return self.settings.redirect_uri or f"http://127.0.0.1:{port}{CALLBACK_PATH}"

    @property
    def grant(self) -> Grant:
        return self._grants.get(self._key)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What was granted, wherever a server may say it again."""
        grant = self.grant
        found = [*(grant.tokens or {}).items(), *(grant.client or {}).items()]
        return tuple(value for key, value in found if key in _SECRET and isinstance(value, str) and value)

    def keep(self, grant: Grant) -> None:
        self._grants.put(self._key, grant)

    def forget(self) -> None:
        self._grants.remove(self._key)
