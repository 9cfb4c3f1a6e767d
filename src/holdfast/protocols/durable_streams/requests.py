"""Requests on streams: headers and query → what is asked, or RemoteProtocolError.

Headers come as a mapping of lower-case names to values, both bytes; of a repeated one, the last counts. Header values are
read as Latin-1, so every byte survives and compares as a byte.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, NamedTuple
from urllib.parse import unquote_plus

from holdfast.protocols.durable_streams.errors import RemoteProtocolError
from holdfast.protocols.durable_streams.paths import parse_path

BEGINNING: Final = "-1"
NOW: Final = "now"
ZERO: Final = "0000000000000000_0000000000000000"
INTEGER_MAX: Final = 2**53 - 1
TTL_SECONDS_MAX: Final = 10**10
HEADER_CHARACTERS_MAX: Final = 1024

Headers = Mapping[bytes, bytes]
Live = Literal["long-poll", "sse"]

_PRODUCER: Final = frozenset((b"producer-id", b"producer-epoch", b"producer-seq"))
_OFFSET: Final = re.compile(r"[0-9]{16}_[0-9]{16}", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]+", re.ASCII)
_TTL: Final = re.compile(r"0|[1-9][0-9]*", re.ASCII)
_TIMESTAMP: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)  # RFC 3339, section 5.6
_RETENTION: Final = re.compile(r"\s*(bytes|records|seconds)\s*=\s*([1-9][0-9]{0,17})\s*", re.ASCII)


class ProducerHeaders(NamedTuple):
    id: str
    epoch: int
    seq: int


class CreateRequest(NamedTuple):
    """`content_type` None: the header is missing. `expires_at` as it was written. `fork_offset` is BEGINNING-free: an offset
    or None; `retention` maps what is bounded to how much of it is kept."""

    content_type: str | None
    closed: bool
    ttl_seconds: int | None
    expires_at: str | None
    expires_at_ms: int | None
    forked_from: str | None
    fork_offset: str | None
    fork_sub_offset: int
    retention: dict[str, int] | None
    snapshot: str | None


class AppendRequest(NamedTuple):
    """`if_match` is the offset that the stream must end at."""

    content_type: str | None
    close: bool
    seq: str | None
    producer: ProducerHeaders | None
    if_match: str | None
    snapshot: str | None


class ReadRequest(NamedTuple):
    """`offset` is BEGINNING, NOW or an offset. `live` None: a catch-up read."""

    offset: str
    live: Live | None
    cursor: str | None
    if_none_match: str | None
    gzip: bool


def parse_create(headers: Headers) -> CreateRequest:
    ttl = _text(headers, b"stream-ttl")
    expires_at = _text(headers, b"stream-expires-at")
    if ttl is not None and expires_at is not None:
        raise RemoteProtocolError("Stream-TTL and Stream-Expires-At exclude each other.")
    if ttl is not None and (not _TTL.fullmatch(ttl) or len(ttl) > 11 or int(ttl) > TTL_SECONDS_MAX):
        raise RemoteProtocolError("Stream-TTL must be a number of seconds in plain decimal digits.")
    forked_from = headers.get(b"stream-forked-from")
    fork_offset = _text(headers, b"stream-fork-offset")
    sub_offset = _text(headers, b"stream-fork-sub-offset")
    if forked_from is None and (fork_offset is not None or sub_offset is not None):
        raise RemoteProtocolError("Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From.")
    if fork_offset == BEGINNING:
        fork_offset = ZERO
    if fork_offset is not None and not _OFFSET.fullmatch(fork_offset):
        raise RemoteProtocolError("Stream-Fork-Offset is not an offset of this server.")
    if sub_offset is not None and (not _DIGITS.fullmatch(sub_offset) or len(sub_offset) > 16):
        raise RemoteProtocolError("Stream-Fork-Sub-Offset must be a number in plain decimal digits.")
    if sub_offset is not None and int(sub_offset) and fork_offset is None:
        raise RemoteProtocolError("Stream-Fork-Sub-Offset needs Stream-Fork-Offset.")
    return CreateRequest(
        content_type=_content_type(headers),
        closed=_is_closed(headers),
        ttl_seconds=int(ttl) if ttl is not None else None,
        expires_at=expires_at,
        expires_at_ms=_parse_timestamp(expires_at) if expires_at is not None else None,
        forked_from=parse_path(forked_from.strip()) if forked_from is not None else None,
        fork_offset=fork_offset,
        fork_sub_offset=int(sub_offset) if sub_offset is not None else 0,
        retention=_retention(headers),
        snapshot=_snapshot(headers),
    )


def parse_append(headers: Headers, *, has_body: bool) -> AppendRequest:
    close = b"stream-closed" in headers and _is_closed(headers)
    content_type = _content_type(headers)
    if not has_body and not close:
        raise RemoteProtocolError("The body is empty. To close the stream, say Stream-Closed: true.")
    if has_body and content_type is None:
        raise RemoteProtocolError("An append needs a Content-Type.")
    if_match = _text(headers, b"if-match")
    if if_match is not None:
        if_match = if_match.strip('"')
        if not _OFFSET.fullmatch(if_match):
            raise RemoteProtocolError("If-Match must be the offset that the stream ends at.")
    return AppendRequest(
        content_type,
        close,
        _text(headers, b"stream-seq"),
        _producer(headers),
        if_match,
        _snapshot(headers),
    )


def parse_read(headers: Headers, query: bytes) -> ReadRequest:
    parameters = _parse_query(query)
    live: Live | None = None
    match parameters.get("live"):
        case "sse":
            live = "sse"
        case "long-poll":
            live = "long-poll"
        case _:  # unknown ways to follow are read as none, as parameters to come
            pass
    offset = parameters.get("offset")
    last_event_id = _text(headers, b"last-event-id") if live == "sse" else None
    if last_event_id:
        offset = last_event_id  # an EventSource reconnects with the address it began with: its id is newer
    if offset is None:
        if live is not None:
            raise RemoteProtocolError("A live read needs an offset.")
        offset = BEGINNING
    if offset not in (BEGINNING, NOW) and not _OFFSET.fullmatch(offset):
        raise RemoteProtocolError("Not an offset of this server. Say -1 for the beginning, now for the end.")
    return ReadRequest(
        offset,
        live,
        parameters.get("cursor"),
        _text(headers, b"if-none-match"),
        _takes_gzip(headers.get(b"accept-encoding", b"")),
    )


def _takes_gzip(accepted: bytes) -> bool:
    """`gzip;q=0` is how a client says that it does not."""
    for coding in accepted.lower().split(b","):
        name, _, weight = coding.partition(b";")
        if name.strip() == b"gzip":
            return not re.fullmatch(rb"\s*q\s*=\s*0(\.0*)?\s*", weight)
    return False


def _parse_query(query: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in query.split(b"&"):
        raw_name, _, raw_value = pair.partition(b"=")
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if "%" in name:
            name = unquote_plus(name)
        if "%" in value or "+" in value:
            value = unquote_plus(value)
        if name == "offset" and name in found:
            raise RemoteProtocolError("More than one offset.")
        found[name] = value
    return found


def _text(headers: Headers, name: bytes) -> str | None:
    value = headers.get(name)
    if value is None:
        return None
    if len(value) > HEADER_CHARACTERS_MAX:
        raise RemoteProtocolError(f"The header {name.decode('latin-1')} is longer than {HEADER_CHARACTERS_MAX} bytes.")
    return value.decode("latin-1").strip()


def _content_type(headers: Headers) -> str | None:
    value = _text(headers, b"content-type")
    if value and "/" not in value:
        raise RemoteProtocolError("Content-Type is not a media type.")
    return value or None


def _is_closed(headers: Headers) -> bool:
    """Only `true`, in any letter case, counts; everything else is as if the header were not there."""
    return headers.get(b"stream-closed", b"").strip().lower() == b"true"


def _producer(headers: Headers) -> ProducerHeaders | None:
    if _PRODUCER.isdisjoint(headers):
        return None
    id, epoch, seq = (_text(headers, name) for name in (b"producer-id", b"producer-epoch", b"producer-seq"))
    if id is None or epoch is None or seq is None:
        raise RemoteProtocolError("Producer-Id, Producer-Epoch and Producer-Seq go together: all or none.")
    if not id:
        raise RemoteProtocolError("Producer-Id is empty.")
    return ProducerHeaders(id, _integer("Producer-Epoch", epoch), _integer("Producer-Seq", seq))


def _integer(name: str, text: str) -> int:
    if not _DIGITS.fullmatch(text) or len(text) > 16 or int(text) > INTEGER_MAX:
        raise RemoteProtocolError(f"{name} must be a number from 0 to {INTEGER_MAX}, in plain decimal digits.")
    return int(text)


def _parse_timestamp(text: str) -> int:
    """RFC 3339 → ms since 1970."""
    if _TIMESTAMP.fullmatch(text):
        try:
            return int(datetime.fromisoformat(text.upper()).timestamp() * 1000)
        except (ValueError, OverflowError):
            pass
    raise RemoteProtocolError("Stream-Expires-At must be a time as RFC 3339 writes it: 2030-01-31T12:00:00Z.")


def _retention(headers: Headers) -> dict[str, int] | None:
    """`Stream-Retention: records=1000, seconds=86400`."""
    text = _text(headers, b"stream-retention")
    if text is None:
        return None
    found: dict[str, int] = {}
    for part in text.split(","):
        match = _RETENTION.fullmatch(part)
        if match is None or match[1] in found:
            raise RemoteProtocolError("Stream-Retention is a list of bytes=N, records=N, seconds=N.")
        found[match[1]] = int(match[2])
    return found


def _snapshot(headers: Headers) -> str | None:
    text = _text(headers, b"stream-snapshot")
    if text is not None and (not text or any(not 32 < ord(character) < 127 for character in text)):
        raise RemoteProtocolError("Stream-Snapshot must be a URL or a path.")
    return text
