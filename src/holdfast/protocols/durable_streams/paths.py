"""Stream paths: from the bytes of a request target to the name of a stream, or of a control resource (`__ds/…`)."""

from typing import Final
from urllib.parse import quote, unquote_to_bytes

from holdfast.protocols.durable_streams.errors import RemoteProtocolError

ROOT: Final = "/v1/stream/"
CONTROL: Final = "__ds"
PATH_BYTES_MAX: Final = 2048


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
    """A stream's name: segments between single slashes, none of them `.` or `..`, no control characters."""
    path = path.strip("/")
    if not path:
        raise RemoteProtocolError("The path names no stream.")
    if len(path) > PATH_BYTES_MAX:
        raise RemoteProtocolError(f"The path is longer than {PATH_BYTES_MAX} bytes.")
    if not path.isprintable() and any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise RemoteProtocolError("The path has a control character in it.")
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
