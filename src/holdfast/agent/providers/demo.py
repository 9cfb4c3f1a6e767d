"""The built-in LLM that is none: it needs no key and shows in one turn what Holdfast does with a model's answer.

It thinks, looks at the project directory with the `read` tool on the first prompt, and tells about it, word by word, at
a reader's pace: slow enough to kill the server in mid-sentence. Its answer depends on the conversation alone, so one
that was cut goes on at the very character where it stopped.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.agent.providers.base import (
    AssistantTurn,
    Chunk,
    ConversationItem,
    Finished,
    ModelRequest,
    Provider,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    ToolOutput,
    UserTurn,
)
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.conversation import CONTINUE
from holdfast.core.catalogue import Model
from holdfast.core.errors import Invalid
from holdfast.core.session import CacheTokens, Tokens

WORDS_PER_SECOND: Final = 25.0
_NAMES_MAX: Final = 6


def create(model: Model, options: Mapping[str, Any], connections: Connections) -> Provider:
    """`options.wordsPerSecond` is the pace; 0 is as fast as possible."""
    pace = options.get("wordsPerSecond", WORDS_PER_SECOND)
    if isinstance(pace, bool) or not isinstance(pace, int | float) or pace < 0:
        raise Invalid(
            "wordsPerSecond is a number of at least 0.", field=f"provider.{model.provider_id}.options.wordsPerSecond"
        )
    return Demo(words_per_second=pace)


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo says in one step, in this order. `looks` calls the read tool at the end."""

    reasoning: str = ""
    text: str
    looks: bool = False


class Demo:
    """`sleep` waits a number of seconds."""

    def __init__(
        self,
        *,
        words_per_second: float = WORDS_PER_SECOND,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pause = 1 / words_per_second if words_per_second else 0.0
        self._sleep = sleep

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        conversation, kept = _without_cut_tries(request.conversation)
        answer = _answer(conversation, request)
        if not kept:
            for word in _words(answer.reasoning):
                yield (ReasoningChunk(word),)
                await self._sleep(self._pause)
        for word in _words(_rest(answer.text, kept)):
            yield (TextChunk(word),)
            await self._sleep(self._pause)
        if answer.looks:
            call_id = f"call_demo_{len(conversation)}"
            yield (ToolCallChunk(call_id=call_id, name="read", arguments='{"filePath": "."}'),)
        heard, said = _count(conversation), len(_words(answer.text))
        thought = len(_words(answer.reasoning))
        yield (
            Finished(
                reason="tool-calls" if answer.looks else "stop",
                tokens=Tokens(
                    total=heard + said + thought,
                    input=heard,
                    output=said,
                    reasoning=thought,
                    cache=CacheTokens(read=0, write=0),
                ),
            ),
        )


# --- where it is in the conversation ----------------------------------------------------------------------------


def _without_cut_tries(conversation: Sequence[ConversationItem]) -> tuple[Sequence[ConversationItem], str]:
    """The conversation as it was before the tries that were cut, and the text they got out."""
    kept = ""
    while len(conversation) >= 2:
        match conversation[-2:]:
            case [AssistantTurn(text=text), UserTurn(text=said)] if said == CONTINUE:
                kept = text + kept
                conversation = conversation[:-2]
            case _:
                break
    return conversation, kept


def _rest(text: str, kept: str) -> str:
    """What follows the kept text. If that was another one (an older demo's), the answer just comes to an end."""
    return text[len(kept) :] if text.startswith(kept) else " … And that is where I was cut off; the rest is lost to me."


def _words(text: str) -> list[str]:
    """Words with the space that follows; joined they are the text again."""
    return re.findall(r"\s*\S+\s*?(?=\S|$)|\s+", text)


def _count(conversation: Sequence[ConversationItem]) -> int:
    return sum(len((item.output if isinstance(item, ToolOutput) else item.text).split()) for item in conversation)


# --- what it says -----------------------------------------------------------------------------------------------


def _answer(conversation: Sequence[ConversationItem], request: ModelRequest) -> _Answer:
    prompts = [item.text for item in conversation if isinstance(item, UserTurn)]
    prompt = prompts[-1] if prompts else ""
    last = conversation[-1] if conversation else None
    if not request.tools and any("title" in paragraph.lower() for paragraph in request.system):
        return _Answer(text=_shortened(prompt, 50) or "Demo")
    if isinstance(last, ToolOutput):
        return _Answer(reasoning="The tool has answered. Now I tell what it found. ", text=_about(last))
    if len(prompts) == 1 and any(tool.name == "read" for tool in request.tools):
        return _Answer(
            reasoning=(
                "This is the first prompt of the session. I am no real model, but I can show what a turn looks like: "
                "I look at the project directory first, and then I tell about it. "
            ),
            text="Hello! I am the demo model that comes with Holdfast. Let me look at your project first.",
            looks=True,
        )
    return _Answer(reasoning="Another prompt. I answer what a demo can answer. ", text=_small_talk(prompt))


def _about(result: ToolOutput) -> str:
    if result.is_error:
        seen = "The directory did not open: " + _shortened(result.output, 120) + " Tools may fail; the turn goes on."
    else:
        lines = [line.strip() for line in result.output.splitlines()]
        names = [line for line in lines if line and not line.startswith(("<", "("))]
        shown = ", ".join(names[:_NAMES_MAX])
        more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
        seen = f"This is what I see in the project directory: {shown}{more}." if names else "The directory is empty."
    return (
        f"{seen}\n\n"
        "That was a tool call: it was recorded before it ran, and so was its result before you saw it. "
        "What you are reading now comes word by word, and each word is on the disk before it is on your screen.\n\n"
        "Do not take my word for it. While I am still talking, kill this server, with `kill -9` if you like. "
        "Then start it again. Nobody has to ask me to go on: the server finds my half sentence in its log, "
        "the words that you saw are all still there, and I continue in the middle of the line where I was cut off. "
        "Your client catches up by itself, without a gap and without a word said twice.\n\n"
        "To talk to a real model, describe a provider in `opencode.json`: any endpoint that speaks the "
        "chat-completions protocol of OpenAI will do."
    )


def _small_talk(prompt: str) -> str:
    return (
        f"You wrote: “{_shortened(prompt, 80)}”.\n\n"
        "I would love to have an opinion on that, but I am only the demo model, and I say nearly the same to everybody. "
        "What is real is everything around me: your prompt was recorded before the server accepted it, a second prompt "
        "would wait in the queue and be answered after this one, an abort would stop me at the next word, "
        "and a server that dies now would go on from here.\n\n"
        "To talk to a real model, describe a provider in `opencode.json`."
    )


def _shortened(text: str, characters_max: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= characters_max else line[: characters_max - 1].rstrip() + "…"
