"""One connection to an MCP server through the official library. Imported when the first server is connected (see `base`).

Rules
 1. The handshake is the one that every server knows; a server that knows only the newer one is asked again that way.
    A remote server is spoken to over streamable HTTP, and over the older SSE if it does not know that.
 2. What a server sends is bounded and never trusted: messages by size, lists by length, schemas by being schemas.
 3. Everything that goes wrong is one of the errors in `base`, in words for people.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

import httpx2
import structlog
from mcp import Client, types
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.exceptions import OAuthFlowError, OAuthRegistrationError
from mcp.shared.exceptions import MCPError
from mcp.types import (
    CONNECTION_CLOSED,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_PROTOCOL_VERSION,
    TextContent,
)
from pydantic import ValidationError

from holdfast import __version__
from holdfast.agent.mcp.answers import outcome_of, problem_of
from holdfast.agent.mcp.base import (
    TOOLS_MAX,
    CallOutcome,
    ListedPrompt,
    ListedResource,
    ListedTool,
    NeedsAuth,
    NeedsClientRegistration,
    PromptArgument,
    ServerFailed,
    SessionLost,
)
from holdfast.agent.mcp.local import Streams, local_streams
from holdfast.agent.mcp.remote import over_sse, over_streamable_http
from holdfast.agent.tools.conversations import LastWords
from holdfast.agent.tools.processes import Processes
from holdfast.core.config import McpConfig

_PAGES_MAX: Final = 50
_DESCRIPTION_MAX: Final = 16_000
_SESSION_GONE: Final = "Session terminated"

_T = TypeVar("_T")

log = structlog.get_logger()
for _name in ("mcp", "httpx2", "httpcore2"):  # their lines may hold what must not be logged: addresses, answers, tokens
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False


class _Page(Protocol):
    next_cursor: str | None


class Session:
    """A connection that works. `lost` is set when it does not any more, and `why` says the reason."""

    def __init__(self, client: Client, link: "_Link") -> None:
        self._client = client
        self._link = link

    @property
    def is_lost(self) -> bool:
        return self._link.lost.is_set()

    @property
    def why(self) -> str:
        return self._link.why or "The connection was closed."

    async def changed(self) -> bool:
        """Wait until the server says that it has other tools; False when the connection is lost."""
        waiting = [asyncio.create_task(event.wait()) for event in (self._link.lost, self._link.changed)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        self._link.changed.clear()
        return not self.is_lost

    # --- what there is

    async def tools(self) -> list[ListedTool]:
        """Those that can be offered: with a schema that is one. Raises ServerFailed."""
        if self._client.server_capabilities.tools is None:
            return []
        found: dict[str, ListedTool] = {}
        async for tool in self._all(lambda cursor: self._client.list_tools(cursor=cursor), lambda page: page.tools):
            problem = "it is there twice" if tool.name in found else problem_of(tool.input_schema)
            if problem is not None:
                log.warning("mcp.tool_left_out", tool=tool.name[:100], reason=problem)
                continue
            found[tool.name] = ListedTool(
                name=tool.name,
                description=(tool.description or "")[:_DESCRIPTION_MAX],
                parameters={**tool.input_schema, "properties": tool.input_schema.get("properties") or {}},
                read_only=tool.annotations is not None and tool.annotations.read_only_hint is True,
            )
        return list(found.values())

    async def prompts(self) -> list[ListedPrompt]:
        if self._client.server_capabilities.prompts is None:
            return []
        return [
            ListedPrompt(
                name=prompt.name,
                description=prompt.description,
                arguments=tuple(
                    PromptArgument(name=argument.name, required=bool(argument.required))
                    for argument in prompt.arguments or ()
                ),
            )
            async for prompt in self._all(
                lambda cursor: self._client.list_prompts(cursor=cursor), lambda page: page.prompts
            )
        ]

    async def resources(self) -> list[ListedResource]:
        if self._client.server_capabilities.resources is None:
            return []
        return [
            ListedResource(
                name=resource.name,
                uri=str(resource.uri),
                description=resource.description,
                mime_type=resource.mime_type,
            )
            async for resource in self._all(
                lambda cursor: self._client.list_resources(cursor=cursor), lambda page: page.resources
            )
        ]

    async def _all(
        self, get: Callable[[str | None], Awaitable[_Page]], items: Callable[[Any], Sequence[Any]]
    ) -> AsyncIterator[Any]:
        cursor: str | None = None
        count = 0
        for _ in range(_PAGES_MAX):
            page = await self._asked(get(cursor))
            for item in items(page):
                count += 1
                if count > TOOLS_MAX:
                    log.warning("mcp.list_cut", items=TOOLS_MAX)
                    return
                yield item
            cursor = page.next_cursor
            if cursor is None:
                return

    # --- what it does

    async def call(self, name: str, input: dict[str, Any], progressed: Callable[[], None]) -> CallOutcome:
        """Call a tool. Cancel it to call it off: the server is told. Raises ServerFailed."""

        async def progress(progress: float, total: float | None, message: str | None) -> None:
            progressed()

        call = self._client.call_tool(name, input, progress_callback=progress)
        return outcome_of(await self._asked(call))

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        """The text of a prompt. Raises ServerFailed."""
        result = await self._asked(self._client.get_prompt(name, arguments))
        texts = [message.content.text for message in result.messages if isinstance(message.content, TextContent)]
        return "\n".join(texts)

    async def _asked(self, request: Awaitable[_T]) -> _T:
        """Its answer. Raises ServerFailed, SessionLost."""
        try:
            return await request
        except MCPError as error:
            gone = error.code == INVALID_REQUEST and error.message == _SESSION_GONE
            if gone or error.code == CONNECTION_CLOSED:
                self._link.lose("The server does not know the session any more." if gone else error.message)
                raise SessionLost(self.why, may_have_run=not gone) from None
            raise ServerFailed(self._link.clean(error.message)) from None
        except ValidationError as error:
            raise ServerFailed(f"Its answer is not what the protocol says ({error.title}).") from None
        except (
            RuntimeError
        ) as error:  # structured output that is not what its schema says, too many rounds of questions
            raise ServerFailed(self._link.clean(str(error))) from None


class _Link:
    """What is known of a connection beside its messages."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self.clean = clean
        self.lost = asyncio.Event()
        self.changed = asyncio.Event()
        self.why: str | None = None
        self.status: int | None = None

    def lose(self, why: str) -> None:
        if not self.lost.is_set():
            self.why = self.why or self.clean(why)
            self.lost.set()

    def ended(self, why: str) -> None:
        """Why the connection is about to be lost."""
        self.why = self.clean(why)

    async def heard(self, message: Any) -> None:
        if isinstance(message, types.ToolListChangedNotification):
            self.changed.set()

    async def answered(self, response: httpx2.Response) -> None:
        if response.status_code >= 400:
            self.status = response.status_code


