"""How a JSON stream keeps its messages: *runs*, in which each message is followed by a comma (`{"a":1},{"b":2},`).

Runs can be joined by joining their bytes, and become a JSON array by putting brackets around all but the last comma: so a
read copies bytes and never looks at them. What gets in is checked here, once.
"""

from typing import Any, Final

import msgspec

from holdfast.core.errors import Invalid

_ANY: Final = msgspec.json.Decoder(Any)
_PARTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_SPACE: Final = b" \t\r\n"


def to_run(body: bytes) -> bytes:
    """The run of a request body: an array gives its elements (one level only), anything else is one message. Empty for `[]`.

    Raises Invalid if the body is not JSON (RFC 8259: UTF-8, no NaN, no lone comma)."""
    try:
        value = _ANY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The body is not JSON: {error}.", hint="Send one JSON value, or an array of them.") from None
    except RecursionError:
        raise Invalid("The body is nested too deeply.", hint="Flatten it.") from None
    body = body.strip(_SPACE)
    if not isinstance(value, list):
        return body + b","
    inner = body[1:-1].strip(_SPACE)
    return inner + b"," if inner else b""


def to_array(run: bytes) -> bytes:
    return b"[" + run[:-1] + b"]"


def split(run: bytes) -> list[bytes]:
    """The messages of a run, in order."""
    return [bytes(message).strip(_SPACE) for message in _PARTS.decode(to_array(run))] if run else []
