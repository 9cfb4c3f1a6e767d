"""What is under `__ds/`: bodies of requests, answers, notifications and their signatures. JSON in and out, no I/O.

A signature is `t=<unix seconds>,kid=<key>,ed25519=<base64url>` over `<t>.<body>`; a key is found under its kid in the JWKS.
"""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, cast
from urllib.parse import quote, unquote

from holdfast.protocols.durable_streams.bodies import parse_object
from holdfast.protocols.durable_streams.errors import RemoteProtocolError
from holdfast.protocols.durable_streams.paths import CONTROL, PATH_BYTES_MAX, ROOT, check_path, is_control

LEASE_TTL_MS: Final = 30_000
LEASE_TTL_MS_RANGE: Final = range(1_000, 600_001)
TEXT_CHARACTERS_MAX: Final = 2048
STREAMS_MAX: Final = 1000

Action = Literal["base", "streams", "stream", "callback", "claim", "ack", "release"]


class Route(NamedTuple):
    """`stream` is the path that the action "stream" is about."""

    subscription_id: str
    action: Action
    stream: str = ""


class SubscriptionRequest(NamedTuple):
    type: Literal["webhook", "pull-wake"]
    pattern: str | None
    streams: tuple[str, ...]
    webhook_url: str | None
    wake_stream: str | None
    lease_ttl_ms: int
    description: str | None


class AckRequest(NamedTuple):
    """`acks` are (stream, offset) as they were written; `generation` and `wake_id` None if missing."""

    wake_id: str | None
    generation: int | None
    acks: tuple[tuple[str, str], ...]
    done: bool


class StreamInfo(NamedTuple):
    path: str
    explicit: bool
    acked_offset: str
    tail_offset: str
    has_pending: bool


# --- requests ---------------------------------------------------------------------------------------------------


def parse_route(path: str, raw_path: str) -> Route | None:
    """`path` as `paths.parse_path` gives it; `raw_path` is the same, still percent-encoded, since an id may hold a slash."""
    rest = raw_path.removeprefix(ROOT).removeprefix(f"{CONTROL}/subscriptions/")
    if not path.startswith(f"{CONTROL}/subscriptions/") or not rest:
        return None
    first, *more = rest.strip("/").split("/")
    subscription_id = unquote(first)
    if len(subscription_id) > 256:
        raise RemoteProtocolError("The id of a subscription has at most 256 characters.")
    match more:
        case []:
            return Route(subscription_id, "base")
        case ["streams"]:
            return Route(subscription_id, "streams")
        case ["streams", *stream]:
            return Route(subscription_id, "stream", check_path(unquote("/".join(stream))))
        case ["callback" | "claim" | "ack" | "release" as action]:
            return Route(subscription_id, cast(Action, action))
        case _:
            return None


def parse_subscription(body: bytes) -> SubscriptionRequest:
    given = parse_object(body)
    kind = given.get("type")
    if kind not in ("webhook", "pull-wake"):
        raise RemoteProtocolError('`type` must be "webhook" or "pull-wake".')
    pattern = _optional_text(given, "pattern")
    streams = tuple(sorted({_check_stream(stream) for stream in _texts(given, "streams")}))
    if not pattern and not streams:
        raise RemoteProtocolError("A subscription needs a `pattern`, or `streams`, or both.")
    lease: Any = given.get("lease_ttl_ms", LEASE_TTL_MS)
    if type(lease) is not int or lease not in LEASE_TTL_MS_RANGE:
        raise RemoteProtocolError("`lease_ttl_ms` must be a whole number from 1000 to 600000.")
    url = None
    wake_stream = _optional_text(given, "wake_stream")
    if kind == "webhook":
        webhook = given.get("webhook")
        url = _optional_text(cast(dict[str, Any], webhook), "url") if isinstance(webhook, dict) else None
        if not url:
            raise RemoteProtocolError("A webhook subscription needs `webhook.url`.")
    elif not wake_stream:
        raise RemoteProtocolError("A pull-wake subscription needs a `wake_stream`.")
    return SubscriptionRequest(
        type=kind,
        pattern=pattern.strip("/") if pattern else None,
        streams=streams,
        webhook_url=url,
        wake_stream=_check_stream(wake_stream) if wake_stream else None,
        lease_ttl_ms=lease,
        description=_optional_text(given, "description"),
    )


def parse_streams(body: bytes) -> tuple[str, ...]:
    streams = _texts(parse_object(body), "streams")
    if not streams:
        raise RemoteProtocolError("`streams` must be an array of paths, at least one.")
    return tuple(_check_stream(stream) for stream in streams)


def parse_claim(body: bytes) -> str:
    worker = _optional_text(parse_object(body), "worker")
    if not worker:
        raise RemoteProtocolError("`worker` must say who claims.")
    return worker


def parse_ack(body: bytes) -> AckRequest:
    given = parse_object(body)
    generation: Any = given.get("generation")
    acks: Any = given.get("acks") or []
    if not isinstance(acks, list):
        raise RemoteProtocolError("`acks` must be an array.")
    found: list[tuple[str, str]] = []
    for ack in cast(list[Any], acks):
        if not isinstance(ack, dict):
            raise RemoteProtocolError("An ack is an object: {stream, offset}.")
        fields = cast(dict[str, Any], ack)
        stream, offset = fields.get("stream", fields.get("path")), fields.get("offset")
        if not isinstance(stream, str) or not isinstance(offset, str):
            raise RemoteProtocolError("An ack is an object: {stream, offset}.")
        found.append((check_path(stream), offset))
    return AckRequest(
        _optional_text(given, "wake_id"),
        generation if type(generation) is int else None,
        tuple(found),
        given.get("done") is True,
    )


