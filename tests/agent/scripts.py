"""A model that behaves like a real one on a script, and a world for turns to run in.

The script is one turn: a list of steps; each step is reasoning, text and calls. Like a real model it goes by the
conversation it is given: which step is next follows from the tool outputs in it, and when it is asked to continue a cut
answer it says only the rest.
"""

import asyncio
import itertools
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from holdfast.agent.permissions import Ask
from holdfast.agent.providers.base import (
    AssistantTurn,
    Chunk,
    Finished,
    ModelRequest,
    Provider,
    ProviderError,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    ToolOutput,
    UserTurn,
)
from holdfast.agent.providers.conversation import CONTINUE, FORM_WANTED
from holdfast.agent.runner import ResolvedModel
from holdfast.agent.snapshots import WorkTree
from holdfast.agent.tools import ToolBox, ToolContext, ToolResult
from holdfast.core.messages import MessageModel, ToolPart, UserMessage
from holdfast.core.permissions import PermissionRule
from holdfast.core.session import CacheTokens, Session, Tokens

ALLOW_ALL = PermissionRule(permission="*", pattern="*", action="allow")

Pause = Callable[[], Awaitable[None]]


async def no_pause() -> None:
    await asyncio.sleep(0)


class Call(msgspec.Struct, frozen=True):
    name: str
    input: dict[str, Any] = {}


class Say(msgspec.Struct, frozen=True, kw_only=True):
    """One step. `failures` are raised one by one, each after `fail_after` words were said."""

    words: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    fail_after: int = 0


class ScriptedModel:
    """`failures` are raised by the first tries of the turn, in order; `pause` is awaited before every chunk."""

    def __init__(
        self, script: Sequence[Say], *, failures: Sequence[ProviderError] = (), pause: Pause = no_pause
    ) -> None:
        self._script = script
        self._failures = list(failures)
        self._pause = pause
        self._numbers = itertools.count(1)
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Sequence[Chunk], None]:
        self.requests.append(request)
        step, said = self._where(request)
        words = "".join(step.words)
        assert words.startswith(said), (words, said)
        left = words[len(said) :]
        for thought in () if said else step.reasoning:
            await self._pause()
            yield [ReasoningChunk(thought)]
        for number, word in enumerate(re.findall(r"\S+ ?", left)):
            if self._failures and number >= step.fail_after:
                break
            await self._pause()
            yield [TextChunk(word)]
        if self._failures:
            raise self._failures.pop(0)
        for call in step.calls:
            await self._pause()
            raw = msgspec.json.encode(call.input).decode()
            id = f"call_{next(self._numbers)}"
            yield [ToolCallChunk(call_id=id, name=call.name), ToolCallChunk(call_id=id, arguments=raw)]
        await self._pause()
        tokens = Tokens(input=10, output=len(step.words), reasoning=0, cache=CacheTokens(read=0, write=0))
        yield [Finished(reason="tool-calls" if step.calls else "stop", tokens=tokens, cost=0.5)]

    def _where(self, request: ModelRequest) -> tuple[Say, str]:
        items = list(request.conversation)
        said = ""
        if items[-1] == UserTurn(text=FORM_WANTED):
            items.pop()
        if isinstance(items[-1], UserTurn) and items[-1].text == CONTINUE:
            items.pop()
            last = items.pop()
            assert isinstance(last, AssistantTurn)
            said = last.text
        prompts = [n for n, item in enumerate(items) if isinstance(item, UserTurn)]
        since = items[prompts[-1] :]
        answered = sum(isinstance(item, AssistantTurn) for item in since)
        calls = {call.call_id for item in since if isinstance(item, AssistantTurn) for call in item.calls}
        assert calls == {item.call_id for item in since if isinstance(item, ToolOutput)}
        return self._script[min(answered, len(self._script) - 1)], said


class Counter:
    """A tool with an effect: `runs` says how often each call began and ended."""

    description = "Counts."

    def __init__(self, id: str, *, repeatable: bool, pause: Pause = no_pause) -> None:
        self.id = id
        self.parameters: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}}
        self.repeatable = repeatable
        self.began: list[str] = []
        self.cleaned: list[str] = []
        self._pause = pause

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        self.began.append(context.part_id)
        await context.progress("counting", {"output": "1"})
        await self._pause()
        return ToolResult(title="counted", output=f"counted {input.get('n', 0)}", metadata={"n": 1})

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return [Ask(permission=self.id, patterns=(str(input.get("n", 0)),), always=("*",))]

    async def clean_up(self, part: ToolPart) -> None:
        self.cleaned.append(part.id)


class World:
    """The environment of turns in tests. Without `rules`, everything is allowed."""

    def __init__(
        self,
        model: Provider,
        tools: ToolBox,
        *,
        rules: tuple[PermissionRule, ...] = (ALLOW_ALL,),
        room: int | None = None,
    ) -> None:
        self._model = model
        self._tools = tools
        self._rules = rules
        self._room = room
        self._prepared = False
        self.steps: int | None = None
        self.pruning = False
        self.title_provider: Provider | None = None
        self.tree: WorkTree | None = None

    async def prepare(self, session: Session) -> None:
        self._prepared = True

    async def model(self, session: Session, user: UserMessage) -> ResolvedModel:
        return ResolvedModel(provider=self._model, model_id="scripted-1", input_tokens_max=self._room)

    async def title_model(self, session: Session, user: UserMessage) -> ResolvedModel | None:
        return ResolvedModel(provider=self.title_provider, model_id="small-1") if self.title_provider else None

    def tools(self, session: Session, user: UserMessage) -> ToolBox:
        return self._tools

    def prunes(self, session: Session) -> bool:
        return self.pruning

    def steps_max(self, session: Session, user: UserMessage) -> int | None:
        return self.steps

    def rules(self, session: Session, user: UserMessage) -> tuple[PermissionRule, ...]:
        assert self._prepared, "rules were asked for before they were read"
        return self._rules

    def agent_model(self, session: Session, agent: str) -> MessageModel | None:
        return None

    def subagents(self, session: Session) -> tuple[str, ...]:
        return ("general",)

    def system(self, session: Session, user: UserMessage, agent: str) -> tuple[str, ...]:
        return (f"You are the agent {agent}.",)

    def snapshots(self, session: Session) -> WorkTree | None:
        return self.tree

    def worktree(self, session: Session) -> str:
        return "/"

    def output_directory(self, session: Session) -> Path:
        return Path("/nonexistent")
