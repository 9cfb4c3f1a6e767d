"""Adapter for every endpoint that speaks OpenAI's chat completions over HTTP: one POST, its answer read as it comes.

Rules
 1. One read from the network is one batch of chunks; nothing is held back, nothing waits for more.
 2. Nothing waits for ever: not for the connection, not for the first byte, not for the next one.
 3. A stream that ends before the answer did was cut. Once the LLM gave its reason to stop, the answer is whole, and trouble
    after that is none.
 4. Leaving the stream, however, closes the connection: the LLM stops, and nobody pays for what nobody reads.
 5. Keys and headers of the configuration never get into an error.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, TypeVar
from urllib.parse import SplitResult, urlencode, urlsplit

import aiohttp
import msgspec

from holdfast.agent.providers.base import AssistantTurn, Chunk, ModelRequest, Provider, ProviderError
from holdfast.agent.providers.chat_completions import StreamDecoder, request_body
from holdfast.agent.providers.connections import Connections, proxy_for
from holdfast.agent.providers.failures import redactor, refusal, secrets_of
from holdfast.agent.providers.limits import TOO_LONG, limits_of, silent_for
from holdfast.core.catalogue import Model
from holdfast.core.config import ProviderOptions
from holdfast.core.errors import Invalid
from holdfast.protocols.sse import Decoder, RemoteProtocolError

# After the answer only usage is to come, and after [DONE] only the end of the body, which lets the connection be used again.
_AFTER_ANSWER_S: Final = 10.0
_AFTER_DONE_S: Final = 0.05

_WHOLE_BODY_BYTES_MAX: Final = 64 * 1024 * 1024
_ERROR_BODY_BYTES_MAX: Final = 64 * 1024
_ERROR_BODY_S_MAX: Final = 10.0

T = TypeVar("T")


def create(model: Model, options: Mapping[str, Any], connections: Connections) -> Provider:
    """Raises Invalid if there is no address to speak to, or a header that cannot be sent."""
    place = f"provider.{model.provider_id}.options"
    try:
        settings = msgspec.convert(options, ProviderOptions)
    except msgspec.ValidationError as error:
        raise Invalid(f"{place}: {error}", field=place) from error
    if not settings.base_url:
        raise Invalid(
            f'Provider "{model.provider_id}" has no address: set its options.baseURL.',
            field=f"{place}.baseURL",
            hint="In opencode.json, such as http://127.0.0.1:11434/v1.",
        )
    address = _http_address(settings.base_url)
    if address is None:
        raise Invalid(f"{place}.baseURL is not an http or https address.", field=f"{place}.baseURL")
    headers = {"apiKey": settings.api_key or "", **(settings.headers or {}), **model.headers}
    for name, value in headers.items():
        if not (name + value).isprintable():
            raise Invalid(f"{place}: {name!r} holds a character that no HTTP header can hold.", field=place)
    if "@" in address.netloc and any(
        value and name.lower() in ("apikey", "authorization") for name, value in headers.items()
    ):
        raise Invalid(
            f"{place} has a user and password in baseURL, and a key besides: only one can be sent.", field=place
        )
    return OpenAICompatible(model, address, settings, connections)


class OpenAICompatible:
    """`address` is that of the API, without the `/chat/completions`."""

    def __init__(self, model: Model, address: SplitResult, settings: ProviderOptions, connections: Connections) -> None:
        query = settings.query_params or {}
        own_headers = (settings.headers or {}) | model.headers
        self._model = model
        self._connections = connections
        self._url = address._replace(
            path=address.path.rstrip("/") + "/chat/completions",
            query="&".join(part for part in (address.query, urlencode(query)) if part),
        ).geturl()
        self._host = address.netloc.rpartition("@")[2]
        self._headers = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # what compresses, also holds back
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}),
            **own_headers,
        }
        self._redact = redactor(secrets_of(settings, {}, own_headers))
        self._include_usage = settings.include_usage is not False
        self._whole_s, self._header_s, self._silence_s = limits_of(settings)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        decoder = StreamDecoder(
            self._model,
            used_ids=[
                call.call_id for turn in request.conversation if isinstance(turn, AssistantTurn) for call in turn.calls
            ],
            redact=self._redact,
        )
        deadline = None if self._whole_s is None else asyncio.get_running_loop().time() + self._whole_s
        response = await self._open(request, deadline)
        try:
            kind = response.content_type
            if not 200 <= response.status < 300 or "html" in kind:
                raise await self._refused(response)
            read = self._read_whole if "json" in kind else self._read_events
            async with aclosing(read(response, decoder, deadline)) as batches:
                async for batch in batches:
                    yield batch
            yield decoder.finish()
        finally:
            response.close()

    async def _open(self, request: ModelRequest, deadline: float | None) -> aiohttp.ClientResponse:
        body = request_body(request, self._model, include_usage=self._include_usage)
        post = self._connections.session().post(
            self._url,
            data=msgspec.json.encode(body),
            headers=self._headers | request.headers,
            proxy=proxy_for(self._url),
            allow_redirects=False,
        )
        return await self._wait(post, self._header_s, deadline)

    # --- reading

    async def _read_events(
        self, response: aiohttp.ClientResponse, decoder: StreamDecoder, deadline: float | None
    ) -> AsyncGenerator[Sequence[Chunk], None]:
        events = Decoder()
        while True:
            try:
                data = await self._wait(response.content.readany(), self._silence_s, deadline)
            except ProviderError:
                if decoder.answered:
                    return
                raise
            if not data:
                return
            batch: list[Chunk] = []
            failure: ProviderError | None = None
            try:
                for event in events.feed(data):
                    batch += decoder.feed(event.data)
            except ProviderError as error:
                failure = error
            except RemoteProtocolError as error:
                failure = self._failed(str(error), retryable=False)
            if batch:
                yield batch
            if failure is not None and not decoder.answered:
                raise failure
            if decoder.answered:  # whatever else comes, signs of life too
                deadline = _sooner(deadline, _AFTER_DONE_S if decoder.done else _AFTER_ANSWER_S)

    async def _read_whole(
        self, response: aiohttp.ClientResponse, decoder: StreamDecoder, deadline: float | None
    ) -> AsyncGenerator[Sequence[Chunk], None]:
        """Some servers answer in one piece although they were asked to stream, and some say 200 and send an error."""
        body = bytearray()
        while data := await self._wait(response.content.readany(), self._silence_s, deadline):
            body += data
            if len(body) > _WHOLE_BODY_BYTES_MAX:
                raise self._failed(f"The answer is longer than {_WHOLE_BODY_BYTES_MAX >> 20} MB.", retryable=False)
        chunks = decoder.feed(body.decode("utf-8", "replace"))
        if chunks:
            yield chunks

    async def _wait(self, work: Awaitable[T], limit_s: float | None, deadline: float | None) -> T:
        """What comes of it. Raises ProviderError when the network fails or nothing comes in time."""
        try:
            async with asyncio.timeout_at(deadline), asyncio.timeout(limit_s):
                return await work
        except aiohttp.ClientSSLError as error:
            raise self._failed(f"No secure connection to {self._host}: {error}", retryable=False) from error
        except aiohttp.ClientConnectionError as error:
            raise self._failed(f"No connection to {self._host}: {_reason(error)}") from error
        except aiohttp.ClientPayloadError as error:
            raise self._failed("The model's stream was cut off.") from error
        except aiohttp.InvalidURL as error:
            raise self._failed(f"Not an address: {self._host}", retryable=False) from error
        except aiohttp.ClientError as error:
            raise self._failed(f"{self._host} does not speak HTTP as it should: {_reason(error)}") from error
        except TimeoutError as error:
            if deadline is not None and asyncio.get_running_loop().time() >= deadline:
                raise self._failed(TOO_LONG) from error
            raise self._failed(silent_for(limit_s)) from error
        except OSError as error:
            raise self._failed(f"No connection to {self._host}: {_reason(error)}") from error

    # --- failing

    async def _refused(self, response: aiohttp.ClientResponse) -> ProviderError:
        body = bytearray()
        try:
            async with asyncio.timeout(_ERROR_BODY_S_MAX):
                while len(body) < _ERROR_BODY_BYTES_MAX and (data := await response.content.readany()):
                    body += data
        except (aiohttp.ClientError, OSError):
            pass  # what came until then says enough
        return refusal(
            provider_id=self._model.provider_id,
            status=response.status,
            headers={name.lower(): value for name, value in response.headers.items()},
            body=body[:_ERROR_BODY_BYTES_MAX].decode("utf-8", "replace"),
            redact=self._redact,
        )

    def _failed(self, message: str, *, retryable: bool = True) -> ProviderError:
        return ProviderError(self._redact(message), provider_id=self._model.provider_id, retryable=retryable)


def _sooner(deadline: float | None, seconds: float) -> float:
    soon = asyncio.get_running_loop().time() + seconds
    return soon if deadline is None else min(soon, deadline)


def _reason(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
    return text or type(error).__name__


def _http_address(text: str) -> SplitResult | None:
    try:
        address = urlsplit(text.strip())
        is_http = address.scheme in ("http", "https") and bool(address.hostname) and (address.port or 1) > 0
    except ValueError:
        return None
    return address if is_http else None
