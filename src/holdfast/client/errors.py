"""What can go wrong between a client and a server: no answer, or the answer no."""

import msgspec

from holdfast.core.errors import HoldfastError, Unavailable


class Unreachable(Unavailable):
    """No answer came; whether the request reached the server is unknown."""

    code = "unreachable"


class Refused(HoldfastError):
    """The server answered no. `status` is the HTTP status; the message is the server's own."""

    code = "refused"
    fault = "caller"

    def __init__(self, status: int, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class _Said(msgspec.Struct):
    message: str | None = None
    hint: str | None = None


class _Body(_Said):
    """The shapes that errors come in: `{"name", "data": {"message", "hint"}}` and `{"_tag", "message"}`."""

    data: _Said | None = None


_decoder: msgspec.json.Decoder[_Body] = msgspec.json.Decoder(_Body)


def refusal(status: int, body: bytes) -> Refused | Unavailable:
    """The error that an answer with a status of 400 or more stands for. Worth another try: a server that starts or stops
    (503), or a gateway before it (502, 504), or too many requests (429)."""
    hint: str | None = None
    if status == 401:
        return Refused(status, "The server wants a password.", hint="Set OPENCODE_SERVER_PASSWORD, or give --password.")
    try:
        answer = _decoder.decode(body)
        said = answer.data or answer
        message, hint = said.message or f"HTTP {status}", said.hint
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = f"HTTP {status}"
    if status in (429, 502, 503, 504):
        return Unavailable(message, hint=hint)
    return Refused(status, message, hint=hint)
