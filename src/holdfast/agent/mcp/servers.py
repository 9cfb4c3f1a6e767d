"""One MCP server as its directory has it: connected while it is wanted, and again after it went away.

Rules
 1. One connection, owned by one task. A first attempt that fails and a connection that is lost are tried again, after a pause
    that doubles up to `PAUSE_MS_MAX`; a call does not wait for the pause to end.
 2. What it offered last stays offered while it is away: the LLM's list of tools does not flicker, and a call brings it back.
 3. A call that was sent and not answered is never sent again: nobody knows what became of it.
 4. No secret of its configuration or of a login is in a status, a message or the log.
"""

import asyncio
import contextlib
import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import structlog

from holdfast.agent.mcp.base import (
    CONNECT_SECONDS,
    CallOutcome,
    ListedPrompt,
    ListedResource,
    ListedTool,
    NeedsAuth,
    NeedsClientRegistration,
    ServerFailed,
    SessionLost,
)
from holdfast.agent.mcp.logins import Attempt, Login
from holdfast.agent.tools.processes import Processes
from holdfast.core.clock import Clock
from holdfast.core.config import McpConfig, McpOAuthConfig
from holdfast.core.mcp import (
    McpConnected,
    McpDisabled,
    McpFailed,
    McpNeedsAuth,
    McpNeedsClientRegistration,
    McpStatus,
)

if TYPE_CHECKING:
    from holdfast.agent.mcp.session import Session

PAUSE_MS: Final = 1000
PAUSE_MS_MAX: Final = 5 * 60 * 1000
LOGIN_SECONDS: Final = 10 * 60.0
"""How long a user may take to log in."""

_STEADY_MS: Final = 60_000
"""A connection that lasted so long was a good one: the pauses begin anew."""
_RELIST_MS: Final = 1000
_CANCEL_SECONDS: Final = 1.0
_SECRET_LENGTH_MIN: Final = 4

log = structlog.get_logger()


