"""Speaks to one LLM through pydantic-ai. Imported by `pydantic_ai_adapter`, in a thread, since the SDKs take their time.

Rules
 1. One event of the provider is one batch of chunks; nothing is held back.
 2. Nothing waits for ever (`pydantic_ai_http`). Bedrock's SDK brings its own HTTP, so there each event has to come in time.
 3. A stream that ends without a reason was cut.
 4. Leaving the stream, however, closes the connection: the LLM stops, and nobody pays for what nobody reads.
 5. The SDKs do not try again by themselves: the runner does, and tells the user.
 6. Keys and headers of the configuration never get into an error.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from pydantic_ai import exceptions as ai
from pydantic_ai.direct import model_request_stream
from pydantic_ai.models import StreamedResponse

from holdfast.agent.providers.base import (
    AssistantTurn,
    Chunk,
    Finished,
    FinishReason,
    ModelRequest,
    ProviderError,
    TextChunk,
)
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.failures import error_in_stream, redactor, refusal, secrets_of
from holdfast.agent.providers.limits import TOO_LONG, limits_of, silent_for
from holdfast.agent.providers.pydantic_ai_http import Exchange, Refused
from holdfast.agent.providers.pydantic_ai_messages import (
    REASONS,
    StreamReader,
    messages_of,
    parameters_of,
    tokens_of,
    with_called_tools,
)
from holdfast.agent.providers.pydantic_ai_models import make
from holdfast.core.catalogue import Model
from holdfast.core.config import ProviderOptions
from holdfast.core.errors import Invalid

T = TypeVar("T")

_OWN_HTTP: Final = frozenset({"@ai-sdk/amazon-bedrock"})
_CUT: Final = "The model's stream was cut off."


class Speaker:
    """Raises ProviderError if the options do not do."""

    def __init__(
        self, model: Model, settings: ProviderOptions, options: Mapping[str, Any], connections: Connections
    ) -> None:
        headers = (settings.headers or {}) | model.headers
        self._model = model
        self._limits = limits_of(settings)
        self._redact = redactor(secrets_of(settings, options, headers))
        try:
            self._made = make(model, settings, options, self._limits, connections)
        except Invalid as error:
            raise self._failed(f"{error.message} {error.hint or ''}".strip(), failure="auth") from error
        except Exception as error:  # whatever an SDK thinks of its options
            raise self._failed(_words(error)) from None
        own_http = model.api.npm in _OWN_HTTP
        self._header_s = self._limits.header_s if own_http else None
        self._silence_s = self._limits.silence_s if own_http else None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        made = self._made
        request = with_called_tools(request)
        deadline = None
        if self._limits.whole_s is not None:
            deadline = asyncio.get_running_loop().time() + self._limits.whole_s
        reader = StreamReader(
            call.call_id for turn in request.conversation if isinstance(turn, AssistantTurn) for call in turn.calls
        )
        opening = model_request_stream(
            made.model,
            messages_of(request, self._model, made.model.system, takes=made.takes),
            model_settings=made.settings_for(request, self._model),
            model_request_parameters=parameters_of(request),
        )
        exchange = Exchange()
        try:
            async with AsyncExitStack() as stack:
                with exchange.watched():
                    stream = await self._wait(stack.enter_async_context(opening), self._header_s, deadline, exchange)
                events = aiter(stream)
                while True:
                    try:
                        event = await self._wait(anext(events), self._silence_s, deadline, exchange)
                    except StopAsyncIteration:
                        break
                    if batch := reader.feed(event):
                        yield batch
                yield self._ended(stream, reader)
        finally:
            await exchange.aclose()

    def _ended(self, stream: StreamedResponse, reader: StreamReader) -> list[Chunk]:
        response = stream.get()
        details = response.provider_details or {}
        if response.finish_reason == "error":
            raise self._failed("The model stopped with an error.", retryable=True)
        if response.finish_reason is None and details.get("finish_reason") is None:
            raise self._failed(_CUT, retryable=True)
        reason: FinishReason = REASONS.get(response.finish_reason or "", "unknown")
        if reader.has_calls and reason in ("stop", "unknown"):
            reason = "tool-calls"
        elif not reader.has_calls and reason == "tool-calls":
            reason = "unknown"  # there is nothing to wait for
        tokens = tokens_of(response.usage)
        told = details.get("cost")  # OpenRouter knows what it charges
        declined = details.get("refusal")
        return [
            *([TextChunk(declined)] if isinstance(declined, str) and declined else []),
            *reader.finish(response.parts, response.canonical_system),
            Finished(
                reason=reason, tokens=tokens, cost=told if isinstance(told, float) else self._model.cost.of(tokens)
            ),
        ]

    async def _wait(self, work: Awaitable[T], limit_s: float | None, deadline: float | None, exchange: Exchange) -> T:
        """What comes of it. Raises ProviderError, or StopAsyncIteration when there is nothing more."""
        try:
            async with asyncio.timeout_at(deadline), asyncio.timeout(limit_s):
                return await work
        except TimeoutError:
            if deadline is not None and asyncio.get_running_loop().time() >= deadline:
                raise self._failed(TOO_LONG, retryable=True) from None
            raise self._failed(silent_for(limit_s), retryable=True) from None
        except StopAsyncIteration:
            raise
        except Exception as error:
            raise self._translated(error, exchange.refused) from error

    def _translated(self, error: Exception, refused: Refused | None) -> ProviderError:
        if refused is not None:
            failure = self._refusal(refused)
        else:
            match error:
                case ai.ModelHTTPError():
                    body = _text(error.body, wrapped=error.in_stream)
                    failure = self._refusal(Refused(error.status_code, error.headers or {}, body))
                case ai.ModelConnectionError():
                    return self._failed(self._unreachable(error), retryable=True)
                case ai.ModelRequestTimeout():
                    return self._failed(TOO_LONG, retryable=True)
                case ai.ModelAPIError():
                    body = _text(error.body if error.body is not None else error.message, wrapped=True)
                    failure = error_in_stream(body, provider_id=self._model.provider_id, redact=self._redact)
                case ai.UnexpectedModelBehavior():
                    message = f"The model's stream holds something unreadable: {error.message}"
                    return self._failed(message, retryable=True)
                case _:
                    # What pydantic-ai did not translate: the SDK did not like the request, or the network failed.
                    return self._failed(_words(error), retryable=_is_transport(error))
        if isinstance(error, ai.ModelAPIError) and error.retry_after is not None and failure.retry_after_ms is None:
            failure.retry_after_ms = round(error.retry_after * 1000)
        match error:  # where pydantic-ai knows the provider's codes better than we do
            case ai.ModelContextWindowExceededError():
                failure.failure, failure.is_retryable = "context_overflow", False
            case ai.ModelAuthenticationError():
                failure.failure, failure.is_retryable = "auth", False
            case ai.ModelQuotaExceededError():
                failure.is_retryable = False
            case _:
                pass
        return failure

    def _refusal(self, refused: Refused) -> ProviderError:
        return refusal(
            provider_id=self._model.provider_id,
            status=refused.status,
            headers=refused.headers,
            body=refused.body,
            redact=self._redact,
        )

    def _unreachable(self, error: ai.ModelConnectionError) -> str:
        causes = list(_causes(error))
        told = next((str(cause) for cause in causes if str(cause).startswith("The model said nothing")), None)
        if told is not None:
            return told
        if error.phase == "read":
            return _CUT
        host = urlsplit(self._made.model.base_url or "").netloc.rpartition("@")[2] or "the provider"
        network = next((cause for cause in causes if isinstance(cause, OSError) and cause.strerror), None)
        return f"No connection to {host}: {network.strerror if network is not None else _words(causes[-1])}"

    def _failed(self, message: str, *, retryable: bool = False, failure: Any = "api") -> ProviderError:
        return ProviderError(
            self._redact(message)[:1_000], failure=failure, provider_id=self._model.provider_id, retryable=retryable
        )


def _text(body: object, *, wrapped: bool = False) -> str:
    """What the provider said, as text. `wrapped`: a text is the message of an error object, and no HTTP body."""
    if isinstance(body, str):
        return msgspec.json.encode({"error": {"message": body}}).decode() if wrapped else body
    return msgspec.json.encode(body, enc_hook=str).decode() if body is not None else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _is_transport(error: BaseException) -> bool:
    return any(type(cause).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore") for cause in _causes(error))


def _words(error: BaseException) -> str:
    if isinstance(error, ai.UserError):
        return error.message
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
