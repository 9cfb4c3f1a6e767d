import json

import pytest
import structlog
from structlog.testing import capture_logs

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
    VersionConflict,
)
from holdfast.server.errors import answer_to
from tests.server.harness import Server


@pytest.mark.parametrize(
    ("error", "status", "body"),
    [
        (
            NotFound("Session", "ses_x"),
            404,
            {"name": "NotFoundError", "data": {"message": "Session not found: ses_x"}},
        ),
        (
            NotFound("Permission request", "per_x"),
            404,
            {
                "_tag": "PermissionNotFoundError",
                "requestID": "per_x",
                "message": "Permission request not found: per_x",
            },
        ),
        (
            NotFound("Question request", "que_x"),
            404,
            {"_tag": "QuestionNotFoundError", "requestID": "que_x", "message": "Question request not found: que_x"},
        ),
        (
            Invalid("Wrong.", field="messageID", hint="Do better."),
            400,
            {
                "name": "BadRequest",
                "data": {"message": "Wrong.", "kind": "Payload", "field": "messageID", "hint": "Do better."},
            },
        ),
        (
            Invalid("Wrong.", field="limit"),
            400,
            {"name": "BadRequest", "data": {"message": "Wrong.", "kind": "Query", "field": "limit"}},
        ),
        (TooLarge("Big."), 413, {"name": "PayloadTooLarge", "data": {"message": "Big."}}),
        (
            SessionBusy("ses_x"),
            409,
            {"_tag": "SessionBusyError", "sessionID": "ses_x", "message": "Session is busy: ses_x"},
        ),
        (Conflict("Taken."), 409, {"_tag": "ConflictError", "message": "Taken."}),
        (VersionConflict("Late."), 409, {"_tag": "ConflictError", "message": "Late."}),
        (Denied("No."), 403, {"name": "ForbiddenError", "data": {"message": "No."}}),
        (Unavailable("Later."), 503, {"name": "UnavailableError", "data": {"message": "Later."}}),
    ],
)
def test_an_error_is_told_in_the_shape_that_clients_know(error: HoldfastError, status: int, body: dict[str, object]):
    answer = answer_to(error)

    assert answer.status == status
    assert json.loads(answer.json) == body


def test_a_defect_in_the_second_api_is_tagged_too():
    body = json.loads(answer_to(RuntimeError("secret detail"), second_api=True).json)

    assert body["_tag"] == "UnknownError"
    assert body["ref"].startswith("err_")


def test_every_error_of_ours_has_an_answer_that_says_whose_fault_it_is():
    def kinds(kind: type[HoldfastError]) -> list[type[HoldfastError]]:
        return [kind, *(found for below in kind.__subclasses__() for found in kinds(below))]

    for kind in kinds(HoldfastError):
        error = kind.__new__(kind)
        HoldfastError.__init__(error, "What happened.")
        error.kind, error.id, error.session_id, error.field = "Thing", "x", "ses_x", None  # type: ignore[attr-defined]
        error.reason = error.name = "x"  # type: ignore[attr-defined]
        status = answer_to(error).status
        assert (status < 500) == (kind.fault == "caller"), kind


@pytest.mark.parametrize("error", [RuntimeError("secret detail"), StorageError("/data/holdfast.db: disk full")])
def test_a_defect_is_told_by_a_reference_and_explained_in_the_log_only(error: Exception):
    with capture_logs() as logs:
        answer = answer_to(error)
    body = json.loads(answer.json)

    assert answer.status == 500
    assert body["name"] == "UnknownError"
    assert str(error) not in answer.json.decode()
    [entry] = logs
    assert entry["ref"] == body["data"]["ref"]
    assert entry["exc_info"] is error


async def test_a_defect_in_a_route_is_a_500_without_a_traceback(server: Server, monkeypatch: pytest.MonkeyPatch):
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    structlog.configure(processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
    monkeypatch.setattr(server.application.store, "session_page", broken)
    monkeypatch.setattr(server.application.store, "snapshot", broken)
    try:
        for path in ("/session", "/event"):
            answer = await server.api.get(path)
            assert answer.status_code == 500
            assert answer.json()["name"] == "UnknownError"
            assert "secret" not in answer.text
    finally:
        structlog.reset_defaults()
