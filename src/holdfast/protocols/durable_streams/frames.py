"""Server-sent events of a live read: `data` events, and after each exactly one `control` event that says how far it goes.

Written out here, not by `protocols.sse`, because clients of this protocol match the exact spelling: a space after `event:`,
none after `data:`. The `id:` of a control event is its offset, so a plain EventSource resumes where it was.
"""

from base64 import b64encode
from collections.abc import Iterator
from typing import Final


def is_text(media_type: str) -> bool:
    """Text goes as it is; everything else as base64."""
    return media_type.startswith("text/") or media_type == "application/json"


def data_event(payload: bytes, *, text: bool) -> bytes:
    """A payload cannot forge an event: each of its lines, however it ends, becomes a `data:` line."""
    return b"".join(data_event_in_pieces(payload, text=text, size=len(payload) or 1))


def data_event_in_pieces(
    payload: bytes, *, text: bool, size: int, start: bytes = b"", end: bytes = b"", until: int | None = None
) -> Iterator[bytes]:
    """The event of a large payload, encoded as it is asked for, some `size` bytes of the payload at a time. Of the payload what
    comes before `until`, between `start` and `end`, which are text without line ends."""
    until = len(payload) if until is None else until
    yield b"event: data\ndata:"
    if text:
        yield start or (b" " if payload.startswith(b" ") else b"")  # readers take one space away
        at = 0
        while at < until:
            after = min(at + size, until)
            while after < until and payload[after - 1 : after + 1] in _INSEPARABLE:
                after += 1
            yield _lines(payload[at:after])
            at = after
        yield end
    else:
        size = max(size // 3, 1) * 3  # base64 makes four characters of three bytes
        for at in range(0, until, size):
            yield b64encode(payload[at : min(at + size, until)])
    yield b"\n\n"


_INSEPARABLE: Final = (b"\r\n", b"\n ", b"\r ")


def _lines(text: bytes) -> bytes:
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in text:
        text = text.replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
    return text


def control_event(offset: str, *, cursor: str, up_to_date: bool, closed: bool) -> bytes:
    """`closed` is the last event of all: it has no cursor, for there is nothing more to ask."""
    if closed:
        rest = ',"upToDate":true,"streamClosed":true}'
    elif up_to_date:
        rest = f',"streamCursor":"{cursor}","upToDate":true}}'
    else:
        rest = f',"streamCursor":"{cursor}"}}'
    return f'event: control\ndata:{{"streamNextOffset":"{offset}"{rest}\nid:{offset}\n\n'.encode()
