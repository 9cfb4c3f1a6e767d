"""Answers on the wire: responses of the protocol sent, errors of the store made responses."""

from holdfast.core.errors import (
    Conflict,
    Denied,
    HoldfastError,
    Invalid,
    NotFound,
    StorageError,
    TooLarge,
    Unavailable,
)
from holdfast.core.offsets import to_offset
from holdfast.core.streams import (
    ProducerFenced,
    ProducerGap,
    StreamClosed,
    StreamGone,
    StreamReadOnly,
    TailMoved,
)
from holdfast.protocols.durable_streams import responses
from holdfast.protocols.durable_streams.responses import HeaderList, Response
from holdfast.server.asgi import Send, send_body


async def send_response(send: Send, response: Response) -> None:
    status, headers, body = response
    headers = [*headers, *responses.SECURITY]
    if status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send_body(send, body)


def to_response(error: HoldfastError) -> Response:
    headers: HeaderList = []
    status = 500
    match error:
        case StreamGone():
            status = 410
            if error.earliest is not None:
                headers.append((b"stream-earliest-offset", error.earliest.encode()))
            if error.snapshot is not None:
                headers.append((b"stream-snapshot", error.snapshot.encode()))
        case StreamReadOnly():
            status = 405
            headers.append((b"allow", b"GET, HEAD, OPTIONS"))
        case StreamClosed():
            status = 409
            headers += [responses.CLOSED, responses.next_offset(to_offset(error.stream.tail))]
        case ProducerGap():
            status = 409
            headers += [
                (b"producer-expected-seq", b"%d" % error.expected),
                (b"producer-received-seq", b"%d" % error.received),
            ]
        case ProducerFenced():
            status = 403
            headers.append((b"producer-epoch", b"%d" % error.epoch))
        case TailMoved():
            status = 412
            headers.append(responses.next_offset(to_offset(error.stream.tail)))
        case NotFound():
            status = 404
        case TooLarge():
            status = 413
        case Invalid():
            status = 400
        case Conflict():
            status = 409
        case Denied():
            status = 403
        case Unavailable():
            status = 503
        case StorageError():
            return responses.error(500, "The store failed, so the server stops. Its log says why.")
        case _:
            pass
    return responses.error(status, error.message + (f" {error.hint}" if error.hint else ""), headers)
