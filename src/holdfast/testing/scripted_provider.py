"""An LLM whose every answer is written down by the test: what it says, in which pieces, where it stalls, cuts or fails.

    provider = ScriptedProvider(
        [*text("Let me look. "), *call("read", {"filePath": "."})],
        [*text("Half a sent"), cut()],
        [*text("ence.")],
    )

One script answers one request, in order. An answer that neither fails nor ends by itself is ended as an LLM would end it.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.agent.providers.base import (
    Chunk,
    Finished,
    FinishReason,
    MetadataChunk,
    ModelRequest,
    Provider,
    ProviderError,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
)
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.registry import ProviderRegistry
from holdfast.core.catalogue import Model
from holdfast.core.clock import Clock
from holdfast.core.config import Config, LimitConfig, ModelConfig, ProviderConfig
from holdfast.core.session import CacheTokens, Tokens

PROVIDER_ID: Final = "scripted"


class Stall:
    """The LLM says nothing until `release`; `reached` is set once it is there. Without a release it hangs for ever."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self._released = asyncio.Event()

    def release(self) -> None:
        self._released.set()

    async def wait(self) -> None:
        self.reached.set()
        await self._released.wait()


class Pause(msgspec.Struct, frozen=True):
    """The LLM says nothing for so long, by the provider's clock."""

    milliseconds: int


Action = Chunk | Sequence[Chunk] | Stall | Pause | ProviderError
"""A chunk is a batch of its own, a sequence of chunks one batch; an error is raised."""

Script = Sequence[Action] | Callable[[ModelRequest], Sequence[Action]]


class ScriptedProvider:
    """`requests` are those it got; `closed` counts the answers that were left before their end."""

    def __init__(self, *scripts: Script, clock: Clock | None = None) -> None:
        self.requests: list[ModelRequest] = []
        self.closed = 0
        self._scripts = list(scripts)
        self._clock = clock
        self._requested = asyncio.Event()

    def add(self, script: Script) -> None:
        """Answer one request more."""
        self._scripts.append(script)

    async def until_requested(self, count: int = 1) -> ModelRequest:
        """Return the `count`-th request once it came."""
        while len(self.requests) < count:
            self._requested.clear()
            await self._requested.wait()
        return self.requests[count - 1]

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        self.requests.append(request)
        self._requested.set()
        assert len(self.requests) <= len(self._scripts), f"Nothing is written for request {len(self.requests)}."
        script = self._scripts[len(self.requests) - 1]
        actions = script(request) if callable(script) else script
        said: list[Chunk] = []
        try:
            for action in actions:
                match action:
                    case Stall():
                        await action.wait()
                    case Pause(milliseconds):
                        assert self._clock is not None, "A pause needs a clock."
                        await self._clock.sleep_until(self._clock.now_ms() + milliseconds)
                    case ProviderError():
                        raise action
                    case TextChunk() | ReasoningChunk() | ToolCallChunk() | MetadataChunk() | Finished():
                        said.append(action)
                        yield (action,)
                    case _:
                        said += action
                        yield action
            if not any(isinstance(chunk, Finished) for chunk in said):
                calls = any(isinstance(chunk, ToolCallChunk) for chunk in said)
                yield (finished("tool-calls" if calls else "stop"),)
        except (GeneratorExit, asyncio.CancelledError):
            self.closed += 1
            raise


def cut() -> ProviderError:
    """The connection breaks in mid-answer."""
    return ProviderError("The model's stream was cut off.", retryable=True)


# --- what an LLM says -------------------------------------------------------------------------------------------


def text(words: str) -> list[Chunk]:
    """A chunk for each word, with the space after it."""
    return [TextChunk(word) for word in re.findall(r"\s*\S+\s*?(?=\S|$)|\s+", words)]


def reasoning(words: str) -> list[Chunk]:
    return [ReasoningChunk(chunk.text) for chunk in text(words) if isinstance(chunk, TextChunk)]


def call(name: str, input: Mapping[str, Any] | str, *, call_id: str | None = None, pieces: int = 1) -> list[Chunk]:
    """A tool call whose arguments come in so many pieces. A text as input is sent as it is, valid or not."""
    raw = input if isinstance(input, str) else msgspec.json.encode(input).decode()
    call_id = call_id or f"call_{name}"
    size = -(-len(raw) // pieces) or 1
    parts = [raw[at : at + size] for at in range(0, len(raw), size)] or [""]
    return [ToolCallChunk(call_id=call_id, name=None if at else name, arguments=part) for at, part in enumerate(parts)]


def interleaved(*calls: Sequence[Chunk]) -> list[Chunk]:
    """Parallel calls as some LLMs write them: a piece of each in turn."""
    longest = max(map(len, calls), default=0)
    return [chunks[at] for at in range(longest) for chunks in calls if at < len(chunks)]


def finished(reason: FinishReason = "stop", *, input: int = 10, output: int = 5, cost: float = 0.0) -> Finished:
    tokens = Tokens(total=input + output, input=input, output=output, reasoning=0, cache=CacheTokens(read=0, write=0))
    return Finished(reason=reason, tokens=tokens, cost=cost)


# --- as configured models ---------------------------------------------------------------------------------------


def scripted_registry(providers: Mapping[str, Provider]) -> ProviderRegistry:
    """Model `scripted/<name>` for each of them; the first is the default."""
    return ProviderRegistry(
        Config(
            model=f"{PROVIDER_ID}/{next(iter(providers))}",
            provider={PROVIDER_ID: scripted_config(providers)},
        ),
        connections=Connections(),
        environ={},
        adapters=scripted_adapters(providers),
    )


def scripted_config(names: Iterable[str]) -> ProviderConfig:
    """The provider as `opencode.json` would describe it."""
    limit = LimitConfig(context=100_000, output=10_000)
    return ProviderConfig(npm=PROVIDER_ID, models={name: ModelConfig(limit=limit) for name in names})


def scripted_adapters(providers: Mapping[str, Provider]) -> Mapping[str, Callable[..., Provider]]:
    """For `ProviderRegistry` and `Configuration`: who speaks `"npm": "scripted"`."""

    def create(model: Model, options: Mapping[str, Any], connections: Connections) -> Provider:
        return providers[model.id]

    return {PROVIDER_ID: create}
