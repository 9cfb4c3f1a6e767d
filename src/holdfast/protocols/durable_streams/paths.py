"""Stream paths: from the bytes of a request target to the name of a stream, or of a control resource (`__ds/…`)."""

import re
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from holdfast.protocols.durable_streams.errors import RemoteProtocolError

ROOT: Final = "/v1/stream/"
CONTROL: Final = "__ds"
PATH_BYTES_MAX: Final = 2048

# RFC 9839: control characters (all of them are old ones here, since a path is one line), and what Unicode sets aside for no
# text. Anything else is a name, also what cannot be seen: scripts need joiners and directions.
_NO_TEXT: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)


def parse_path(raw: bytes) -> str:
    """`/v1/stream/a%20b/c` → `a b/c`. Also takes what `Stream-Forked-From` holds: a path with or without the root."""
    if len(raw) > PATH_BYTES_MAX:
        raise RemoteProtocolError(f"The path is longer than {PATH_BYTES_MAX} bytes.")
    try:
        path = unquote_to_bytes(raw).decode() if b"%" in raw else raw.decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("The path is not UTF-8.") from None
    return check_path(path.removeprefix(ROOT))


def check_path(path: str) -> str:
    """A stream's name: segments between single slashes, none of them `.` or `..`, of characters that may be in a text. Two
    spellings of what looks the same are two names."""
    path = path.strip("/")
    if not path:
        raise RemoteProtocolError("The path names no stream.")
    if len(path) > PATH_BYTES_MAX:
        raise RemoteProtocolError(f"The path is longer than {PATH_BYTES_MAX} bytes.")
    if not path.isprintable() and _NO_TEXT.search(path):
        raise RemoteProtocolError("The path has a control character in it, or one that Unicode has for no text.")
    if "//" in path or "/." in path or path[0] == ".":
        for segment in path.split("/"):
            if segment in ("", ".", ".."):
                raise RemoteProtocolError("The path has an empty, `.` or `..` segment in it.")
    return path


def is_control(path: str) -> bool:
    return path == CONTROL or path.startswith(CONTROL + "/")


def to_target(path: str) -> str:
    """The request target of a stream: `a b/c` → `/v1/stream/a%20b/c`."""
    return ROOT + quote(path, safe="/!$&'()*+,;=:@~-._")
