"""What a provider's refusal means: whose fault it is, whether and when to try again. For every adapter that speaks HTTP.

Pure but for one look at the clock when `retry-after` names a date and the answer has none of its own. Whatever the
provider echoes goes through `Redact` first: no key gets into an error, a log or an event.
"""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import urlsplit

import msgspec

from holdfast.agent.providers.base import ProviderError, ProviderFailure
from holdfast.core.config import HARMLESS_OPTIONS, ProviderOptions

BODY_CHARACTERS_MAX: Final = 8_000
_MESSAGE_CHARACTERS_MAX: Final = 1_000

Redact = Callable[[str], str]

_RETRYABLE_STATUS: Final = frozenset({408, 409, 425, 429})

# What providers call a prompt that does not fit: their codes, and phrases from their messages.
_OVERFLOW_CODES: Final = frozenset(
    {"context_length_exceeded", "context_window_exceeded", "model_context_window_exceeded", "request_too_large"}
)
_OVERFLOW_PHRASES: Final = re.compile(
    "|".join(
        (
            r"context[ _](?:length|window)[ _]exceeded",
            r"maximum context length",  # vLLM, DeepSeek, OpenRouter, old OpenAI
            r"exceeds? the (?:model's )?(?:maximum )?context (?:window|length)",  # OpenAI
            r"exceeds the available context size",  # llama.cpp
            r"context (?:window|length) (?:exceeds|is only)",  # MiniMax, vLLM
            r"greater than the context length",  # LM Studio
            r"prompt is too long",  # Anthropic
            r"prompt too long",  # Ollama
            r"input is too long",  # Bedrock
            r"input (?:token count|length).{0,80}exceeds",  # Gemini, vLLM
            r"maximum prompt length is",  # xAI
            r"exceeded model token limit",  # Moonshot
            r"reduce the length of the (?:messages|prompt|input)",  # Groq, Azure
            r"too large for model with .{0,20}maximum context",  # Mistral
            r"exceeds the limit of \d+ tokens",
            r"request entity too large",
        )
    ),
    re.IGNORECASE,
)

_FILTER_CODES: Final = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
_AUTH_CODES: Final = frozenset({"invalid_api_key", "authentication_error", "permission_error", "unauthorized"})
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_PASSING_TROUBLE: Final = re.compile(
    r"rate.?limit|too.?many.?requests|overloaded|server.?error|internal.?error|unavailable|timeout|timed out"
    r"|try again|capacity|engine_error",
    re.IGNORECASE,
)

_DROPPED_HEADERS: Final = frozenset({"set-cookie", "authorization", "proxy-authenticate", "www-authenticate"})


def redactor(secrets: Iterable[str]) -> Redact:
    """Replaces each secret wherever it stands. Very short ones are no secrets, and would spoil the text."""
    known = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
    if not known:
        return lambda text: text
    pattern = re.compile("|".join(re.escape(secret) for secret in known))
    return lambda text: pattern.sub("***", text)


def secrets_of(settings: ProviderOptions, options: Mapping[str, Any], headers: Mapping[str, str]) -> list[str]:
    """What no error may hold, of a provider's options: every text that is not known to be harmless. `headers` are what is
    sent with each request."""
    found = [settings.api_key or "", *(settings.query_params or {}).values()]
    for value in headers.values():
        found += [value, value.removeprefix("Bearer ")]
    found += [value for name, value in options.items() if isinstance(value, str) and name not in HARMLESS_OPTIONS]
    with contextlib.suppress(ValueError):
        found.append(urlsplit(settings.base_url or "").password or "")
    return found


def refusal(
    *, provider_id: str, status: int, headers: Mapping[str, str], body: str, redact: Redact, now_s: float | None = None
) -> ProviderError:
    """The error that an HTTP answer other than 2xx means. `headers` has lower-case names."""
    details = _details(body)
    message = _message(status, headers, body, details)
    failure = _failure(status, message, details.codes)
    return ProviderError(
        redact(message)[:_MESSAGE_CHARACTERS_MAX],
        failure=failure,
        provider_id=provider_id,
        status_code=status,
        retryable=failure == "api" and _is_retryable(status, headers, details.codes),
        retry_after_ms=_retry_after_ms(headers, now_s),
        headers={name: redact(value) for name, value in headers.items() if name not in _DROPPED_HEADERS},
        body=redact(body)[:BODY_CHARACTERS_MAX],
    )


