"""`/v1/stream/…`: which request is which, and the writes. Reads are in `reads`, what is under `__ds/` in `control`."""

import math
import re
import time
from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.errors import Conflict, Denied, HoldfastError, Invalid
from holdfast.core.json_runs import to_run
from holdfast.core.offsets import Offset, to_offset, to_position
from holdfast.core.streams import JSON, Append, Create, Producer, Retention, Stream, StreamGone, media_type
from holdfast.protocols.durable_streams import responses
from holdfast.protocols.durable_streams.errors import RemoteProtocolError
from holdfast.protocols.durable_streams.links import link_of
from holdfast.protocols.durable_streams.paths import CONTROL, ROOT, is_control, parse_path, to_target
from holdfast.protocols.durable_streams.requests import Headers, parse_append, parse_create, parse_read
from holdfast.protocols.durable_streams.responses import Response
from holdfast.protocols.durable_streams.subscriptions import parse_bearer
from holdfast.server.asgi import HttpScope, Message, Receive, Send, read_body
from holdfast.server.streams.answers import send_response, to_response
from holdfast.server.streams.control import Control
from holdfast.server.streams.reads import Reads
from holdfast.service.stream_access import RIGHTS, RateLimit, StreamCredential, StreamCredentials
from holdfast.service.stream_links import StreamLinks
from holdfast.service.streams import StreamService
from holdfast.service.subscriptions import SubscriptionService

_PREFIX: Final = ROOT.encode()
_WITH_TOKEN: Final = re.compile(f"{ROOT}{CONTROL}/subscriptions/[^/]+/(callback|ack|release)".encode())


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """`body_bytes_max` of a request; `page_bytes_max` of a catch-up read. A long-poll waits at most `long_poll_seconds`, an
    SSE response ends after `sse_seconds` (clients resume) and says something at least every `keep_alive_seconds`.
    `public_url` is what absolute links begin with, if not what the client calls us. `credentials`: bearer tokens that are
    good for some streams; `requests_per_second` of a client (None: as many as it likes)."""

    body_bytes_max: int = 16 << 20
    page_bytes_max: int = 1 << 20
    long_poll_seconds: float = 15
    sse_seconds: float = 60
    keep_alive_seconds: float = 15
    public_url: str | None = None
    credentials: tuple[StreamCredential, ...] = ()
    requests_per_second: float | None = None


