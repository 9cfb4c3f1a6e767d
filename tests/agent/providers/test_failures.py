"""What a provider's refusal is taken for."""

import json
from typing import Any

import pytest

from holdfast.agent.providers.base import ProviderError, ProviderFailure
from holdfast.agent.providers.failures import error_in_stream, redactor, refusal

KEY = "sk-very-secret-key"


def refused(
    status: int, body: str | dict[str, Any] = "", headers: dict[str, str] | None = None, now_s: float = 0
) -> ProviderError:
    return refusal(
        provider_id="p",
        status=status,
        headers=headers or {},
        body=body if isinstance(body, str) else json.dumps(body),
        redact=redactor([KEY, ""]),
        now_s=now_s,
    )


def in_stream(body: Any) -> ProviderError:
    return error_in_stream(json.dumps(body), provider_id="p", redact=redactor([KEY]))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "No.", "type": "x"}}, "No."),
        ({"error": "No."}, "No."),
        ({"message": "No."}, "No."),
        ({"detail": "No."}, "No."),
        ({"detail": [{"loc": ["body"], "msg": "No."}]}, '[{"loc":["body"],"msg":"No."}]'),
        ([{"error": {"message": "No."}}], "No."),
        ('"No."', "No."),
        ("No.", "HTTP 400 Bad Request: No."),
        ("", "HTTP 400 Bad Request"),
        ("{}", "HTTP 400 Bad Request: {}"),
    ],
)
def test_the_message_is_found_wherever_providers_put_it(body: str | dict[str, Any], message: str) -> None:
    assert refused(400, body).message == message


def test_an_html_page_is_told_in_one_line() -> None:
    page = (
        "<!DOCTYPE html>\n<html><head><title>502 Bad\n gateway</title></head><body>" + "x" * 50_000 + "</body></html>"
    )
    error = refused(502, page, {"content-type": "text/html"})

    assert error.message.startswith("HTTP 502 Bad Gateway, an HTML page titled “502 Bad gateway”")
    assert error.is_retryable
    assert len(error.body or "") < 10_000


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (404, False),
        (422, False),
        (408, True),
        (409, True),
        (429, True),
        (500, True),
        (502, True),
        (529, True),
    ],
)
def test_trouble_that_passes_is_worth_another_try(status: int, retryable: bool) -> None:
    error = refused(status, {"error": {"message": "No."}})

    assert (error.is_retryable, error.status_code, error.failure) == (retryable, status, "api")


def test_an_empty_account_does_not_fill_by_waiting() -> None:
    assert not refused(
        429, {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    ).is_retryable


@pytest.mark.parametrize(("advice", "status"), [("true", 400), ("false", 500)])
def test_the_providers_advice_on_retrying_is_taken(advice: str, status: int) -> None:
    assert refused(status, headers={"x-should-retry": advice}).is_retryable == (advice == "true")


@pytest.mark.parametrize("status", [401, 403])
def test_a_wrong_key_is_told_apart(status: int) -> None:
    error = refused(status, {"error": {"message": f"Incorrect API key provided: {KEY}"}})

    assert (error.failure, error.is_retryable) == ("auth", False)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
        "Please reduce the length of the messages or completion.",
        "Invalid request: Your request exceeded model token limit: 8192",
        "The number of tokens to keep from the initial prompt is greater than the context length.",
    ],
)
def test_a_prompt_that_does_not_fit_is_known_by_what_providers_say(message: str) -> None:
    assert refused(400, {"error": {"message": message}}).failure == "context_overflow"


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}, "context_overflow"),
        (413, "", "context_overflow"),
        (400, {"error": {"message": "x", "code": "content_filter"}}, "content_filter"),
        (400, {"error": {"message": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, "content_filter"),
    ],
)
def test_codes_say_what_is_wrong(status: int, body: str | dict[str, Any], failure: ProviderFailure) -> None:
    error = refused(status, body)

    assert (error.failure, error.is_retryable) == (failure, False)


def test_too_many_tokens_per_minute_is_no_prompt_that_does_not_fit() -> None:
    error = refused(429, {"error": {"message": "Limit 30000 TPM: please reduce the length of the messages"}})

    assert (error.failure, error.is_retryable) == ("api", True)


@pytest.mark.parametrize(
    ("headers", "milliseconds"),
    [
        ({"retry-after-ms": "1500"}, 1500),
        ({"retry-after-ms": "12.5", "retry-after": "9"}, 12),
        ({"retry-after": "3"}, 3000),
        ({"retry-after": "0.5"}, 500),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 20_000),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT", "date": "Thu, 01 Jan 1970 00:00:25 GMT"}, 5000),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:05 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, None),
        ({}, None),
    ],
)
def test_how_long_the_provider_asks_to_wait(headers: dict[str, str], milliseconds: int | None) -> None:
    assert refused(429, headers=headers, now_s=10).retry_after_ms == milliseconds


def test_no_key_gets_into_an_error() -> None:
    error = refused(
        400, {"error": {"message": f"Bad {KEY}"}}, {"x-echo": KEY, "set-cookie": "session=1", "content-type": "a/b"}
    )

    assert KEY not in f"{error.message} {error.body} {error.headers}"
    assert error.headers == {"x-echo": "***", "content-type": "a/b"}


@pytest.mark.parametrize(
    ("body", "retryable"),
    [
        ({"error": {"message": "The server is overloaded", "type": "server_error"}}, True),
        ({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}, True),
        ({"error": {"message": "Upstream failed", "code": 502}}, True),
        ({"error": "something broke"}, True),
        ({"object": "error", "message": "Try again later", "code": 50301}, True),
        ({"error": {"message": "Bad schema", "type": "invalid_request_error"}}, False),
        ({"error": {"message": "Bad", "code": 400}}, False),
        ({"error": {"message": "No money", "code": "insufficient_quota", "type": "server_error"}}, False),
    ],
)
def test_an_error_in_the_stream_says_itself_whether_it_passes(body: Any, retryable: bool) -> None:
    assert in_stream(body).is_retryable == retryable


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("context_length_exceeded", "context_overflow"),
        ("invalid_api_key", "auth"),
        ("content_filter", "content_filter"),
    ],
)
def test_errors_in_the_stream_are_told_apart_like_others(code: str, failure: ProviderFailure) -> None:
    assert in_stream({"error": {"message": "x", "code": code}}).failure == failure


@pytest.mark.parametrize("body", ["null", "[]", "[1]", "7", "[" * 100_000, '{"error": 7}', '{"error": [1]}', "\x00"])
def test_any_body_is_told_somehow(body: str) -> None:
    assert refused(500, body).message
    assert error_in_stream(body, provider_id="p", redact=str).message
