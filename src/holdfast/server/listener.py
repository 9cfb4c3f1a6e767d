"""uvicorn on a socket of ours, started and stopped in good order, without its own ideas about signals and logs. What a
connection may cost is in `http_protocol`."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import Any, Final, Self, cast

import uvicorn

from holdfast.core.errors import Unavailable
from holdfast.server.asgi import App
from holdfast.server.http_protocol import HttpProtocol

_GRACE_SECONDS: Final = 2
_KEEP_ALIVE_SECONDS: Final = 75
_BACKLOG: Final = 2048
_SOCKET_FRAME_BYTES_MAX: Final = 1 << 20
COPIED_BYTES_MAX: Final = 1 << 16
"""A larger body is not copied behind its head."""

_HEAD_START: Final = b"HTTP/1.1 "


class Listener:
    """`async with Listener(app, host, port, stopping=…) as listener:` serves at `listener.url`. `stopping` is called when
    it stops, after new connections are refused and while answers that are under way are finished. `bound` is a socket
    that has the address already."""

    def __init__(
        self,
        app: App,
        host: str,
        port: int,
        *,
        stopping: Callable[[], Awaitable[None]] | None = None,
        bound: socket.socket | None = None,
    ) -> None:
        self._app = app
        self._host = host
        self._port = port
        self._stopping = stopping
        self._bound = bound
        self.url = ""

    async def __aenter__(self) -> Self:
        """Raises Unavailable if the address cannot be had."""
        self._socket = self._bound or bind(self._host, self._port)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            cast(Any, self._app),
            interface="asgi3",
            http=_Protocol,
            ws="websockets-sansio",
            ws_max_size=_SOCKET_FRAME_BYTES_MAX,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        self._server = _Server(config, self._stopping)
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait((ready, self._task), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        await self._task


class _Protocol(HttpProtocol):
    """Answers leave in one packet."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(AnswerTransport(transport, self.loop))

    def on_response_complete(self) -> None:
        cast(AnswerTransport, self.transport).flush()
        super().on_response_complete()


class AnswerTransport(asyncio.Transport):
    """A transport that sends the head of an answer together with what is written next, at the latest in the next turn of the
    loop: uvicorn writes head and body apart, which costs the server a system call more, and the client a wake-up."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._head = b""
        for name in _SAME:
            setattr(self, name, getattr(transport, name))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._head and data[:9] == _HEAD_START:
            self._head = bytes(data)
            self._loop.call_soon(self.flush)
        elif self._head and 0 < len(data) <= COPIED_BYTES_MAX:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self.flush()
            self._transport.write(data)

    def flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._transport.close()


_SAME: Final = (
    "get_extra_info",
    "is_closing",
    "set_protocol",
    "get_protocol",
    "pause_reading",
    "resume_reading",
    "is_reading",
    "set_write_buffer_limits",
    "get_write_buffer_limits",
    "get_write_buffer_size",
    "abort",
)
"""What is the business of the transport below."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: Callable[[], Awaitable[None]] | None) -> None:
        super().__init__(config)
        self._stopping = stopping
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the business of whoever owns the process."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams and waiting prompts end only when they are told to, and uvicorn waits for them: so, side by side.
        stopping = asyncio.ensure_future(self._stopping()) if self._stopping is not None else None
        await super().shutdown(sockets)
        if stopping is not None:
            await stopping


def bind(host: str, port: int) -> socket.socket:
    """Have the address: whoever connects from now on waits until somebody serves. Raises Unavailable if another program has
    it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)  # a bound socket alone would let another program bind the same
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise Unavailable(
            f"Cannot listen on {host}:{port}: {error.strerror or error}",
            hint="Another program may have the port: choose one with --port, or 0 for any that is free.",
        ) from error
    listening.setblocking(False)
    return listening
