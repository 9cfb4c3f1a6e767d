"""A server at an address: over streamable HTTP, or over the older SSE. What it answers is bounded. `answered` is told of each
answer."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, cast

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from holdfast.agent.mcp.base import MESSAGE_BYTES_MAX
from holdfast.agent.mcp.local import Streams
from holdfast.core.config import McpConfig

_HTTP_SECONDS: Final = 30.0

Answered = Callable[[httpx2.Response], Awaitable[None]]


@contextlib.asynccontextmanager
async def over_streamable_http(
    config: McpConfig, auth: OAuthClientProvider | None, answered: Answered
) -> AsyncGenerator[Streams, None]:
    assert config.url
    async with (
        _http_client(config, auth, answered) as http,
        streamable_http_client(config.url, http_client=http, max_sse_event_size=MESSAGE_BYTES_MAX) as streams,
    ):
        yield streams


@contextlib.asynccontextmanager
async def over_sse(
    config: McpConfig, auth: OAuthClientProvider | None, answered: Answered
) -> AsyncGenerator[Streams, None]:
    assert config.url

    def client(
        headers: dict[str, str] | None = None, timeout: httpx2.Timeout | None = None, auth: httpx2.Auth | None = None
    ) -> httpx2.AsyncClient:
        return _http_client(config, auth, answered)

    async with sse_client(config.url, auth=auth, httpx_client_factory=client) as streams:
        yield streams


def _http_client(config: McpConfig, auth: httpx2.Auth | None, answered: Answered) -> httpx2.AsyncClient:
    """Streams may be silent for as long as they like: what a call may take is counted by whoever makes it."""
    headers = httpx2.Headers(config.headers)
    headers["accept-encoding"] = "identity"
    return httpx2.AsyncClient(
        headers=headers,
        auth=auth,
        timeout=httpx2.Timeout(_HTTP_SECONDS, read=None),
        event_hooks={"response": [answered]},
        transport=_Bounded(),
    )


class _Bounded(httpx2.AsyncHTTPTransport):
    """Answers that are no streams end at `MESSAGE_BYTES_MAX`. Those that are packed, which nobody asked for, could become a
    thousand times as long: they are none."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
            await response.aclose()
            raise httpx2.ReadError("its answer is compressed, which was not asked for")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _BoundedStream(cast(httpx2.AsyncByteStream, response.stream))
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = MESSAGE_BYTES_MAX
        async for data in self._stream:
            left -= len(data)
            if left < 0:
                raise httpx2.ReadError(f"it answered more than {MESSAGE_BYTES_MAX >> 20} MB")
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()
