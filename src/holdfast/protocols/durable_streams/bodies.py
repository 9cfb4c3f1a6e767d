"""Bodies of control requests: JSON objects."""

import json
from typing import Any, cast

from holdfast.protocols.durable_streams.errors import RemoteProtocolError


def parse_object(body: bytes) -> dict[str, Any]:
    """`{}` if there is no body. Texts in it can be encoded: half a surrogate pair, which JSON can write, is refused."""
    try:
        given = json.loads(body or b"{}")
        if b"\\u" in body:
            json.dumps(given, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise RemoteProtocolError("The body is not JSON.") from None
    if not isinstance(given, dict):
        raise RemoteProtocolError("The body must be a JSON object.")
    return cast(dict[str, Any], given)