class _Watched:
    """A stream of messages that says when it ended."""

    def __init__(self, stream: Any, link: _Link) -> None:
        self._stream = stream
        self._link = link

    @property
    def last_context(self) -> Any:
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Any:
        try:
            return await self._stream.receive()
        except Exception:
            self._link.lose("The connection was closed.")
            raise

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> "_Watched":
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._stream)
        except (Exception, StopAsyncIteration):
            self._link.lose("The connection was closed.")
            raise

    async def __aenter__(self) -> "_Watched":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@contextlib.asynccontextmanager
async def connected(
    config: McpConfig,
    *,
    processes: Processes,
    directory: Path,
    auth: OAuthClientProvider | None,
    clean: Callable[[str], str],
    log_line: Callable[[str], None],
) -> AsyncGenerator[Session, None]:
    """A session with that server, until the context is left. `clean` takes secrets out of a text. Raises ServerFailed,
    NeedsAuth, NeedsClientRegistration."""
    link = _Link(clean)
    try:
        async with contextlib.AsyncExitStack() as stack:
            client = await _first_that_works(config, stack, link, processes, directory, auth, log_line)
            yield Session(client, link)
    except Exception as error:  # of a group of tasks, as soon as one of them fails
        raise (_explained(error, link) or error) from None
    finally:
        link.lose("The connection was closed.")


