"""Answers in a form: asked for again when they lack it, at most so often; and the last step of an agent that may take only so
many."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

from holdfast.agent.providers.base import UserTurn
from holdfast.agent.providers.conversation import FORM_WANTED, LAST_STEP
from holdfast.agent.runner.output import NO_STEPS_LEFT
from holdfast.agent.tools import Tool
from holdfast.agent.tools.structured_output import StructuredOutput
from holdfast.core import events as e
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import (
    AssistantMessage,
    OutputFormatJsonSchema,
    StructuredOutputError,
    ToolCompleted,
    ToolError,
    ToolPart,
)
from holdfast.core.session import IDLE
from holdfast.storage.memory import MemoryStore
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.scripted_provider import ScriptedProvider, call, cut, text
from tests.agent.scripts import Call, Counter, Say, World
from tests.agent.test_runner import Server, said, serving
from tests.agent.test_runner_killed import one_life
from tests.core import samples as s

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def answer(n: Any, number: int = 1) -> Sequence[Any]:
    return call("StructuredOutput", {"n": n}, call_id=f"answer_{number}")


@asynccontextmanager
async def asked(*scripts: Any, retries: int | None = None, tools: Sequence[Tool] = ()) -> AsyncGenerator[Server, None]:
    """A session whose prompt wants a form, once its turn is over."""
    async with serving(ScriptedProvider(*scripts), StructuredOutput(SCHEMA), *tools) as server:
        form = OutputFormatJsonSchema(schema=SCHEMA, retry_count=retries)
        user = replace(s.user(), format=form)
        await server.store.append(s.SESSION, [s.message(user), s.part(s.prompt_text("prt_u1", "n?")), s.requested()])
        server.engine.wake(s.SESSION)
        await server.engine.idle()
        assert (await server.store.turn_state(s.SESSION)).status == IDLE
        yield server


async def infos(server: Server) -> list[AssistantMessage]:
    return [message.info for message in await server.answers() if isinstance(message.info, AssistantMessage)]


async def outcome(server: Server) -> str:
    (ended,) = [event for event in await server.log() if isinstance(event, e.TurnEnded)]
    return ended.outcome


def requests(server: Server) -> Sequence[Any]:
    assert isinstance(server.provider, ScriptedProvider)
    return server.provider.requests


async def test_the_answer_is_what_the_tool_was_called_with_and_ends_the_turn():
    async with asked([*text("Let me see. "), *answer(7)]) as server:
        (info,) = await infos(server)
        assert info.structured == {"n": 7}
        assert info.error is None
        assert await outcome(server) == "completed"
        (request,) = requests(server)
        assert request.tool_choice == "required"
        assert [tool.parameters for tool in request.tools] == [SCHEMA]


async def test_other_tools_may_be_used_first():
    counter = Counter("count", repeatable=False)
    async with asked(call("count", {"n": 1}), answer(1), tools=[counter]) as server:
        first, second = await infos(server)
        assert (first.structured, second.structured) == (None, {"n": 1})
        assert len(counter.began) == 1


async def test_an_answer_of_the_wrong_form_is_told_what_is_wrong_and_may_be_given_again():
    async with asked(answer("seven"), answer(7, 2)) as server:
        wrong, right = await server.answers()
        (tool,) = [part for part in wrong.parts if isinstance(part, ToolPart)]
        assert isinstance(tool.state, ToolError)
        assert "'seven' is not of type 'integer'" in tool.state.error
        assert isinstance(right.info, AssistantMessage)
        assert right.info.structured == {"n": 7}
        assert await outcome(server) == "completed"


async def test_an_answer_in_words_is_asked_for_again_in_its_form():
    async with asked(text("Seven."), answer(7)) as server:
        _, info = await infos(server)
        assert info.structured == {"n": 7}
        assert requests(server)[1].conversation[-1] == UserTurn(text=FORM_WANTED)
        assert requests(server)[0].conversation[-1] == UserTurn(text="n?")


async def test_after_as_many_retries_as_the_prompt_allows_the_turn_fails():
    async with asked(text("Seven."), answer("seven"), retries=1) as server:
        first, last = await infos(server)
        assert first.error is None
        assert isinstance(last.error, StructuredOutputError)
        assert last.error.data.retries == 1
        assert await outcome(server) == "failed"


async def test_without_a_number_there_are_two_retries():
    async with asked(text("a"), text("b"), text("c")) as server:
        assert len(await infos(server)) == 3
        assert await outcome(server) == "failed"


async def test_without_retries_the_first_answer_counts():
    async with asked(text("a"), retries=0) as server:
        (info,) = await infos(server)
        assert isinstance(info.error, StructuredOutputError)


async def test_a_cut_answer_is_not_one_that_lacks_its_form():
    async with serving(
        ScriptedProvider([*text("Let me "), cut()], [*text("see. "), *answer(7)]), StructuredOutput(SCHEMA)
    ) as server:
        user = replace(s.user(), format=OutputFormatJsonSchema(schema=SCHEMA, retry_count=0))
        await server.store.append(s.SESSION, [s.message(user), s.part(s.prompt_text("prt_u1", "n?")), s.requested()])
        server.engine.wake(s.SESSION)
        await server.until("session.status", count=3)  # busy, busy, retry
        server.clock.advance(2_000)
        await server.engine.idle()
        (info,) = await infos(server)
        assert info.structured == {"n": 7}


async def one_story(steps: int) -> None:
    clock = ManualClock()
    store = MemoryStore(clock.now_ms, IdGenerator(clock.now_ms, os.urandom))
    user = replace(s.user(), format=OutputFormatJsonSchema(schema=SCHEMA, retry_count=2))
    await store.append(s.SESSION, [s.created(), s.message(user), s.part(s.prompt_text("prt_u1", "n?")), s.requested()])
    script = (
        Say(words=("It ", "is ", "seven.")),
        Say(calls=(Call("StructuredOutput", {"n": "seven"}),)),
        Say(calls=(Call("StructuredOutput", {"n": 7}),)),
    )
    for left in (steps, 10_000):
        await one_life(store, clock, left, script, StructuredOutput(SCHEMA))
    infos = [m.info for m in await store.history(s.SESSION) if isinstance(m.info, AssistantMessage)]
    assert [info.structured for info in infos] == [None, None, {"n": 7}], steps
    assert all(info.time.completed and info.error is None for info in infos)
    assert (await store.turn_state(s.SESSION)).status == IDLE
    assert [difference async for difference in store.verify()] == []


def test_a_runner_killed_at_every_await_asks_no_more_often_for_the_form_than_without_the_kill():
    """The prompt allows exactly as many misses as the script has: one that a kill added would fail the turn."""
    for steps in range(110):
        asyncio.run(one_story(steps))


# --- steps


async def test_in_the_last_step_of_an_agent_no_tool_runs_and_the_model_is_told_to_finish():
    counter = Counter("count", repeatable=False)
    provider = ScriptedProvider(
        call("count", {"n": 1}), [*text("One so far. "), *call("count", {"n": 2}, call_id="c2")]
    )
    async with serving(provider, counter) as server:
        assert isinstance(server.environment, World)
        server.environment.steps = 2
        await server.prompt()
        await server.engine.idle()

        first, last = await server.answers()
        assert said(last) == "One so far. "
        assert isinstance(last.info, AssistantMessage)
        assert last.info.finish == "stop"
        (tool,) = [part for part in last.parts if isinstance(part, ToolPart)]
        assert isinstance(tool.state, ToolError)
        assert tool.state.error == NO_STEPS_LEFT
        assert any(isinstance(part, ToolPart) and isinstance(part.state, ToolCompleted) for part in first.parts)
        assert len(counter.began) == 1
        assert [request.tool_choice for request in provider.requests] == ["auto", "none"]
        assert provider.requests[1].conversation[-1] == UserTurn(text=LAST_STEP)
        assert provider.requests[1].tools == provider.requests[0].tools, "providers want them for the calls of before"
        assert await outcome(server) == "completed"


async def test_an_answer_in_a_form_may_still_be_given_in_the_last_step():
    provider = ScriptedProvider(call("count", {"n": 1}), answer(1))
    async with serving(provider, Counter("count", repeatable=False), StructuredOutput(SCHEMA)) as server:
        assert isinstance(server.environment, World)
        server.environment.steps = 2
        user = replace(s.user(), format=OutputFormatJsonSchema(schema=SCHEMA))
        await server.store.append(s.SESSION, [s.message(user), s.part(s.prompt_text("prt_u1", "n?")), s.requested()])
        server.engine.wake(s.SESSION)
        await server.engine.idle()
        assert (await infos(server))[-1].structured == {"n": 1}
        assert [tool.name for tool in provider.requests[1].tools] == ["StructuredOutput"]
