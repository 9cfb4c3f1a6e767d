"""Server-sent events without I/O: bytes → events, and events → bytes, by the rules of the WHATWG HTML standard, section 9.2.

Rules of a stream
 1. It is UTF-8; a byte order mark at its very beginning does not count, a broken sequence is a replacement character.
 2. A line ends with LF, CR or CRLF, whichever way the network splits them; a CR ends its line at once.
 3. A blank line dispatches the event that the lines since the last one describe, unless they hold no data.
 4. An id stays in force until another one comes; one with a NUL is ignored.
 5. What follows the last blank line when the stream ends was cut off, and is dropped.

Knows nothing of connections: who reconnects, and when, is the caller's business (`last_event_id`, `retry_ms`).
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024

_BOM: Final = b"\xef\xbb\xbf"


class LocalProtocolError(ValueError):
    """The caller asks for a frame that cannot be written."""


class RemoteProtocolError(ValueError):
    """The peer sends what no server of this protocol should. The stream cannot go on."""


class ServerSentEvent(NamedTuple):
    """`id` is the last one in force, which may be that of an earlier event; "" if there was none."""

    data: str
    event: str = "message"
    id: str = ""


class Decoder:
    """Feed it bytes as they come.

    `last_event_id` is what a reconnect sends as `Last-Event-ID`; `retry_ms` how long to wait before, if the server said so.
    `event_bytes_max` bounds a line and the data of an event, and so the memory that a peer can make us use.
    """

    def __init__(self, *, last_event_id: str = "", event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._event_bytes_max = event_bytes_max
        self._begun: list[bytes] = []  # the pieces of a line whose end has not come
        self._begun_bytes = 0
        self._at_start = True
        self._after_cr = False
        self._id = last_event_id
        self._event = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, data: bytes) -> Iterator[ServerSentEvent]:
        """The events that these bytes complete. Iterate to the end before the next feed: the work is done on the way.

        Raises RemoteProtocolError, after the events before it, for a line or an event that is too long."""
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *complete, rest = data.split(b"\n")
        for line in complete:
            if self._begun:
                line = b"".join([*self._begun, line])
                self._begun.clear()
                self._begun_bytes = 0
            if len(line) > self._event_bytes_max:
                raise self._too_long("line")
            if self._at_start:
                self._at_start = False
                line = line.removeprefix(_BOM)
            if line:
                self._take(line)
                continue
            self.last_event_id = self._id
            if self._data:
                yield ServerSentEvent(
                    b"\n".join(self._data).decode("utf-8", "replace"), self._event or "message", self._id
                )
            self._event = ""
            self._data.clear()
            self._data_bytes = 0
        if rest:
            self._begun.append(rest)
            self._begun_bytes += len(rest)
            if self._begun_bytes > self._event_bytes_max:
                raise self._too_long("line")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data_bytes += len(value) + 1
                if self._data_bytes > self._event_bytes_max:
                    raise self._too_long("event")
                self._data.append(value)
            case b"event":
                self._event = value.decode("utf-8", "replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
            case b"retry" if value.isdigit() and len(value) <= 15:
                self.retry_ms = int(value)
            case _:  # a comment (its name is empty), or a field that the standard tells us to ignore
                pass

    def _too_long(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"A server-sent {what} is longer than {self._event_bytes_max} bytes.")


def encode_event(data: bytes, *, event: str | None = None, id: str | None = None, retry_ms: int | None = None) -> bytes:
    """The frame of one event. `data` is UTF-8; each of its lines becomes a `data:` line, so CR and CRLF arrive as LF.

    Raises LocalProtocolError for an id or event name with a line break, or an id with a NUL."""
    frame: list[bytes] = []
    if id is not None:
        frame += [b"id: ", _one_line("id", id), b"\n"]
    if event is not None:
        frame += [b"event: ", _one_line("event", event), b"\n"]
    if retry_ms is not None:
        frame.append(b"retry: %d\n" % retry_ms)
    for line in _lines(data):
        frame += [b"data: ", line, b"\n"]
    frame.append(b"\n")
    return b"".join(frame)


def encode_comment(text: str) -> bytes:
    """A frame that readers skip: keeps a quiet connection open."""
    return b"".join(b": " + line + b"\n" for line in _lines(text.encode())) + b"\n"


def _one_line(field: str, value: str) -> bytes:
    if "\n" in value or "\r" in value or (field == "id" and "\0" in value):
        raise LocalProtocolError(f"Not one line: {field} {value[:64]!r}")
    return value.encode()


def _lines(data: bytes) -> list[bytes]:
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.split(b"\n")
