"""The LLM that says what a test wrote down."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from holdfast.agent.providers.base import (
    Chunk,
    Finished,
    ModelRequest,
    Provider,
    ProviderError,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    UserTurn,
)
from holdfast.core.errors import NotFound
from holdfast.testing.manual_clock import START_MS, ManualClock
from holdfast.testing.scripted_provider import (
    Pause,
    ScriptedProvider,
    Stall,
    call,
    cut,
    finished,
    interleaved,
    reasoning,
    scripted_registry,
    text,
)

REQUEST = ModelRequest(model_id="m", conversation=(UserTurn(text="hi"),))


async def everything(stream: AsyncGenerator[Sequence[Chunk], None]) -> list[Sequence[Chunk]]:
    async with aclosing(stream) as batches:
        return [tuple(batch) async for batch in batches]


async def test_each_request_gets_the_next_answer_and_is_remembered() -> None:
    provider = ScriptedProvider(text("one two"), lambda request: text(request.model_id))
    provider.add([])
    port: Provider = provider

    assert await everything(port.stream(REQUEST)) == [(TextChunk("one "),), (TextChunk("two"),), (finished("stop"),)]
    assert await everything(port.stream(REQUEST)) == [(TextChunk("m"),), (finished("stop"),)]
    assert await everything(port.stream(REQUEST)) == [(finished("stop"),)]
    assert provider.requests == [REQUEST] * 3
    with pytest.raises(AssertionError, match="Nothing is written for request 4"):
        await everything(port.stream(REQUEST))


async def test_a_sequence_of_chunks_is_one_batch_and_an_end_of_its_own_is_kept() -> None:
    script = [reasoning("a b"), finished("length", input=1, output=2)]

    assert await everything(ScriptedProvider(script).stream(REQUEST)) == [
        (ReasoningChunk("a "), ReasoningChunk("b")),
        (finished("length", input=1, output=2),),
    ]


async def test_calls_come_whole_in_pieces_or_interleaved_and_end_the_step_for_tools() -> None:
    script = interleaved(call("read", {"x": 1}, pieces=2), call("bash", "{rubbish", call_id="b"))
    batches = await everything(ScriptedProvider(script).stream(REQUEST))

    assert [batch[0] for batch in batches[:-1]] == [
        ToolCallChunk(call_id="call_read", name="read", arguments='{"x"'),
        ToolCallChunk(call_id="b", name="bash", arguments="{rubbish"),
        ToolCallChunk(call_id="call_read", arguments=":1}"),
    ]
    assert isinstance(batches[-1][0], Finished)
    assert batches[-1][0].reason == "tool-calls"


async def test_errors_and_cuts_come_after_what_was_said() -> None:
    stream = ScriptedProvider([*text("a"), cut()]).stream(REQUEST)

    assert await anext(stream) == (TextChunk("a"),)
    with pytest.raises(ProviderError, match="cut off") as failed:
        await anext(stream)
    assert failed.value.is_retryable


async def test_a_stall_lasts_until_the_test_releases_it() -> None:
    stall = Stall()
    provider = ScriptedProvider([*text("a"), stall, *text("b")])
    running = asyncio.ensure_future(everything(provider.stream(REQUEST)))

    assert await provider.until_requested() is REQUEST
    await stall.reached.wait()
    assert not running.done()
    stall.release()

    assert len(await running) == 3
    assert provider.closed == 0


async def test_a_pause_lasts_as_long_as_the_clock_says() -> None:
    clock = ManualClock()
    running = asyncio.ensure_future(everything(ScriptedProvider([Pause(500)], clock=clock).stream(REQUEST)))

    assert await clock.until_sleeping() == START_MS + 500
    clock.advance(500)

    assert await running == [(finished("stop"),)]


async def test_leaving_an_answer_is_noticed() -> None:
    provider = ScriptedProvider(text("a b"), [Stall()])
    stream = provider.stream(REQUEST)
    await anext(stream)
    await stream.aclose()
    assert provider.closed == 1

    running = asyncio.ensure_future(everything(provider.stream(REQUEST)))
    await provider.until_requested(2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert provider.closed == 2


async def test_providers_can_stand_in_a_registry_under_their_names() -> None:
    one, two = ScriptedProvider(), ScriptedProvider()
    registry = scripted_registry({"one": one, "two": two})

    assert registry.resolve("scripted", "two")[0] is two
    assert registry.default_model().model_id == "one"
    with pytest.raises(NotFound):
        registry.resolve("scripted", "three")
