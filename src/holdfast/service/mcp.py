"""MCP servers of each directory: those of its configuration, and those that a client added until the directory is disposed of.

They are started when somebody first needs them (a turn, or who asks how they are), follow the configuration without a restart,
and end with the directory's instance. What a client switched on or off holds until then, too.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, ClassVar, Final, Literal

from msgspec.structs import replace

from holdfast.agent.mcp.base import ListedPrompt, ServerFailed
from holdfast.agent.mcp.callback import listening
from holdfast.agent.mcp.logins import Attempt, Grants, Login
from holdfast.agent.mcp.servers import McpServer
from holdfast.agent.mcp.tools import McpTool, fitting, tools_of
from holdfast.agent.tools import Processes
from holdfast.core.catalogue import Command
from holdfast.core.clock import Clock
from holdfast.core.config import McpConfig, McpOAuthConfig
from holdfast.core.errors import Conflict, Invalid, NotFound
from holdfast.core.mcp import McpConnected, McpDisabled, McpFailed, McpNeedsClientRegistration, McpResource, McpStatus
from holdfast.core.wire import Wire
from holdfast.service.instances import Instance

MCP: Final = "MCP server"
NAME_LENGTH_MAX: Final = 64
SERVERS_ADDED_MAX: Final = 50
_TEXTS_MAX: Final = 100
_TEXT_LENGTH_MAX: Final = 10_000


class NoLogin(Invalid):
    """The server is not one that is logged in at."""


class LocalServer(Wire, tag_field="type", tag="local"):
    command: tuple[str, ...]
    cwd: str | None = None
    environment: dict[str, str] | None = None
    enabled: bool | None = None
    timeout: int | None = None


class RemoteServer(Wire, tag_field="type", tag="remote"):
    url: str
    enabled: bool | None = None
    headers: dict[str, str] | None = None
    oauth: McpOAuthConfig | Literal[False] | None = None
    timeout: int | None = None


class NewMcpServer(Wire):
    """A server beside those of the configuration; one of the same name takes the place of the other."""

    name: str
    config: LocalServer | RemoteServer


class McpLogin(Wire):
    """Where the user has to go, and by which `state` the answer is known. Both are empty if there is nothing to do."""

    authorization_url: str
    oauth_state: str


class McpCode(Wire):
    code: str


class McpForgotten(Wire):
    success: Literal[True]


class McpEvent(Wire):
    """What happened to a server: told to who is there, not recorded. The fields are the wire's `properties`."""

    type: ClassVar[str]


class McpToolsChanged(McpEvent):
    type = "mcp.tools.changed"
    server: str


class McpBrowserOpenFailed(McpEvent):
    """Somebody has to open this page in the user's browser: a server has none."""

    type = "mcp.browser.open.failed"
    mcp_name: str
    url: str


Announce = Callable[[str, McpEvent], None]
"""Told (directory, what happened); must not wait."""


class _Place:
    """The servers of a directory. `switched` is what clients said about each since."""

    def __init__(self) -> None:
        self.servers: dict[str, McpServer] = {}
        self.added: dict[str, McpConfig] = {}
        self.switched: dict[str, bool] = {}


