"""Server-sent events of a live read: `data` events, and after each exactly one `control` event that says how far it goes.

Written out here, not by `protocols.sse`, because clients of this protocol match the exact spelling: a space after `event:`,
none after `data:`. The `id:` of a control event is its offset, so a plain EventSource resumes where it was.
"""

from base64 import b64encode


def is_text(media_type: str) -> bool:
    """Text goes as it is; everything else as base64."""
    return media_type.startswith("text/") or media_type == "application/json"


def data_event(payload: bytes, *, text: bool) -> bytes:
    """A payload cannot forge an event: each of its lines, however it ends, becomes a `data:` line."""
    if not text:
        return b"event: data\ndata:" + b64encode(payload) + b"\n\n"
    if b"\r" in payload:
        payload = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    if b"\n" in payload:
        payload = payload.replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
    space = b" " if payload.startswith(b" ") else b""  # readers take one away
    return b"event: data\ndata:" + space + payload + b"\n\n"


def control_event(offset: str, *, cursor: str, up_to_date: bool, closed: bool) -> bytes:
    """`closed` is the last event of all: it has no cursor, for there is nothing more to ask."""
    if closed:
        rest = ',"upToDate":true,"streamClosed":true}'
    elif up_to_date:
        rest = f',"streamCursor":"{cursor}","upToDate":true}}'
    else:
        rest = f',"streamCursor":"{cursor}"}}'
    return f'event: control\ndata:{{"streamNextOffset":"{offset}"{rest}\nid:{offset}\n\n'.encode()