class McpServer:
    """`changed` is told when its tools are others than before. `login` is how it is logged in at, if it is a remote one that may
    ask for that; `timeout_ms` what holds where its configuration says nothing."""

    def __init__(
        self,
        name: str,
        config: McpConfig,
        *,
        directory: str,
        processes: Processes,
        clock: Clock,
        changed: Callable[[str], None],
        login: Login | None = None,
        timeout_ms: int | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.login = login
        self.attempt: Attempt | None = None
        self.tools: tuple[ListedTool, ...] = ()
        self.status: McpStatus = McpDisabled()
        self._directory = directory
        self._processes = processes
        self._clock = clock
        self._changed = changed
        self._seconds = (config.timeout or timeout_ms or CONNECT_SECONDS * 1000) / 1000
        self._secrets = _secrets_of(config)
        self._task: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._settled = asyncio.Event()
        self._attempted = asyncio.Event()
        self._wanted_now = asyncio.Event()

    # --- being there

    def start(self, attempt: Attempt | None = None) -> None:
        """Connect, and stay connected. Nothing happens if it is so already. The first time, the user may be asked to log in, by
        `attempt`."""
        if self._task is None or self._task.done():
            self.attempt = attempt
            self._settled.clear()
            self._task = asyncio.create_task(self._stay())

    async def ready(self) -> None:
        """Wait for the end of the first attempt, however it ends."""
        if self._task is not None:
            await self._settled.wait()

    async def close(self) -> None:
        """Disconnect. What it started is dead when this returns."""
        task, self._task = self._task, None
        self.tools = ()
        while task is not None and not task.done():
            task.cancel()  # perhaps again: the library may take a cancellation for one of its own
            await asyncio.wait((task,), timeout=_CANCEL_SECONDS)
        if self._task is None:
            self._settle(McpDisabled())

    async def _stay(self) -> None:
        me = asyncio.current_task()
        failures = 0
        while self._task is me:
            began_ms = self._clock.now_ms()
            self._wanted_now.clear()
            attempted = self._attempted
            asking = asyncio.create_task(self._ask()) if self.attempt is not None else None
            try:
                status = await self._over()
                if self._task is not me:
                    return
                self._settle(status)
            finally:
                if asking is not None:
                    asking.cancel()
                if not attempted.is_set():
                    self._end_attempt()
            if not isinstance(status, McpFailed):
                return
            if self._clock.now_ms() - began_ms > _STEADY_MS:
                failures = 0
            pause_ms = min(PAUSE_MS * 2**failures, PAUSE_MS_MAX)
            failures = min(failures + 1, 20)
            await self._pause(pause_ms)

    async def _over(self) -> McpStatus:
        """Connect; how it is when that failed, or the connection is over."""
        try:
            await self._connected_once()
        except NeedsAuth:
            return McpNeedsAuth()
        except NeedsClientRegistration as error:
            return McpNeedsClientRegistration(error=str(error))
        except ServerFailed as error:
            return McpFailed(error=str(error))
        except Exception as error:
            log.error("mcp.defect", server=self.name, kind=type(error).__name__)  # its text may hold a secret
            return McpFailed(error=f"Holdfast failed to speak to it ({type(error).__name__}).")
        return McpFailed(error="The connection was closed.")

    async def _ask(self) -> None:
        """Nobody has to wait for the user but who asked for the login."""
        assert self.attempt is not None
        await asyncio.wait((self.attempt.address,))
        if not self.attempt.address.cancelled():
            self.status = McpNeedsAuth()
            self._settled.set()

    async def _pause(self, milliseconds: int) -> None:
        """Not so long if a call wants it now."""
        waiting = [
            asyncio.create_task(self._clock.sleep_until(self._clock.now_ms() + milliseconds)),
            asyncio.create_task(self._wanted_now.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _connected_once(self) -> None:
        """Raises ServerFailed when the connection is over."""
        library = await asyncio.to_thread(importlib.import_module, "holdfast.agent.mcp.session")
        self._check()
        auth = None
        if self.login is not None:
            oauth = await asyncio.to_thread(importlib.import_module, "holdfast.agent.mcp.oauth")
            auth = oauth.provider(self.login, self.attempt)
        seconds = self._seconds if self.attempt is None else LOGIN_SECONDS
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(seconds):
                    session: Session = await stack.enter_async_context(
                        library.connected(
                            self.config,
                            processes=self._processes,
                            directory=Path(self._directory),
                            auth=auth,
                            clean=self.clean,
                            log_line=self._log_line,
                        )
                    )
                    tools = await session.tools()
            except TimeoutError:
                raise ServerFailed(f"It did not answer within {seconds:g} seconds.") from None
            self._session = session
            try:
                self._take(tools)
                self._settle(McpConnected())
                self._end_attempt()
                while await session.changed():
                    await self._list_again(session)
            finally:
                self._session = None
            raise ServerFailed(session.why)

    def _log_line(self, line: str) -> None:
        log.info("mcp.stderr", server=self.name, line=line)

    async def _list_again(self, session: "Session") -> None:
        """A server that says so all the time is asked once a second."""
        try:
            async with asyncio.timeout(self._seconds):
                self._take(await session.tools())
        except (ServerFailed, TimeoutError) as error:
            log.warning("mcp.not_listed", server=self.name, reason=str(error) or "it did not answer")
        await self._clock.sleep_until(self._clock.now_ms() + _RELIST_MS)

    def _end_attempt(self) -> None:
        """Those who wait for it go on; who comes now waits for the next."""
        self._attempted.set()
        self._attempted = asyncio.Event()

    def _check(self) -> None:
        """Raises ServerFailed for a configuration that names no server."""
        config = self.config
        if config.type == "local" and not (config.command and config.command[0].strip()):
            raise ServerFailed("Its configuration has no command.")
        if config.type == "remote":
            parts = urlsplit(config.url or "")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ServerFailed("Its configuration has no http or https url.")

    def _take(self, tools: list[ListedTool]) -> None:
        if tuple(tools) != self.tools:
            self.tools = tuple(tools)
            self._changed(self.name)

    def _settle(self, status: McpStatus) -> None:
        if isinstance(status, McpFailed) and status != self.status:
            log.warning("mcp.failed", server=self.name, reason=status.error)
        self.status = status
        self._settled.set()
        if self.attempt is not None:
            self.attempt.finish()
            self.attempt = None

    # --- asking it

    async def call(self, tool: str, input: dict[str, Any]) -> CallOutcome:
        """Raises ServerFailed. The time it may take begins anew with each sign of progress."""
        session = await self._reached()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._seconds) as limit:
                return await session.call(tool, input, lambda: limit.reschedule(loop.time() + self._seconds))
        except TimeoutError:
            raise ServerFailed(
                f"The MCP server {self.name} did not answer within {self._seconds:g} seconds, so the call was called off. "
                "What became of it is not known."
            ) from None
        except SessionLost as lost:
            outcome = "What became of the call is not known." if lost.may_have_run else "The call was not run."
            raise ServerFailed(f"The connection to the MCP server {self.name} broke: {lost} {outcome}") from None

    async def prompts(self) -> list[ListedPrompt]:
        return await self._list(lambda session: session.prompts())

    async def resources(self) -> list[ListedResource]:
        return await self._list(lambda session: session.resources())

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        """Raises ServerFailed."""
        session = await self._reached()
        try:
            async with asyncio.timeout(self._seconds):
                return await session.prompt(name, arguments)
        except TimeoutError:
            raise ServerFailed(f"The MCP server {self.name} did not answer.") from None

    async def _list(self, get: Callable[["Session"], Any]) -> list[Any]:
        """Empty while it is away, and if it does not know them."""
        if self._session is None:
            return []
        try:
            async with asyncio.timeout(self._seconds):
                return await get(self._session)
        except (ServerFailed, TimeoutError) as error:
            log.info("mcp.not_listed", server=self.name, reason=str(error) or "it did not answer")
            return []

    async def _reached(self) -> "Session":
        """The session; after another attempt to have one, if there is none. Raises ServerFailed."""
        session = self._working
        if session is None and self._task is not None and not self._task.done():
            attempted = self._attempted
            self._wanted_now.set()
            await attempted.wait()
            session = self._working
        if session is None:
            reason = getattr(self.status, "error", None) or self.status.__struct_config__.tag
            raise ServerFailed(f"The MCP server {self.name} cannot be reached: {reason}")
        return session

    @property
    def _working(self) -> "Session | None":
        return self._session if self._session is not None and not self._session.is_lost else None

    def clean(self, text: str) -> str:
        """The text without what the configuration keeps secret, and without what was granted at a login."""
        for secret in (*self._secrets, *(self.login.secrets if self.login is not None else ())):
            text = text.replace(secret, "***")
        return text


def _secrets_of(config: McpConfig) -> tuple[str, ...]:
    """Longest first, so that none leaves a part of another."""
    values = [*(config.environment or {}).values()]
    for value in (config.headers or {}).values():
        values += [value, *value.split()]  # `Bearer …`
    if isinstance(config.oauth, McpOAuthConfig) and config.oauth.client_secret:
        values.append(config.oauth.client_secret)
    if config.url:
        with contextlib.suppress(ValueError):
            parts = urlsplit(config.url)
            values += [
                parts.username or "",  # some servers want their token there
                parts.password or "",
                *(value for _, value in parse_qsl(parts.query)),
                *re.split("[&=]", parts.query),
            ]
    return tuple(sorted({value for value in values if len(value) >= _SECRET_LENGTH_MIN}, key=len, reverse=True))