class McpService:
    def __init__(self, processes: Processes, *, clock: Clock, grants: Grants) -> None:
        self._processes = processes
        self._clock = clock
        self._grants = grants
        self._places: dict[str, _Place] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.announce: Announce = lambda directory, event: None

    # --- for turns

    async def prepare(self, instance: Instance) -> None:
        """Start what is wanted; returns when each server was tried once. Those that failed before hold up nobody."""
        place = self._synced(instance)
        await asyncio.gather(*(server.ready() for server in place.servers.values()))

    def tools(self, directory: str, taken: Iterable[str]) -> list[McpTool]:
        """What the servers of the directory offer, as far as they were started. `taken` are names of other tools."""
        place = self._places.get(directory)
        return tools_of(place.servers.values(), taken) if place is not None else []

    # --- for users

    async def status(self, instance: Instance) -> Mapping[str, McpStatus]:
        """Of each server, as soon as it was tried once."""
        await self.prepare(instance)
        return {name: server.status for name, server in self._synced(instance).servers.items()}

    async def add(self, instance: Instance, new: NewMcpServer) -> Mapping[str, McpStatus]:
        """Raises Invalid."""
        config = _checked(new)
        place = self._synced(instance)
        if new.name not in place.added and len(place.added) >= SERVERS_ADDED_MAX:
            raise Conflict(f"{SERVERS_ADDED_MAX} servers were added here already.")
        place.added[new.name] = config
        place.switched.pop(new.name, None)
        return await self.status(instance)

    async def connect(self, instance: Instance, name: str) -> None:
        """Switch it on, or try it again. Raises NotFound."""
        place = self._synced(instance)
        server = _server(place, name)
        place.switched[name] = True
        if not isinstance(server.status, McpConnected):
            await self._restart(instance, server)
        await server.ready()

    async def disconnect(self, instance: Instance, name: str) -> None:
        """Switch it off. Raises NotFound."""
        place = self._synced(instance)
        server = _server(place, name)
        place.switched[name] = False
        await server.close()

    async def resources(self, instance: Instance) -> dict[str, McpResource]:
        """What connected servers offer to read, as `server:name`."""
        await self.prepare(instance)
        servers = tuple(self._synced(instance).servers.values())
        found: dict[str, McpResource] = {}
        for server, listed in zip(servers, await asyncio.gather(*(s.resources() for s in servers)), strict=True):
            for resource in listed:
                found[f"{server.name}:{resource.name}"] = McpResource(
                    name=resource.name,
                    uri=resource.uri,
                    description=resource.description,
                    mime_type=resource.mime_type,
                    client=server.name,
                )
        return found

    # --- prompts, which users call as commands

    async def commands(self, instance: Instance) -> tuple[Command, ...]:
        """The prompts of connected servers, as `server:prompt`. Their text is made by the server: see `prompt_text`."""
        return tuple(
            Command(
                name=name,
                description=prompt.description,
                source="mcp",
                template="",
                hints=tuple(f"${number}" for number in range(1, len(prompt.arguments) + 1)),
            )
            for name, (_, prompt) in (await self._prompts(instance)).items()
        )

    async def prompt_text(self, instance: Instance, command: str, arguments: tuple[str, ...]) -> str:
        """The text that the server makes of a prompt, its arguments in order; an empty one is left out. Raises Invalid if there
        is no such prompt, arguments are missing or the server refuses them."""
        found = (await self._prompts(instance)).get(command)
        if found is None:
            raise Invalid(f"No MCP server has the prompt {command[:64]!r} now.", field="command")
        server, prompt = found
        names = [argument.name for argument in prompt.arguments]
        given = {name: value for name, value in zip(names, arguments, strict=False) if value}
        missing = [argument.name for argument in prompt.arguments if argument.required and argument.name not in given]
        if missing:
            raise Invalid(f"The prompt {command} needs: {', '.join(missing)}.", field="arguments")
        try:
            return await server.prompt(prompt.name, given)
        except ServerFailed as error:
            raise Invalid(f"The MCP server {server.name} made no text of it: {error}", field="arguments") from None

    async def _prompts(self, instance: Instance) -> dict[str, tuple[McpServer, ListedPrompt]]:
        await self.prepare(instance)
        servers = tuple(self._synced(instance).servers.values())
        listed = await asyncio.gather(*(server.prompts() for server in servers))
        return {
            f"{fitting(server.name)}:{fitting(prompt.name)}": (server, prompt)
            for server, prompts in zip(servers, listed, strict=True)
            for prompt in prompts
        }

    # --- logging in

    async def log_in(self, instance: Instance, name: str) -> McpLogin:
        """Begin a login. Raises NotFound, NoLogin, Conflict if the server cannot be logged in at now."""
        _, attempt = await self._begin(instance, name)
        if attempt is None:
            return McpLogin(authorization_url="", oauth_state="")
        return McpLogin(authorization_url=attempt.address.result(), oauth_state=attempt.state)

    async def finish_login(self, instance: Instance, name: str, code: str) -> McpStatus:
        """Raises NotFound, NoLogin, Conflict if no login is under way."""
        server = self._with_login(instance, name)
        attempt = server.attempt
        if attempt is None or not attempt.address.done():
            raise Conflict(f"No login at {name} is under way.")
        if not code:
            raise Invalid("The code is empty.", field="code")
        attempt.answer(code)
        await attempt.over.wait()
        return server.status

    async def authenticate(self, instance: Instance, name: str) -> McpStatus:
        """The whole of it: who is there is told the page to open; returns when the browser came back, or nobody did. Raises
        NotFound, NoLogin, Conflict."""
        server, attempt = await self._begin(instance, name)
        if attempt is None or server.login is None:
            return server.status
        try:
            async with listening(server.login.redirect_uri, attempt):
                address = attempt.address.result()
                self.announce(instance.directory, McpBrowserOpenFailed(mcp_name=name, url=address))
                await attempt.over.wait()
        except OSError as error:
            attempt.refuse()
            raise Conflict(
                f"The page that the browser comes back to cannot be served: {error.strerror}.",
                hint="Set oauth.callbackPort of the server to a port that is free.",
            ) from None
        return server.status

    async def log_out(self, instance: Instance, name: str) -> None:
        """Forget what was granted. Raises NotFound; Conflict if that cannot be written."""
        server = _server(self._synced(instance), name)
        if server.login is None:
            return
        server.login.forget()
        if not isinstance(server.status, McpDisabled):
            await self._restart(instance, server)
            await server.ready()

    async def _begin(self, instance: Instance, name: str) -> tuple[McpServer, Attempt | None]:
        """The server, and an attempt that has the page to open; None if it let us in as we are."""
        server = self._with_login(instance, name)
        attempt = Attempt()
        self._places[instance.directory].switched[name] = True
        await self._restart(instance, server, attempt)
        over = asyncio.create_task(attempt.over.wait())
        try:
            await asyncio.wait((attempt.address, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if attempt.address.done() and not attempt.address.cancelled():
            return server, attempt
        match server.status:
            case McpConnected():
                return server, None
            case McpFailed(error=error) | McpNeedsClientRegistration(error=error):
                raise Conflict(f"No login at {name} is possible: {error}")
            case _:
                raise Conflict(f"No login at {name} is possible now.")

    async def _restart(self, instance: Instance, server: McpServer, attempt: Attempt | None = None) -> None:
        """Raises Conflict if it was disposed of meanwhile: nobody would end what is started then."""
        await server.close()
        place = self._places.get(instance.directory)
        if place is None or place.servers.get(server.name) is not server:
            raise Conflict(f"The MCP server {server.name} was ended meanwhile.", hint="Ask again.")
        server.start(attempt)

    def _with_login(self, instance: Instance, name: str) -> McpServer:
        server = _server(self._synced(instance), name)
        if server.login is None:
            raise NoLogin(f"MCP server {name} does not support OAuth")
        return server

    # --- coming and going

    def dispose(self, directory: str) -> None:
        """The directory's instance is gone, and so are its servers, soon. The next who needs them starts them anew."""
        place = self._places.pop(directory, None)
        for server in place.servers.values() if place is not None else ():
            self._close(server)

    async def close(self) -> None:
        """The server stops. Returns when the programs of all servers are dead."""
        for directory in tuple(self._places):
            self.dispose(directory)
        await asyncio.gather(*self._closing)

    def _synced(self, instance: Instance) -> _Place:
        """The servers that the configuration wants now: changed ones made anew, removed ones closed."""
        place = self._places.setdefault(instance.directory, _Place())
        configured = {name: config for name, config in (instance.config.mcp or {}).items() if config.type is not None}
        wanted = {**configured, **place.added}
        for name in tuple(place.servers):
            if place.servers[name].config != wanted.get(name):
                self._close(place.servers.pop(name))
        servers: dict[str, McpServer] = {}
        for name, config in wanted.items():
            server = place.servers.get(name)
            if server is None:
                server = self._made(instance, name, config)
                if place.switched.get(name, config.enabled is not False):
                    server.start()
            servers[name] = server
        place.servers = servers
        return place

    def _made(self, instance: Instance, name: str, config: McpConfig) -> McpServer:
        directory = instance.directory
        has_login = config.type == "remote" and config.url and config.oauth is not False
        settings = instance.config.experimental
        return McpServer(
            name,
            config,
            directory=directory,
            processes=self._processes,
            clock=self._clock,
            changed=lambda server: self.announce(directory, McpToolsChanged(server=server)),
            login=Login(name, config, self._grants) if has_login else None,
            timeout_ms=settings.mcp_timeout if settings is not None else None,
        )

    def _close(self, server: McpServer) -> None:
        self._later(server.close())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _server(place: _Place, name: str) -> McpServer:
    server = place.servers.get(name)
    if server is None:
        raise NotFound(MCP, name[:NAME_LENGTH_MAX])
    return server


def _checked(new: NewMcpServer) -> McpConfig:
    """Raises Invalid for what can never work."""
    if not (new.name.strip() and len(new.name) <= NAME_LENGTH_MAX):
        raise Invalid(f"A name has 1 to {NAME_LENGTH_MAX} characters.", field="name")
    config = new.config
    if config.timeout is not None and config.timeout <= 0:
        raise Invalid("A timeout is more than 0 milliseconds.", field="config.timeout")
    texts: list[str]
    if isinstance(config, LocalServer):
        if not (config.command and config.command[0].strip()):
            raise Invalid("A local server has a command.", field="config.command")
        variables = config.environment or {}
        if any(not name or "=" in name for name in variables):
            raise Invalid("The name of a variable is not empty and has no '='.", field="config.environment")
        texts = [*config.command, config.cwd or "", *variables, *variables.values()]
    else:
        if not config.url.startswith(("http://", "https://")):
            raise Invalid("A remote server has an http or https url.", field="config.url")
        headers = config.headers or {}
        if any(not _is_header(text) for text in (*headers, *headers.values())) or "" in headers:
            raise Invalid("Headers are names and values of printable ASCII characters.", field="config.headers")
        texts = [config.url, *headers, *headers.values()]
    if len(texts) > _TEXTS_MAX or any("\0" in text or len(text) > _TEXT_LENGTH_MAX for text in texts):
        raise Invalid(f"At most {_TEXTS_MAX} texts of at most {_TEXT_LENGTH_MAX} characters.", field="config")
    values = {field: getattr(config, field) for field in config.__struct_fields__}
    return replace(McpConfig(), type="local" if isinstance(config, LocalServer) else "remote", **values)


def _is_header(text: str) -> bool:
    return text.isascii() and text.isprintable()
