"""Who the user is at remote servers: what they granted, kept in a file, and the asking for it.

The file is readable to its owner only. What is in it goes to the server it was granted by and nowhere else: it is found by the
server's name and address, and one of the two changed means another login.
"""

import asyncio
import contextlib
import os
import secrets
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog

from holdfast.agent.mcp.base import ServerFailed
from holdfast.core.config import McpConfig, McpOAuthConfig

CALLBACK_PORT: Final = 19876
CALLBACK_PATH: Final = "/mcp/oauth/callback"

log = structlog.get_logger()


class Grant(msgspec.Struct, omit_defaults=True):
    """`tokens`, `client` (how we are registered) and `server` (where tokens are renewed) are as the protocol has them."""

    tokens: dict[str, Any] | None = None
    expires_ms: int | None = None
    client: dict[str, Any] | None = None
    server: dict[str, Any] | None = None


class Grants:
    """All that was granted to this Holdfast. Without a `file` it lasts as long as the process."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._known: dict[str, Grant] | None = None

    def get(self, key: str) -> Grant:
        return self._read().get(key, Grant())

    def put(self, key: str, grant: Grant) -> None:
        """Durable when it returns. Raises OSError."""
        known = {**self._read(), key: grant}
        self._write(known)

    def remove(self, key: str) -> None:
        """Raises OSError."""
        known = dict(self._read())
        if known.pop(key, None) is not None:
            self._write(known)

    def _read(self) -> dict[str, Grant]:
        if self._known is None:
            self._known = {}
            if self._file is not None:
                try:
                    self._known = msgspec.json.decode(self._file.read_bytes(), type=dict[str, Grant])
                except FileNotFoundError:
                    pass
                except (OSError, msgspec.DecodeError) as error:  # then the user has to log in again
                    log.warning("mcp.logins_unreadable", reason=type(error).__name__)
        return self._known

    def _write(self, known: dict[str, Grant]) -> None:
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            new = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}")
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(msgspec.json.encode(known))
                    file.flush()
                    os.fsync(descriptor)
                os.replace(new, self._file)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
        self._known = known


class Attempt:
    """A login that the user is asked for: first the address they have to go to, then the code they come back with."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.address: asyncio.Future[str] = loop.create_future()
        self.code: asyncio.Future[str] = loop.create_future()
        self.over = asyncio.Event()

    @property
    def state(self) -> str:
        """By which the answer is known to belong to this question."""
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

    def keep(self, grant: Grant) -> None:
        self._grants.put(self._key, grant)

    def forget(self) -> None:
        self._grants.remove(self._key)
