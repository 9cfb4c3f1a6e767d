"""The base of the Language Server Protocol (3.17) without I/O: bytes → JSON-RPC messages, and messages → bytes.

Rules of a connection
 1. A message is a header, an empty line and so many bytes of JSON as the header's `Content-Length` says. Lines end with CR LF.
 2. A message is one JSON object: a request (id and method), a notification (method) or an answer (id, no method).
 3. Whatever cannot be read ends the connection: where the next message begins is not known then.

Knows nothing of what the methods mean. Parameters and results are passed on as the JSON they came as.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

CONTENT_BYTES_MAX: Final = 8 * 1024 * 1024
HEADER_BYTES_MAX: Final = 4096
METHOD_NOT_FOUND: Final = -32601

_NULL: Final = b"null"
_END_OF_HEADER: Final = b"\r\n\r\n"
_LENGTH_DIGITS_MAX: Final = 12

MessageId = int | str


class RemoteProtocolError(ValueError):
    """The peer sends what no server of this protocol should. The connection cannot go on."""


class Request(NamedTuple):
    id: MessageId
    method: str
    params: bytes


class Notification(NamedTuple):
    method: str
    params: bytes


class Answer(NamedTuple):
    """`error` is the peer's explanation, `code` its number; None if it did what it was asked. `id` is None if it did not even
    understand that."""

    id: MessageId | None
    result: bytes
    error: str | None
    code: int | None = None


Message = Request | Notification | Answer


class Decoder:
    """Feed it bytes as they come. `content_bytes_max` bounds a message, and so the memory that a peer can make us use."""

    def __init__(self, *, content_bytes_max: int = CONTENT_BYTES_MAX) -> None:
        self._content_bytes_max = content_bytes_max
        self._buffer = bytearray()
        self._length: int | None = None  # of the message whose header was read

    def feed(self, data: bytes) -> Iterator[Message]:
        """The messages that these bytes complete. Iterate to the end before the next feed: the work is done on the way.

        Raises RemoteProtocolError, after the messages before it."""
        self._buffer += data
        while True:
            if self._length is None:
                end = self._buffer.find(_END_OF_HEADER, 0, HEADER_BYTES_MAX + len(_END_OF_HEADER))
                if end < 0:
                    if len(self._buffer) >= HEADER_BYTES_MAX + len(_END_OF_HEADER):
                        raise RemoteProtocolError(f"a header of more than {HEADER_BYTES_MAX} bytes")
                    return
                self._length = self._content_length(bytes(self._buffer[:end]))
                del self._buffer[: end + len(_END_OF_HEADER)]
            if len(self._buffer) < self._length:
                return
            content = bytes(self._buffer[: self._length])
            del self._buffer[: self._length]
            self._length = None
            yield _message(content)

    def _content_length(self, header: bytes) -> int:
        length: int | None = None
        for line in header.split(b"\r\n"):
            name, colon, value = line.partition(b":")
            value = value.strip()
            if not colon:
                raise RemoteProtocolError("a header line without a colon")
            if name.strip().lower() == b"content-length":
                if not value.isdigit() or len(value) > _LENGTH_DIGITS_MAX:
                    raise RemoteProtocolError("a length that is no number")
                length = int(value)
        if length is None:
            raise RemoteProtocolError("a header without a length")
        if length > self._content_bytes_max:
            raise RemoteProtocolError(f"a message of more than {self._content_bytes_max} bytes")
        return length


def encode_request(id: int, method: str, params: Any) -> bytes:
    return _framed({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def encode_notification(method: str, params: Any) -> bytes:
    return _framed({"jsonrpc": "2.0", "method": method, "params": params})


def encode_answer(id: MessageId, result: Any) -> bytes:
    return _framed({"jsonrpc": "2.0", "id": id, "result": result})


def encode_refusal(id: MessageId, code: int, message: str) -> bytes:
    return _framed({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})


class _Error(msgspec.Struct):
    message: str = ""
    code: int | None = None


class _Content(msgspec.Struct):
    id: MessageId | None = None
    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(_NULL)
    result: msgspec.Raw = msgspec.Raw(_NULL)
    error: _Error | None = None


_decoder: Final = msgspec.json.Decoder(_Content)


def _message(content: bytes) -> Message:
    try:
        read = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RemoteProtocolError("a message that is not JSON-RPC") from None
    if read.method is None:
        if read.error is not None:
            return Answer(read.id, bytes(read.result), read.error.message, read.error.code)
        return Answer(read.id, bytes(read.result), None)
    if read.id is None:
        return Notification(read.method, bytes(read.params))
    return Request(read.id, read.method, bytes(read.params))


def _framed(message: dict[str, Any]) -> bytes:
    content = msgspec.json.encode(message)
    return b"Content-Length: %d\r\n\r\n%s" % (len(content), content)
