"""Links to read one stream with, an extension: `?link=…` at a stream's address, and `__ds/links`, which makes them."""

import json
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from holdfast.protocols.durable_streams.bodies import parse_object
from holdfast.protocols.durable_streams.errors import RemoteProtocolError
from holdfast.protocols.durable_streams.paths import check_path, is_control, to_target

PARAMETER: Final = "link"


class LinkRequest(NamedTuple):
    path: str
    seconds: int


def parse_link_request(body: bytes, *, seconds: int, seconds_max: int) -> LinkRequest:
    """`seconds` if the request does not say how long."""
    given = parse_object(body)
    path: Any = given.get("path")
    wanted: Any = given.get("seconds", seconds)
    if not isinstance(path, str):
        raise RemoteProtocolError("`path` must say which stream.")
    if type(wanted) is not int or not 1 <= wanted <= seconds_max:
        raise RemoteProtocolError(f"`seconds` must be a whole number from 1 to {seconds_max}.")
    if is_control(path := check_path(path)):
        raise RemoteProtocolError("`path` must be that of a stream.")
    return LinkRequest(path, wanted)


def link_of(query: bytes) -> str | None:
    """The link that a request brings; of several, the first."""
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        if name == PARAMETER.encode():
            return value.decode("latin-1")
    return None


def with_link(target: str, token: str) -> str:
    return f"{target}?{PARAMETER}={quote(token, safe='')}"


def link_json(*, base: str, path: str, token: str, until_seconds: int) -> bytes:
    until = datetime.fromtimestamp(until_seconds, UTC).isoformat().replace("+00:00", "Z")
    return json.dumps({"url": base + with_link(to_target(path), token), "expires_at": until}).encode()
