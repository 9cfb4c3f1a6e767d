"""Errors as HTTP answers, in the shapes that OpenCode's clients know. Whose fault it is decides the status. The second API
(`/api/*`) has shapes of its own: there every error is tagged.

What is not one of our errors is a defect: the answer is an honest 500 with a `ref`, and the log has the traceback under
the same ref. No answer carries a traceback or a secret.
"""

import secrets
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import structlog

from holdfast.core.codec import to_json
from holdfast.core.errors import (
    Conflict,
    Denied,
    HoldfastError,
    Invalid,
    NotFound,
    SessionBusy,
    StorageError,
    TooLarge,
    Unavailable,
)
from holdfast.core.wire import Wire
from holdfast.server.asgi import Header
from holdfast.service.mcp import MCP, NoLogin
from holdfast.service.pty import PTY
from holdfast.service.vcs import PatchRefused
from holdfast.service.worktrees import WorktreeRefused

log = structlog.get_logger()

# --- shapes -----------------------------------------------------------------------------------------------------


class ErrorData(Wire):
    """`kind` is the part of the request that is wrong, `hint` what to do about it."""

    message: str
    kind: str | None = None
    field: str | None = None
    hint: str | None = None
    ref: str | None = None
    reason: str | None = None


class NamedError(Wire):
    """The shape of most errors: `{"name": "NotFoundError", "data": {"message": …}}`."""

    name: str
    data: ErrorData


class TaggedError(Wire):
    """The shape of some, and of all below `/api`: `{"_tag": "SessionBusyError", "sessionID": …, "message": …}`. `kind`,
    `field`, `hint` and `ref` as in `ErrorData`."""

    tag: str = msgspec.field(name="_tag")
    message: str
    kind: str | None = None
    field: str | None = None
    hint: str | None = None
    ref: str | None = None
    session_id: str | None = None
    request_id: str | None = None
    pty_id: str | None = None
    provider_id: str | None = None
    project_id: str | None = None
    name: str | None = None


class PlainError(Wire):
    """The shape of one: `{"error": …}`."""

    error: str


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: NamedError | TaggedError | PlainError

    @property
    def json(self) -> bytes:
        return to_json(self.body)


SECOND_API: Final = "/api/"
"""Below this path errors are told in the second API's shapes."""

SESSION: Final = "Session"
PROVIDER: Final = "Provider"
PROJECT: Final = "Project"


class Refused(Exception):
    """What is wrong with a request before anybody of ours is asked: no such route, a parameter of the wrong kind."""

    def __init__(self, answer: Answer, headers: Sequence[Header] = ()) -> None:
        super().__init__(answer)
        self.answer = answer
        self.headers = headers


_TAGGED: Final = {
    "Permission request": "PermissionNotFoundError",
    "Question request": "QuestionNotFoundError",
}

_KINDS: Final = {
    "sessionID": "Params",
    "ptyID": "Params",
    "directory": "Query",
    "limit": "Query",
    "before": "Query",
    "start": "Query",
    "after": "Query",
    "cursor": "Query",
    "path": "Query",
}
"""The part of the request in which a field stands, where it is not the body."""

_STATUS_NAMES: Final = {
    400: "BadRequest",
    401: "UnauthorizedError",
    403: "ForbiddenError",
    404: "NotFoundError",
    405: "MethodNotAllowed",
    413: "PayloadTooLarge",
    415: "UnsupportedMediaType",
    501: "NotImplementedError",
    503: "UnavailableError",
}


_SECOND_TAGS: Final = {"BadRequest": "InvalidRequestError", "UnavailableError": "ServiceUnavailableError"}
"""What the second API calls an error of the first one, where that is another word."""


def answer_to(error: BaseException, *, second_api: bool = False) -> Answer:
    """The answer to a request that failed with this."""
    answer = _answer_to(error)
    if not second_api:
        return answer
    if isinstance(error, NotFound) and error.kind == SESSION:
        tag = "SessionNotFoundError"
        return Answer(404, TaggedError(tag=tag, session_id=error.id, message=error.message, hint=error.hint))
    return tagged(answer)


def tagged(answer: Answer) -> Answer:
    """The same in the second API."""
    body = answer.body
    if not isinstance(body, NamedError):
        return answer
    data = body.data
    tag = _SECOND_TAGS.get(body.name, body.name)
    return Answer(
        answer.status,
        TaggedError(tag=tag, message=data.message, kind=data.kind, field=data.field, hint=data.hint, ref=data.ref),
    )


def _answer_to(error: BaseException) -> Answer:
    match error:
        case Refused():
            return error.answer
        case NotFound() if error.kind in _TAGGED:
            return Answer(404, TaggedError(tag=_TAGGED[error.kind], request_id=error.id, message=error.message))
        case NotFound() if error.kind == PTY:
            return Answer(404, TaggedError(tag="PtyNotFoundError", pty_id=error.id, message=error.message))
        case NotFound() if error.kind == MCP:
            return Answer(404, TaggedError(tag="McpServerNotFoundError", name=error.id, message=error.message))
        case NoLogin():
            return Answer(400, PlainError(error=error.message))
        case NotFound() if error.kind == PROJECT:
            return Answer(404, TaggedError(tag="ProjectNotFoundError", project_id=error.id, message=error.message))
        case NotFound() if error.kind == PROVIDER:
            return Answer(404, TaggedError(tag="ProviderNotFoundError", provider_id=error.id, message=error.message))
        case NotFound():
            return named(404, error.message, hint=error.hint)
        case TooLarge():
            return named(413, error.message, hint=error.hint)
        case PatchRefused():
            data = ErrorData(message=error.message, reason=error.reason, hint=error.hint)
            return Answer(400, NamedError(name="VcsApplyError", data=data))
        case WorktreeRefused():
            data = ErrorData(message=error.message, hint=error.hint)
            return Answer(400, NamedError(name=error.name, data=data))
        case Invalid():
            return named(400, error.message, kind=_kind(error.field), field=error.field, hint=error.hint)
        case SessionBusy():
            return Answer(409, TaggedError(tag="SessionBusyError", session_id=error.session_id, message=error.message))
        case Conflict():
            return Answer(409, TaggedError(tag="ConflictError", message=error.message))
        case Denied():
            return named(403, error.message, hint=error.hint)
        case Unavailable():
            return named(503, error.message, hint=error.hint)
        case HoldfastError() if error.fault == "caller":
            return named(400, error.message, hint=error.hint)
        case StorageError():
            return _defect(error, "The store failed, so the server stops. Its log says why.")
        case _:
            return _defect(error, "Unexpected server error. Check server logs for details.")


def named(status: int, message: str, **more: Any) -> Answer:
    """An error without a type of ours: unknown routes, refused requests."""
    return Answer(
        status, NamedError(name=_STATUS_NAMES.get(status, "BadRequest"), data=ErrorData(message=message, **more))
    )


def _defect(error: BaseException, message: str) -> Answer:
    ref = f"err_{secrets.token_hex(4)}"
    reason = error.message if isinstance(error, HoldfastError) else type(error).__name__
    log.error("request.failed", ref=ref, reason=reason, exc_info=error)
    return Answer(500, NamedError(name="UnknownError", data=ErrorData(message=message, ref=ref)))


def _kind(field: str | None) -> str:
    return _KINDS.get(field or "", "Payload")
