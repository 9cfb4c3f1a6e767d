"""The demo: what a newcomer sees first, and that it goes on where it was cut."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.providers.base import (
    AssistantTurn,
    Chunk,
    ConversationItem,
    Finished,
    ModelRequest,
    ReasoningChunk,
    TextChunk,
    ToolCall,
    ToolCallChunk,
    ToolOutput,
    ToolSpec,
    UserTurn,
)
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.conversation import CONTINUE
from holdfast.agent.providers.demo import Demo
from holdfast.agent.providers.registry import ProviderRegistry
from holdfast.core.config import Config
from holdfast.core.errors import Invalid

READ = ToolSpec("read", "Reads.", {"type": "object"})
LISTING = "<path>/p</path>\n<content>\nREADME.md\nsrc/\n</content>\n(2 entries in all.)"

PROMPT = UserTurn(text="Hello there")
LOOKING = AssistantTurn(text="I look.", calls=(ToolCall(call_id="c", name="read", input={"filePath": "."}),))
CONVERSATIONS: Sequence[tuple[ConversationItem, ...]] = (
    (PROMPT,),
    (PROMPT, LOOKING, ToolOutput(call_id="c", name="read", output=LISTING)),
    (PROMPT, LOOKING, ToolOutput(call_id="c", name="read", output="No right to.", is_error=True)),
    (PROMPT, AssistantTurn(text="Hi."), UserTurn(text="And now?")),
)


async def said(
    *conversation: ConversationItem, tools: tuple[ToolSpec, ...] = (READ,), system: tuple[str, ...] = ()
) -> list[Chunk]:
    request = ModelRequest(model_id="demo-1", conversation=conversation, tools=tools, system=system)
    return [chunk async for batch in Demo(words_per_second=0).stream(request) for chunk in batch]


def text(chunks: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))


async def test_on_the_first_prompt_it_thinks_speaks_and_looks_at_the_project() -> None:
    answer = await said(PROMPT)

    assert list(dict.fromkeys(map(type, answer))) == [ReasoningChunk, TextChunk, ToolCallChunk, Finished]
    call, last = answer[-2:]
    assert isinstance(call, ToolCallChunk)
    assert isinstance(last, Finished)
    assert (call.name, msgspec.json.decode(call.arguments), last.reason) == ("read", {"filePath": "."}, "tool-calls")


async def test_then_it_tells_what_it_saw_and_stops() -> None:
    answer = await said(*CONVERSATIONS[1])

    assert "README.md, src/." in text(answer)
    assert "2 entries" not in text(answer)
    assert isinstance(answer[-1], Finished)
    assert answer[-1].reason == "stop"


async def test_without_the_read_tool_it_just_speaks() -> None:
    answer = await said(PROMPT, tools=())

    assert "Hello there" in text(answer)
    assert not any(isinstance(chunk, ToolCallChunk) for chunk in answer)


async def test_it_can_find_a_title() -> None:
    assert (
        text(await said(UserTurn(text="Mend\nthe roof"), tools=(), system=("You are a title generator.",)))
        == "Mend the roof"
    )


@given(st.sampled_from(CONVERSATIONS), st.lists(st.integers(0, 40), max_size=4))
async def test_cut_anywhere_and_continued_it_says_each_word_once(
    conversation: tuple[ConversationItem, ...], cuts: list[int]
) -> None:
    """Text kept before the cuts and text said after them are together what an uncut answer says."""
    whole = await said(*conversation)
    so_far: list[ConversationItem] = list(conversation)
    kept = ""
    for words in cuts:
        rest = text([chunk for chunk in await said(*so_far) if isinstance(chunk, TextChunk)][:words])
        if rest:
            kept += rest
            so_far += [AssistantTurn(text=rest), UserTurn(text=CONTINUE)]

    last = await said(*so_far)

    assert kept + text(last) == text(whole)
    assert [chunk for chunk in last if isinstance(chunk, ToolCallChunk | Finished)] == [
        chunk for chunk in whole if isinstance(chunk, ToolCallChunk | Finished)
    ]
    if kept:
        assert not any(isinstance(chunk, ReasoningChunk) for chunk in last)


async def test_text_that_it_never_said_is_not_begun_again() -> None:
    answer = await said(*CONVERSATIONS[1], AssistantTurn(text="An older demo sa"), UserTurn(text=CONTINUE))

    assert "project directory" not in text(answer)


async def test_it_speaks_at_a_readers_pace_one_word_at_a_time() -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    batches = [batch async for batch in Demo(sleep=sleep).stream(ModelRequest(model_id="m", conversation=(PROMPT,)))]

    assert {len(batch) for batch in batches} == {1}
    assert set(pauses) == {1 / 25}
    assert len(pauses) == len(batches) - 1


@pytest.mark.parametrize("pace", ["fast", -1, True])
def test_its_pace_is_an_option(pace: Any) -> None:
    def resolve(value: Any) -> Any:
        config = msgspec.convert({"provider": {"demo": {"options": {"wordsPerSecond": value}}}}, Config)
        return ProviderRegistry(config, connections=Connections(), environ={}).resolve("demo", "demo-1")[0]

    assert isinstance(resolve(100), Demo)
    with pytest.raises(Invalid, match="wordsPerSecond"):
        resolve(pace)
