"""Responses: status, headers and body of everything a stream answers. Header names are lower case, as ASGI wants them."""

from collections.abc import Iterable
from typing import Final, NamedTuple

HeaderList = list[tuple[bytes, bytes]]

REQUEST_HEADERS: Final = (
    "Content-Type, Authorization, Stream-TTL, Stream-Expires-At, Stream-Closed, Stream-Seq, Producer-Id, Producer-Epoch, "
    "Producer-Seq, Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, If-None-Match, If-Match, "
    "Last-Event-ID, Stream-Retention, Stream-Snapshot"
)
RESPONSE_HEADERS: Final = (
    "Stream-Next-Offset, Stream-Up-To-Date, Stream-Closed, Stream-Cursor, Stream-TTL, Stream-Expires-At, "
    "Stream-SSE-Data-Encoding, Stream-Earliest-Offset, Stream-Snapshot, Stream-Retention, ETag, Location, Retry-After, "
    "Producer-Epoch, Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq"
)
METHODS: Final = "GET, HEAD, POST, PUT, DELETE, OPTIONS"

EXPOSED: Final = (b"access-control-expose-headers", RESPONSE_HEADERS.encode())
"""What lets a page of another origin read the headers of an answer."""

SECURITY: Final[HeaderList] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"cross-origin"),
]
NO_STORE: Final = (b"cache-control", b"no-store")
PRIVATE: Final = (b"cache-control", b"private, max-age=60, stale-while-revalidate=300")
UP_TO_DATE: Final = (b"stream-up-to-date", b"true")
CLOSED: Final = (b"stream-closed", b"true")
GZIP: Final = (b"content-encoding", b"gzip")
VARY_ENCODING: Final = (b"vary", b"accept-encoding")
BASE64: Final = (b"stream-sse-data-encoding", b"base64")
_TEXT: Final = (b"content-type", b"text/plain; charset=utf-8")
_JSON: Final = (b"content-type", b"application/json")


class Response(NamedTuple):
    """`headers` without `content-length` and without those that every response has (SECURITY)."""

    status: int
    headers: HeaderList
    body: bytes = b""


def next_offset(offset: str) -> tuple[bytes, bytes]:
    return (b"stream-next-offset", offset.encode())


def error(status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    return Response(status, [_TEXT, NO_STORE, *headers], message.encode())


def json(status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    return Response(status, [_JSON, NO_STORE, *headers], body)


def preflight() -> Response:
    return Response(
        204,
        [
            (b"access-control-allow-methods", METHODS.encode()),
            (b"access-control-allow-headers", REQUEST_HEADERS.encode()),
            (b"access-control-max-age", b"86400"),
        ],
    )


def created(*, existed: bool, location: str, content_type: str, offset: str, closed: bool) -> Response:
    headers = [(b"content-type", content_type.encode("latin-1")), next_offset(offset)]
    if not existed:
        headers.append((b"location", location.encode("latin-1")))
    if closed:
        headers.append(CLOSED)
    return Response(200 if existed else 201, headers)


def appended(*, offset: str, closed: bool, is_news: bool, producer: tuple[int, int] | None) -> Response:
    """`producer` is (epoch, highest accepted seq); `is_news`: data was added, now and not by an earlier try."""
    headers = [next_offset(offset)]
    if closed:
        headers.append(CLOSED)
    if producer is None:
        return Response(204, headers)
    headers.append((b"producer-epoch", b"%d" % producer[0]))
    headers.append((b"producer-seq", b"%d" % producer[1]))
    return Response(200 if is_news else 204, headers)


def described(
    *,
    content_type: str,
    offset: str,
    closed: bool,
    ttl_seconds: int | None,
    expires_at: str | None,
    retention: str | None,
    snapshot: str | None,
    earliest: str | None,
) -> Response:
    """Of HEAD."""
    headers = [(b"content-type", content_type.encode("latin-1")), next_offset(offset), NO_STORE]
    if closed:
        headers.append(CLOSED)
    for name, value in (
        (b"stream-ttl", ttl_seconds),
        (b"stream-expires-at", expires_at),
        (b"stream-retention", retention),
        (b"stream-snapshot", snapshot),
        (b"stream-earliest-offset", earliest),
    ):
        if value is not None:
            headers.append((name, str(value).encode("latin-1")))
    return Response(200, headers)


def etag(identity: int, start: str, end: str, *, up_to_date: bool, closed: bool) -> str:
    """Of what a read answered: which life of which stream, from where to where, and whether that is the end, for now or for
    good (headers of an older answer would say so still)."""
    return f'"{identity:x}:{start}:{end}{":c" if closed else "" if up_to_date else ":p"}"'


def etag_matches(if_none_match: str, tag: str) -> bool:
    return if_none_match == "*" or tag in (part.strip().removeprefix("W/") for part in if_none_match.split(","))