class StreamFace:
    """Serves every path under `/v1/stream/`; an ASGI application that is given the headers as a mapping, too. `pick(n)` gives
    a random number in [0, n)."""

    def __init__(
        self,
        streams: StreamService,
        subscriptions: SubscriptionService,
        links: StreamLinks,
        options: StreamOptions,
        *,
        clock: Clock,
        pick: Callable[[int], int],
    ) -> None:
        self._streams = streams
        self._control = Control(subscriptions, links, clock)
        self._links = links
        self._options = options
        self._credentials = StreamCredentials(options.credentials)
        self._rate = RateLimit(options.requests_per_second)
        self._reads = Reads(
            streams,
            clock=clock,
            pick=pick,
            page_bytes_max=options.page_bytes_max,
            long_poll_seconds=options.long_poll_seconds,
            sse_seconds=options.sse_seconds,
            keep_alive_seconds=options.keep_alive_seconds,
        )

    async def __call__(
        self, scope: HttpScope, headers: Headers, receive: Receive, send: Send, *, is_known: bool
    ) -> None:
        """`is_known`: whoever asks has the server's password, or needs none. Others come only if `vouches_for` says so."""
        if b"origin" in headers:
            send = _exposing(send)
        try:
            response = await self._answer(scope, headers, receive, send, is_known=is_known)
        except RemoteProtocolError as error:
            response = responses.error(400, str(error))
        except HoldfastError as error:
            response = to_response(error)
        if response is not None:
            await send_response(send, response)

    def vouches_for(self, scope: HttpScope, headers: Headers) -> bool:
        """True if the request brings a credential of this face's own, so that the server's password is not asked for: a
        bearer token from the list, or one that is checked later, which goes with a wake or is a link to read by."""
        token = parse_bearer(headers.get(b"authorization"))
        if token is None:
            return scope["method"] in ("GET", "HEAD") and link_of(scope["query_string"]) is not None
        return _goes_with_wake(scope["raw_path"]) or self._credentials.find(token) is not None

    async def _answer(
        self, scope: HttpScope, headers: Headers, receive: Receive, send: Send, *, is_known: bool
    ) -> Response | None:
        """None: the answer was sent already."""
        method: str = scope["method"]
        raw_path: bytes = scope["raw_path"]
        if method == "OPTIONS":
            return responses.preflight()
        path = parse_path(raw_path.removeprefix(_PREFIX))
        credential = self._credential(headers)
        client = scope.get("client")
        wait = self._rate.wait_seconds(
            credential.name if credential is not None else client[0] if client else "", time.monotonic()
        )
        if wait:
            return responses.error(429, "Too many requests.", [(b"retry-after", b"%d" % math.ceil(wait))])
        if not _goes_with_wake(raw_path):
            if credential is not None and is_control(path):
                raise Denied("Subscriptions, keys and links are for whoever has the server's password.")
            if credential is not None:
                credential.check(RIGHTS.get(method, "read"), path)
            elif not is_known:
                await self._links.check(path, link_of(scope["query_string"]) or "")
        match method:
            case _ if is_control(path):
                return await self._control.answer(
                    method,
                    path,
                    raw_path.decode("latin-1"),
                    headers,
                    lambda: self._body(headers, receive),
                    self._base(scope, headers),
                )
            case "POST":
                return await self._append(path, headers, await self._body(headers, receive))
            case "GET":
                request = parse_read(headers, scope["query_string"])
                return await self._reads.read(path, request, receive, send)
            case "PUT":
                body = await self._body(headers, receive)
                return await self._create(path, headers, body, self._base(scope, headers), credential)
            case "HEAD":
                return _describe(await self._streams.head(path))
            case "DELETE":
                await self._streams.delete(path)
                return Response(204, [])
            case _:
                return responses.error(405, f"A stream knows no {method}.", [(b"allow", responses.METHODS.encode())])

    def _credential(self, headers: Headers) -> StreamCredential | None:
        """None: whoever asks may do everything (the gate has let him in)."""
        if not self._options.credentials:
            return None
        token = parse_bearer(headers.get(b"authorization"))
        return self._credentials.find(token) if token is not None else None

    def _base(self, scope: HttpScope, headers: Headers) -> str:
        if self._options.public_url is not None:
            return self._options.public_url
        return f"{scope['scheme']}://{headers.get(b'host', b'').decode('latin-1')}"

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        return await read_body(receive, headers, self._options.body_bytes_max, hint="Append it in pieces.")

    async def _append(self, path: str, headers: Headers, body: bytes) -> Response:
        request = parse_append(headers, has_body=bool(body))
        if body and media_type(request.content_type or "") == JSON:
            body = to_run(body)
            if not body:
                raise Invalid("An empty array appends nothing.")
        stream, state, duplicate = await self._streams.append(
            Append(
                path=path,
                content_type=request.content_type,
                data=body,
                close=request.close,
                seq=request.seq,
                producer=Producer(*request.producer) if request.producer is not None else None,
                expected_tail=to_position(Offset(request.if_match)) if request.if_match is not None else None,
                snapshot=request.snapshot,
            )
        )
        return responses.appended(
            offset=to_offset(stream.tail), closed=stream.closed, is_news=bool(body) and not duplicate, producer=state
        )

    async def _create(
        self, path: str, headers: Headers, body: bytes, base: str, credential: StreamCredential | None
    ) -> Response:
        request = parse_create(headers)
        if credential is not None and request.forked_from is not None:
            credential.check("read", request.forked_from)
        content_type = request.content_type
        if body:
            if content_type is None and request.forked_from is not None:
                content_type = await self._inherited_type(request.forked_from)
            if media_type(content_type or "") == JSON:
                body = to_run(body)
        stream, existed = await self._streams.create(
            Create(
                path=path,
                content_type=content_type,
                data=body,
                closed=request.closed,
                ttl_seconds=request.ttl_seconds,
                expires_at_ms=request.expires_at_ms,
                expires_at=request.expires_at,
                source_path=request.forked_from,
                fork_at=to_position(Offset(request.fork_offset)) if request.fork_offset is not None else None,
                sub_offset=request.fork_sub_offset,
                retention=Retention(**request.retention) if request.retention is not None else None,
                snapshot=request.snapshot,
            )
        )
        return responses.created(
            existed=existed,
            location=base + to_target(path),
            content_type=stream.content_type,
            offset=to_offset(stream.tail),
            closed=stream.closed,
        )

    async def _inherited_type(self, source_path: str) -> str:
        """What a fork will hold, needed before it is made: the body is stored as the type says."""
        try:
            return (await self._streams.head(source_path)).content_type
        except StreamGone as error:
            raise Conflict(error.message) from None


def _goes_with_wake(raw_path: bytes) -> bool:
    """The token of a wake is all that a callback, an acknowledgement or a release needs."""
    return _WITH_TOKEN.fullmatch(raw_path) is not None


def _exposing(send: Send) -> Send:
    """For pages of other origins (the gate has admitted them, and names the origin)."""

    async def exposing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], responses.EXPOSED]
        await send(message)

    return exposing


def _describe(stream: Stream) -> Response:
    retention = stream.retention
    bounds = msgspec.structs.asdict(retention) if retention is not None else {}
    return responses.described(
        content_type=stream.content_type,
        offset=to_offset(stream.tail),
        closed=stream.closed,
        ttl_seconds=stream.ttl_seconds,
        expires_at=stream.expires_at,
        retention=", ".join(f"{name}={bound}" for name, bound in bounds.items() if bound is not None) or None,
        snapshot=stream.snapshot,
        earliest=to_offset(stream.horizon) if stream.horizon else None,
    )
