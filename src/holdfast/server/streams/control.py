"""`/v1/stream/__ds/…`: subscriptions, the keys that webhooks are signed with, and links to read by."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError, Invalid, NotFound, TooLarge, Unavailable
from holdfast.core.offsets import Offset, to_offset, to_position
from holdfast.core.subscriptions import (
    AlreadyClaimed,
    InvalidOffset,
    StreamPosition,
    Subscription,
    SubscriptionConfig,
    Tails,
    TokenInvalid,
    WebhookUrlRejected,
)
from holdfast.protocols.durable_streams import globs, responses
from holdfast.protocols.durable_streams import subscriptions as wire
from holdfast.protocols.durable_streams.errors import RemoteProtocolError
from holdfast.protocols.durable_streams.links import link_json, parse_link_request
from holdfast.protocols.durable_streams.paths import CONTROL
from holdfast.protocols.durable_streams.requests import Headers
from holdfast.protocols.durable_streams.responses import Response
from holdfast.protocols.durable_streams.subscriptions import AckRequest, Route, StreamInfo, SubscriptionRequest
from holdfast.service.stream_links import LINK_SECONDS, LINK_SECONDS_MAX, StreamLinks
from holdfast.service.subscriptions import SubscriptionService

_OFFSET = re.compile(r"[0-9]{16}_[0-9]{16}", re.ASCII)


class Wording:
    """`service.subscriptions.Wording`, in the words of Durable Streams."""

    signed_text = staticmethod(wire.signed_text)
    signature_header = staticmethod(wire.signature_header)
    is_done = staticmethod(wire.is_done)

    def compile_glob(self, pattern: str) -> Callable[[str], bool]:
        try:
            glob = globs.compile_glob(pattern)
        except RemoteProtocolError as error:
            raise Invalid(str(error), field="pattern") from None
        return lambda path: globs.matches(glob, path)

    def notification(self, subscription: Subscription, tails: Tails, token: str) -> bytes:
        assert subscription.wake_id is not None
        return wire.notification_json(
            subscription_id=subscription.id,
            wake_id=subscription.wake_id,
            generation=subscription.generation,
            streams=_infos(subscription, tails),
            base=subscription.base,
            token=token,
        )

    def wake_record(self, subscription: Subscription, now_ms: int) -> bytes:
        return wire.wake_json(
            subscription_id=subscription.id,
            stream=subscription.trigger,
            generation=subscription.generation,
            now_ms=now_ms,
        )


class Control:
    def __init__(self, subscriptions: SubscriptionService, links: StreamLinks, clock: Clock) -> None:
        self._subscriptions = subscriptions
        self._links = links
        self._clock = clock

    async def answer(
        self, method: str, path: str, raw_path: str, headers: Headers, body: Callable[[], Any], base: str
    ) -> Response:
        """`body` reads the request's. Errors are JSON here: `{"error": {"code", "message"}}`."""
        try:
            if path == f"{CONTROL}/jwks.json":
                return await self._jwks(method)
            if path == f"{CONTROL}/links":
                return await self._link(method, body, base)
            route = wire.parse_route(path, raw_path)
            if route is None:
                return _error(404, "NOT_FOUND", "There is nothing here.")
            return await self._act(method, route, headers, body, base)
        except RemoteProtocolError as error:
            return _error(400, "INVALID_REQUEST", str(error))
        except HoldfastError as error:
            return _to_response(error)

    async def _jwks(self, method: str) -> Response:
        if method not in ("GET", "HEAD"):
            return _not_allowed("GET, HEAD")
        keys = await self._subscriptions.signer.public_keys(self._clock.now_ms())
        caching = (b"cache-control", b"public, max-age=300") if keys else responses.NO_STORE
        return Response(200, [(b"content-type", b"application/jwk-set+json"), caching], wire.jwks_json(keys))

    async def _link(self, method: str, body: Callable[[], Any], base: str) -> Response:
        if method != "POST":
            return _not_allowed("POST")
        request = parse_link_request(await body(), seconds=LINK_SECONDS, seconds_max=LINK_SECONDS_MAX)
        link = await self._links.make(request.path, seconds=request.seconds)
        answer = link_json(base=base, path=request.path, token=link.token, until_seconds=link.until_seconds)
        return responses.json(201, answer)

    async def _act(self, method: str, route: Route, headers: Headers, body: Callable[[], Any], base: str) -> Response:
        service, id = self._subscriptions, route.subscription_id
        match route.action, method:
            case "base", "PUT":
                request = wire.parse_subscription(await body())
                subscription, is_new = await service.create(id, SubscriptionConfig(**request._asdict()), base)
                return self._describe(subscription, 201 if is_new else 200)
            case "base", "GET" | "HEAD":
                return self._describe(service.get(id), 200)
            case "base", "DELETE":
                await service.delete(id)
                return Response(204, [])
            case "streams", "POST":
                await service.add_streams(id, wire.parse_streams(await body()))
                return Response(204, [])
            case "stream", "DELETE":
                await service.remove_stream(id, route.stream)
                return Response(204, [])
            case "claim", "POST":
                subscription, token = await service.claim(id, wire.parse_claim(await body()))
                assert subscription.wake_id is not None
                answer = wire.claim_json(
                    wake_id=subscription.wake_id,
                    generation=subscription.generation,
                    token=token,
                    streams=_infos(subscription, service.tails),
                    lease_ttl_ms=subscription.config.lease_ttl_ms,
                )
                return responses.json(200, answer)
            case (("callback" | "ack" | "release"), "POST"):
                token = wire.parse_bearer(headers.get(b"authorization"))
                if token is None:
                    raise TokenInvalid("The token belongs into the header Authorization, as Bearer.")
                await service.signer.token_generation(token, id)  # a stranger's body is not read
                ack = wire.parse_ack(await body())
                if route.action == "release":
                    await service.release(id, token, wake_id=ack.wake_id, generation=ack.generation)
                    return Response(204, [])
                next_wake = await service.acknowledge(
                    id,
                    token,
                    wake_id=ack.wake_id,
                    generation=ack.generation,
                    acks=_positions(ack),
                    done=ack.done,
                    pull=route.action == "ack",
                )
                return responses.json(200, wire.ack_json(next_wake=next_wake))
            case "base", _:
                return _not_allowed("GET, PUT, DELETE")
            case "stream", _:
                return _not_allowed("DELETE")
            case _:
                return _not_allowed("POST")

    def _describe(self, subscription: Subscription, status: int) -> Response:
        config = subscription.config
        request = SubscriptionRequest(
            type=config.type,
            pattern=config.pattern,
            streams=config.streams,
            webhook_url=config.webhook_url,
            wake_stream=config.wake_stream,
            lease_ttl_ms=config.lease_ttl_ms,
            description=config.description,
        )
        created = datetime.fromtimestamp(subscription.created_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return responses.json(
            status,
            wire.subscription_json(
                id=subscription.id,
                request=request,
                streams=_infos(subscription, self._subscriptions.tails),
                created_at=created.replace("+00:00", "Z"),
                status=subscription.status,
                kid=self._subscriptions.signer.kid,
                base=subscription.base,
            ),
        )


def _infos(subscription: Subscription, tails: Tails) -> Sequence[StreamInfo]:
    return [
        StreamInfo(
            path,
            link.explicit,
            to_offset(link.acked),
            to_offset(tails.get(path, 0)),
            tails.get(path, 0) > link.acked,
        )
        for path, link in subscription.links.items()
    ]


def _positions(request: AckRequest) -> list[StreamPosition]:
    for stream, offset in request.acks:
        if not _OFFSET.fullmatch(offset):
            raise InvalidOffset(f"Not an offset that can be acknowledged, of {stream[:200]}.")
    return [StreamPosition(stream, to_position(Offset(offset))) for stream, offset in request.acks]


def _to_response(error: HoldfastError) -> Response:
    match error:
        case AlreadyClaimed():
            more = {"current_holder": error.holder, "generation": error.generation}
            return responses.json(409, wire.error_json(error.code, error.message, **more))
        case NotFound():
            return _error(404, error.code, error.message)
        case TokenInvalid():
            return _error(401, error.code, error.message)
        case WebhookUrlRejected():
            return _error(400, error.code, error.message)
        case TooLarge():
            return _error(413, "INVALID_REQUEST", error.message)
        case Invalid():
            return _error(400, "INVALID_REQUEST", error.message)
        case Unavailable():
            return _error(503, "UNAVAILABLE", error.message + (f" {error.hint}" if error.hint else ""))
        case _ if error.fault == "caller":
            return _error(409, error.code, error.message)
        case _:
            raise error


def _error(status: int, code: str, message: str) -> Response:
    return responses.json(status, wire.error_json(code, message))


def _not_allowed(methods: str) -> Response:
    return responses.error(405, "Not that way.", [(b"allow", methods.encode())])