async def _first_that_works(
    config: McpConfig,
    stack: contextlib.AsyncExitStack,
    link: _Link,
    processes: Processes,
    directory: Path,
    auth: OAuthClientProvider | None,
    log_line: Callable[[str], None],
) -> Client:
    def local() -> AbstractAsyncContextManager[Streams]:
        assert config.command
        return local_streams(
            processes,
            config.command,
            directory=directory / (config.cwd or ""),
            variables=config.environment or {},
            words=LastWords(lambda line: log_line(link.clean(line))),
            ended=link.ended,
        )

    transports: list[Callable[[], AbstractAsyncContextManager[Streams]]] = [local]
    if config.type == "remote":
        transports = [
            lambda: over_streamable_http(config, auth, link.answered),
            lambda: over_sse(config, auth, link.answered),
        ]
    for last, transport in zip((*(False for _ in transports[1:]), True), transports, strict=True):
        for mode in ("legacy", "auto"):
            client = Client(
                _watched(transport(), link),
                mode=mode,
                cache=None,
                message_handler=link.heard,
                client_info=types.Implementation(name="holdfast", version=__version__),
            )
            try:
                return await stack.enter_async_context(client)
            except Exception as error:
                said = next((cause for cause in _causes(error) if isinstance(cause, MCPError)), None)
                if said is not None and said.code == UNSUPPORTED_PROTOCOL_VERSION and mode == "legacy":
                    continue
                if last or said is None or not _is_another_protocol(said, link):
                    raise
                break
    raise AssertionError("one of them returned or raised")


def _is_another_protocol(error: MCPError, link: _Link) -> bool:
    """The address exists, but does not know streamable HTTP: as servers do that know SSE only."""
    return error.code == METHOD_NOT_FOUND or link.status in (400, 404, 405)


@contextlib.asynccontextmanager
async def _watched(transport: AbstractAsyncContextManager[Streams], link: _Link) -> AsyncGenerator[Streams, None]:
    async with transport as (read, write):
        link.lost.clear()
        link.why = None
        yield _Watched(read, link), write


# --- what went wrong --------------------------------------------------------------------------------------------


def _explained(error: BaseException, link: _Link) -> Exception | None:
    """The error for those above; None for what is not about the server (a cancellation, a defect of ours)."""
    causes = list(_causes(error))
    for cause in causes:
        match cause:
            case NeedsAuth():
                return cause
            case OAuthRegistrationError():
                return NeedsClientRegistration(link.clean(_first_line(str(cause))))
            case _:
                pass
    for cause in causes:
        match cause:
            case ServerFailed():
                return ServerFailed(link.clean(str(cause)))
            case OAuthFlowError():
                return ServerFailed(link.clean(f"The login failed: {_first_line(str(cause))}"))
            case MCPError():
                if link.why is not None and cause.code == CONNECTION_CLOSED:
                    return ServerFailed(link.why)
                said = f" (HTTP {link.status})" if link.status is not None else ""
                return ServerFailed(link.clean(f"{_first_line(cause.message)}{said}"))
            case httpx2.HTTPError() | httpx2.InvalidURL() | ValidationError() | OSError() | RuntimeError():
                return ServerFailed(link.clean(_words(cause)))
            case _:
                pass
    return None


def _causes(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        group = cast(BaseExceptionGroup[BaseException], error)
        return [cause for inner in group.exceptions for cause in _causes(inner)]
    return [error]


def _words(error: BaseException) -> str:
    cause = next(iter(_causes(error)), error)
    if isinstance(cause, httpx2.HTTPStatusError):
        return f"It answered HTTP {cause.response.status_code}."
    if isinstance(cause, httpx2.HTTPError):
        return f"It could not be reached: {_first_line(str(cause)) or type(cause).__name__}"
    if isinstance(cause, ValidationError):
        return f"Its answer is not what the protocol says ({cause.title})."
    return _first_line(str(cause)) or type(cause).__name__


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300]