def error_in_stream(body: str, *, provider_id: str, redact: Redact) -> ProviderError:
    """The error that came where a piece of the answer should have been. The HTTP status said 200, so the object has to
    tell what is wrong; without any sign that the request itself is bad, another try may help."""
    details = _details(body)
    status = next((int(code) for code in details.codes if re.fullmatch(r"[45]\d\d", code)), None)
    message = details.message or "The provider reported an error without saying which."
    failure = _failure(status or 0, message, details.codes)
    retryable = failure == "api" and not details.codes & _QUOTA_CODES
    if retryable and status is not None:
        retryable = status in _RETRYABLE_STATUS or status >= 500
    elif retryable and details.codes:
        retryable = any(_PASSING_TROUBLE.search(text) for text in (*details.codes, message))
    return ProviderError(
        redact(message)[:_MESSAGE_CHARACTERS_MAX],
        failure=failure,
        provider_id=provider_id,
        status_code=status,
        retryable=retryable,
        body=redact(body)[:BODY_CHARACTERS_MAX],
    )


# --- reading the body -------------------------------------------------------------------------------------------


class _Details(msgspec.Struct, frozen=True):
    """What an error object says; all codes and types it has, in lower case."""

    message: str = ""
    codes: frozenset[str] = frozenset()


def _details(body: str) -> _Details:
    try:
        root: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return _Details()
    if isinstance(root, list) and root:  # Gemini wraps its errors in a list
        root = cast(list[object], root)[0]
    if not isinstance(root, dict):
        return _Details(message=root if isinstance(root, str) else "")
    outer = cast(dict[str, Any], root)
    texts: list[str] = []
    codes: set[str] = set()
    inner = outer.get("error")
    for level in (inner, outer):
        if isinstance(level, str):
            texts.append(level)
        elif isinstance(level, dict):
            fields = cast(dict[str, Any], level)
            texts += [text for name in ("message", "detail", "msg") if isinstance(text := fields.get(name), str)]
            for name in ("code", "type", "status"):
                code: object = fields.get(name)
                if isinstance(code, str | int) and not isinstance(code, bool):
                    codes.add(str(code).lower())
            deeper = fields.get("innererror")  # Azure
            if isinstance(deeper, dict) and isinstance(code := cast(dict[str, Any], deeper).get("code"), str):
                codes.add(code.lower())
    detail: object = outer.get("detail")  # FastAPI: a list of what is wrong where
    if isinstance(detail, list | dict):
        texts.append(msgspec.json.encode(detail).decode())
    return _Details(message=next((text for text in texts if text.strip()), ""), codes=frozenset(codes))


def _message(status: int, headers: Mapping[str, str], body: str, details: _Details) -> str:
    if details.message:
        return details.message
    try:
        name = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        name = f"HTTP {status}"
    if 300 <= status < 400:
        return f"{name} to {headers.get('location', 'nowhere')}. Set the provider's baseURL to the right address."
    text = body.strip()
    if not text:
        return name
    if "html" in headers.get("content-type", "") or re.match(r"<!doctype|<html", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        said = " ".join(title[1].split())[:200] if title else ""
        return (
            f"{name}, an HTML page{f' titled “{said}”' if said else ''}: it comes from a gateway, not from the model."
        )
    return f"{name}: {text}"


def _failure(status: int, message: str, codes: frozenset[str]) -> ProviderFailure:
    if status == 413 or codes & _OVERFLOW_CODES:
        return "context_overflow"
    if status != 429 and _OVERFLOW_PHRASES.search(message):  # with 429 it is tokens per minute that are too many
        return "context_overflow"
    if codes & _FILTER_CODES:
        return "content_filter"
    if status in (401, 403) or (status == 0 and codes & _AUTH_CODES):
        return "auth"
    return "api"


def _is_retryable(status: int, headers: Mapping[str, str], codes: frozenset[str]) -> bool:
    if codes & _QUOTA_CODES:
        return False  # answered with 429, but waiting does not fill an account
    advice = headers.get("x-should-retry")
    if advice in ("true", "false"):
        return advice == "true"
    return status in _RETRYABLE_STATUS or status >= 500


def _retry_after_ms(headers: Mapping[str, str], now_s: float | None) -> int | None:
    """RFC 9110, 10.2.3: seconds or a date; `retry-after-ms` is more exact where it is sent."""
    for name, unit_ms in (("retry-after-ms", 1), ("retry-after", 1000)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,12}(\.\d*)?", value):
            return round(float(value) * unit_ms)
    until = _date_s(headers.get("retry-after"))
    if until is None:
        return None
    # The server's own clock counts: ours may be wrong.
    now = _date_s(headers.get("date"))
    if now is None:
        now = time.time() if now_s is None else now_s
    return max(0, round((until - now) * 1000))


def _date_s(value: str | None) -> float | None:
    if not value:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
