"""uvicorn's HTTP protocol with limits on what a connection may cost before anybody has looked at a request.

Rules
 1. The head of a request has at most `HEAD_BYTES_MAX` bytes: 431. So has what comes with a body and is none of it (extensions of
    chunks, trailers, which nobody here reads).
 2. A client that has begun a request, or has connected, and then sends nothing more of it for `IDLE_SECONDS` is let go: 408
    if it had begun one, and was told nothing yet. A head that comes in drops must be there after that time, too; a body has
    that time and a second for every `BODY_BYTES_PER_SECOND` that came of it, but for when it is we who do not read. How
    long an answer takes, and how long a client takes to read it, is not looked at here.
 3. An answer that has begun is not interrupted by one of these: the connection is closed instead.

Nothing of it costs a request more than a look at a counter: one timer a connection, and no look at headers one by one.
"""

import asyncio
from http import HTTPStatus
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES_MAX: Final = 64 << 10
IDLE_SECONDS: Final = 60.0
BODY_BYTES_PER_SECOND: Final = 1024


class HttpProtocol(HttpToolsProtocol):
    idle_seconds = IDLE_SECONDS
    body_bytes_per_second = BODY_BYTES_PER_SECOND

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = False
        self._in_body = False
        self._chunk = 0
        self._body_bytes = 0
        self._besides_body = 0
        self._head_at_most = 0
        self._head_at_least = 0
        self._began = self._heard = self._body_began = self.loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.idle_seconds, self._on_time)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        self._stop_timer()
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        self._head_at_most += self._chunk
        self._head_at_least += self._chunk
        self._besides_body += self._chunk
        self._heard = self.loop.time()
        super().data_received(data)
        if self._in_head and self._head_at_least > HEAD_BYTES_MAX:
            self.send_400_response("")
        elif self._in_body and self._besides_body > HEAD_BYTES_MAX:
            self._refuse(431, f"What comes with a body has at most {HEAD_BYTES_MAX} bytes.")

    # --- of the parser

    def on_message_begin(self) -> None:
        self._in_head = True
        self._began = self._heard
        self._head_at_most = self._chunk  # of which a part may belong to the request before
        self._head_at_least = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._head_at_most > HEAD_BYTES_MAX and self._head_bytes() > HEAD_BYTES_MAX:
            self._head_at_least = HEAD_BYTES_MAX + 1
            raise ValueError("The head is too large.")
        self._in_head = False
        self._in_body = True
        self._body_began = self._heard
        self._body_bytes = self._besides_body = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._besides_body = 0
        super().on_body(body)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    # --- limits

    def send_400_response(self, msg: str) -> None:
        """Also what uvicorn calls when the parser gives up."""
        if self._in_head and self._head_at_least > HEAD_BYTES_MAX:
            self._refuse(431, f"The head of a request has at most {HEAD_BYTES_MAX} bytes.")
        else:
            self._refuse(400, msg)

    def _on_time(self) -> None:
        if self.transport.is_closing():
            return
        now = self.loop.time()
        since = self._waiting_since()
        left = (since if since is not None else now) + self.idle_seconds - now
        if left <= 0:
            self._refuse(408, f"Nothing more came of the request for {self.idle_seconds:g} seconds.")
            return
        if self._in_body:
            if self.flow.read_paused:
                self._body_began, self._body_bytes = now, 0
            left_of_body = self._body_began + self.idle_seconds + self._body_bytes / self.body_bytes_per_second - now
            if left_of_body <= 0:
                self._refuse(408, f"The body comes with less than {self.body_bytes_per_second} bytes a second.")
                return
            left = min(left, left_of_body)
        self._timer = self.loop.call_later(left, self._on_time)

    def _waiting_since(self) -> float | None:
        """Since when we wait for the client to send something; None if we do not, or if uvicorn's keep-alive timer does."""
        cycle = self._cycle
        if self._in_head:
            return self._began
        if cycle is None:
            return self._heard
        if cycle.response_complete:
            return self._heard if self.timeout_keep_alive_task is None else None
        return self._heard if cycle.more_body and not self.flow.read_paused else None

    @property
    def _cycle(self) -> RequestResponseCycle | None:
        """uvicorn does not say that there is none before the first request."""
        return self.cycle

    def _refuse(self, status: int, text: str) -> None:
        cycle = self._cycle
        is_answering = cycle is not None and cycle.response_started and not cycle.response_complete
        is_answering = is_answering or bool(self.pipeline)  # the request that is answered now is another than `cycle`
        is_asked = self._in_head or (cycle is not None and not cycle.response_complete)
        if not is_answering and (is_asked or status != 408):
            head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
            head += f"content-length: {len(text)}\r\nconnection: close\r\n\r\n"
            self.transport.write(head.encode() + text.encode())
        self.transport.close()

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