def is_done(body: bytes) -> bool:
    """What a webhook answers: `{"done": true}` acknowledges all it was told."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(answer, dict) and cast(dict[str, Any], answer).get("done") is True


def parse_bearer(header: bytes | None) -> str | None:
    kind, _, token = (header or b"").decode("latin-1").partition(" ")
    return token.strip() or None if kind.lower() == "bearer" else None


def _check_stream(path: str) -> str:
    path = check_path(path)
    if is_control(path):
        raise RemoteProtocolError(f"What is under {CONTROL} is no stream.")
    return path


def _optional_text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if (
        not isinstance(value, str)
        or len(value) > TEXT_CHARACTERS_MAX
        or any(ord(character) < 32 for character in value)
    ):
        raise RemoteProtocolError(f"`{name}` must be a text of at most {TEXT_CHARACTERS_MAX} characters, on one line.")
    return value


def _texts(given: Mapping[str, Any], name: str) -> list[str]:
    values: Any = given.get(name) or []
    if not isinstance(values, list) or len(cast(list[Any], values)) > STREAMS_MAX:
        raise RemoteProtocolError(f"`{name}` must be an array of at most {STREAMS_MAX} paths.")
    for value in cast(list[Any], values):
        if not isinstance(value, str) or len(value) > PATH_BYTES_MAX:
            raise RemoteProtocolError(f"`{name}` must hold paths only.")
    return cast(list[str], values)


# --- answers ----------------------------------------------------------------------------------------------------


def subscription_json(
    *,
    id: str,
    request: SubscriptionRequest,
    streams: Sequence[StreamInfo],
    created_at: str,
    status: str,
    kid: str,
    base: str,
) -> bytes:
    answer: dict[str, Any] = {
        "id": id,
        "subscription_id": id,
        "type": request.type,
        "pattern": request.pattern,
        "streams": [
            {"path": stream.path, "link_type": _link_type(stream), "acked_offset": stream.acked_offset}
            for stream in streams
        ],
        "wake_stream": request.wake_stream,
        "lease_ttl_ms": request.lease_ttl_ms,
        "created_at": created_at,
        "status": status,
        "description": request.description,
    }
    if request.webhook_url is not None:
        signing = {"alg": "ed25519", "kid": kid, "jwks_url": f"{base}{ROOT}{CONTROL}/jwks.json"}
        answer["webhook"] = {"url": request.webhook_url, "signing": signing}
    return _dump({name: value for name, value in answer.items() if value is not None})


def claim_json(*, wake_id: str, generation: int, token: str, streams: Sequence[StreamInfo], lease_ttl_ms: int) -> bytes:
    return _dump(
        {
            "wake_id": wake_id,
            "generation": generation,
            "token": token,
            "streams": [_info(stream) for stream in streams],
            "lease_ttl_ms": lease_ttl_ms,
        }
    )


def ack_json(*, next_wake: bool) -> bytes:
    return _dump({"ok": True, "next_wake": next_wake})


def error_json(code: str, message: str, **more: Any) -> bytes:
    return _dump({"error": {"code": code, "message": message, **more}})


def jwks_json(public_keys: Mapping[str, bytes]) -> bytes:
    return _dump({"keys": [_jwk(public, kid=kid) for kid, public in public_keys.items()]})


# --- notifications ----------------------------------------------------------------------------------------------


def notification_json(
    *, subscription_id: str, wake_id: str, generation: int, streams: Sequence[StreamInfo], base: str, token: str
) -> bytes:
    """The body of a webhook."""
    return _dump(
        {
            "subscription_id": subscription_id,
            "wake_id": wake_id,
            "generation": generation,
            "streams": [_info(stream) for stream in streams],
            "callback_url": f"{base}{ROOT}{CONTROL}/subscriptions/{quote(subscription_id, safe='')}/callback",
            "callback_token": token,
        }
    )


def wake_json(*, subscription_id: str, stream: str, generation: int, now_ms: int) -> bytes:
    """The record in a wake stream."""
    return _dump(
        {"type": "wake", "subscription_id": subscription_id, "stream": stream, "generation": generation, "ts": now_ms}
    )


def signed_text(body: bytes, now_seconds: int) -> bytes:
    return b"%d." % now_seconds + body


def signature_header(signature: bytes, kid: str, now_seconds: int) -> str:
    return f"t={now_seconds},kid={kid},ed25519={_base64url(signature)}"


def key_id(public: bytes) -> str:
    """`ds_` and the thumbprint of RFC 7638."""
    thumbprint = _dump({"crv": "Ed25519", "kty": "OKP", "x": _base64url(public)})
    return f"ds_{_base64url(sha256(thumbprint).digest())}"


def _jwk(public: bytes, *, kid: str) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": _base64url(public), "kid": kid, "use": "sig", "alg": "EdDSA"}


def _info(stream: StreamInfo) -> dict[str, Any]:
    return {
        "path": stream.path,
        "link_type": _link_type(stream),
        "acked_offset": stream.acked_offset,
        "tail_offset": stream.tail_offset,
        "has_pending": stream.has_pending,
    }


def _link_type(stream: StreamInfo) -> str:
    return "explicit" if stream.explicit else "glob"


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _dump(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
