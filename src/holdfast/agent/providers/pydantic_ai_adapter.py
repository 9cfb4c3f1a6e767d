"""Adapter for the wire formats that pydantic-ai speaks: OpenAI's Responses, Anthropic, Google, Bedrock, Mistral, …

The SDKs take a second or two to import, so nothing here does: the first request has it done in a thread, and the event
loop goes on meanwhile. What speaks is in `pydantic_ai_speaker`.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import msgspec

from holdfast.agent.providers.base import Chunk, ModelRequest, Provider
from holdfast.agent.providers.connections import Connections
from holdfast.core.catalogue import Model
from holdfast.core.config import ProviderOptions
from holdfast.core.errors import Invalid


def create(model: Model, options: Mapping[str, Any], connections: Connections) -> Provider:
    """Raises Invalid if the options do not do."""
    place = f"provider.{model.provider_id}.options"
    try:
        settings = msgspec.convert(options, ProviderOptions)
    except msgspec.ValidationError as error:
        raise Invalid(f"{place}: {error}", field=place) from error
    headers = {"apiKey": settings.api_key or "", **(settings.headers or {}), **model.headers}
    for name, value in headers.items():
        if not (name + value).isascii() or not (name + value).isprintable():
            raise Invalid(f"{place}: {name!r} holds a character that no HTTP header can hold.", field=place)
    if settings.base_url and not _is_http(settings.base_url):
        raise Invalid(f"{place}.baseURL is not an http or https address.", field=f"{place}.baseURL")
    return PydanticAI(model, settings, options, connections)


class PydanticAI:
    def __init__(
        self, model: Model, settings: ProviderOptions, options: Mapping[str, Any], connections: Connections
    ) -> None:
        self._model = model
        self.settings = settings
        self._options = options
        self._connections = connections
        self._speaker: Provider | None = None
        self._making = asyncio.Lock()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        async with self._making:
            if self._speaker is None:
                self._speaker = await asyncio.to_thread(self._make)
        async with aclosing(self._speaker.stream(request)) as batches:
            async for batch in batches:
                yield batch

    def _make(self) -> Provider:
        from holdfast.agent.providers.pydantic_ai_speaker import Speaker

        return Speaker(self._model, self.settings, self._options, self._connections)


def _is_http(text: str) -> bool:
    try:
        address = urlsplit(text.strip())
        return address.scheme in ("http", "https") and bool(address.hostname)
    except ValueError:
        return False
