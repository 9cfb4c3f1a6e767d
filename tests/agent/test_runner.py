"""Whole turns: a scripted model, real events, a store in memory, time that stands still."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from holdfast.agent import turn
from holdfast.agent.providers.base import Provider, ProviderError, ToolCallChunk
from holdfast.agent.providers.conversation import CONTINUE
from holdfast.agent.runner import Engine, Environment
from holdfast.agent.runner.worker import BACKOFF_FIRST_MS
from holdfast.agent.tools import Tool, ToolBox, ToolContext, ToolResult
from holdfast.agent.tools.invalid import Invalid
from holdfast.core import codec
from holdfast.core import events as e
from holdfast.core.errors import NotFound
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import (
    APIError,
    AssistantMessage,
    MessageAbortedError,
    ReasoningPart,
    RetryPart,
    TextPart,
    ToolCompleted,
    ToolError,
    ToolPart,
    WithParts,
)
from holdfast.core.offsets import BEGINNING
from holdfast.core.permissions import PermissionRule
from holdfast.core.session import IDLE, StatusRetry
from holdfast.core.store import SessionScope
from holdfast.storage.memory import MemoryStore
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.scripted_provider import ScriptedProvider, Stall, call, cut, reasoning, text
from tests.agent.scripts import ALLOW_ALL, Counter, World
from tests.core import samples as s


class Server:
    """One life of a server: an engine on a store that may outlive it."""

    def __init__(
        self,
        provider: Provider,
        *tools: Tool,
        store: MemoryStore | None = None,
        rules: tuple[PermissionRule, ...] = (ALLOW_ALL,),
        room: int | None = None,
    ) -> None:
        self.provider = provider
        self.clock = ManualClock()
        self.store = store or MemoryStore(self.clock.now_ms, IdGenerator(self.clock.now_ms, os.urandom))
        self.environment: Environment = World(provider, ToolBox(tools), rules=rules, room=room)
        self.engine = Engine(
            store=self.store,
            clock=self.clock,
            new_id=self.store.ids.new,
            jitter=lambda: 0.0,
            environment=self.environment,
            owner="server",
        )

    async def prompt(self, id: str = "msg_u1", content: str = "hello") -> None:
        await self.store.append(
            s.SESSION,
            [s.message(s.user(id)), s.part(s.prompt_text(f"prt_{id}", content, id)), s.requested(id)],
        )
        self.engine.wake(s.SESSION)

    async def abort(self, id: str = "msg_u1") -> None:
        await self.store.append(s.SESSION, [e.TurnAbortRequested(session_id=s.SESSION, message_id=id)])

    async def log(self) -> list[e.Event]:
        records = await self.store.read(SessionScope(s.SESSION), after=BEGINNING, limit=10_000)
        return [codec.decode(record.tag, record.data)[1] for record in records]

    async def answers(self) -> list[WithParts]:
        return [m for m in await self.store.history(s.SESSION) if isinstance(m.info, AssistantMessage)]

    async def until(self, *kinds: str, count: int = 1) -> None:
        """Return once so many events of these types are recorded."""
        seen = 0
        async for batch in self.store.subscribe(SessionScope(s.SESSION), after=BEGINNING):
            seen += sum(codec.type_of(record.tag) in kinds for record in batch)
            if seen >= count:
                return


@asynccontextmanager
async def serving(
    provider: Provider, *tools: Tool, rules: tuple[PermissionRule, ...] = (ALLOW_ALL,), room: int | None = None
) -> AsyncGenerator[Server, None]:
    server = Server(provider, *tools, rules=rules, room=room)
    await server.store.append(s.SESSION, [s.created()])
    yield server
    await server.engine.stop()
    assert [difference async for difference in server.store.verify()] == []


def said(message: WithParts) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))


def kinds(log: Sequence[e.Event]) -> list[str]:
    names = [
        event.status.__class__.__name__ if isinstance(event, e.SessionStatusChanged) else event.type for event in log
    ]
    return [name for at, name in enumerate(names) if name != "message.part.delta" or names[at - 1] != name]


class Reluctant(Counter):
    """A tool that takes its time to stop."""

    def __init__(self) -> None:
        super().__init__("slow", repeatable=False)
        self.running, self.stopping, self.may_stop = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        self.running.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopping.set()
            await self.may_stop.wait()
        raise AssertionError("nobody sets it")


async def test_a_stop_of_the_server_while_an_abort_still_ends_a_tool_is_not_forgotten():
    """The prompt that waits is for the next life of the server: this one takes up nothing more."""
    provider = ScriptedProvider([call("slow", {})], [text("Next.")])
    async with serving(provider, tool := Reluctant()) as server:
        await server.prompt()
        await tool.running.wait()
        await server.prompt("msg_u2", "next")
        await server.abort()
        await tool.stopping.wait()
        stopping = asyncio.create_task(server.engine.stop())
        await asyncio.sleep(0)
        tool.may_stop.set()
        await stopping

        assert len(provider.requests) == 1
        assert (await server.store.turn_state(s.SESSION)).turns.queue == ("msg_u2",)


async def test_a_plain_turn_is_recorded_in_the_order_that_clients_know():
    async with serving(ScriptedProvider([*reasoning("let me think"), *text("Hello there.")])) as server:
        await server.prompt()
        await server.engine.idle()
        expected = [
            *("session.created", "message.updated", "message.part.updated", "turn.requested"),
            *("turn.started", "StatusBusy"),
            *("StatusBusy", "message.updated", "message.part.updated"),  # assistant, step-start
            *("message.part.updated", "message.part.delta", "message.part.updated"),  # reasoning
            *("message.part.updated", "message.part.delta", "message.part.updated"),  # text
            *("message.part.updated", "message.updated", "message.updated", "session.updated"),  # step-finish
            *("turn.ended", "StatusIdle", "session.idle"),
        ]
        assert expected == kinds(await server.log())
        (answer,) = await server.answers()
        assert said(answer) == "Hello there."
        assert [part.__class__.__name__ for part in answer.parts] == [
            "StepStartPart",
            "ReasoningPart",
            "TextPart",
            "StepFinishPart",
        ]


async def test_every_piece_of_the_model_is_an_event_of_its_own():
    async with serving(ScriptedProvider([text("one two three four")])) as server:
        await server.prompt()
        await server.engine.idle()
        deltas = [event.delta for event in await server.log() if isinstance(event, e.PartDelta)]
        assert deltas == ["one ", "two ", "three ", "four"]


async def test_tools_run_after_the_model_finished_and_their_output_goes_back_to_it():
    provider = ScriptedProvider([*text("Let me count. "), *call("count", {"n": 7}, pieces=3)], [text("It is 7.")])
    async with serving(provider, counter := Counter("count", repeatable=False)) as server:
        await server.prompt()
        await server.engine.idle()
        first, second = await server.answers()
        tool = next(part for part in first.parts if isinstance(part, ToolPart))
        assert isinstance(tool.state, ToolCompleted)
        assert (tool.state.input, tool.state.output) == ({"n": 7}, "counted 7")
        assert counter.began == [tool.id]
        assert said(second) == "It is 7."
        assert (first.info.parent_id, second.info.parent_id) == ("msg_u1", "msg_u1")  # type: ignore[union-attr]
        assert [item.__class__.__name__ for item in provider.requests[1].conversation] == [
            "UserTurn",
            "AssistantTurn",
            "ToolOutput",
        ]
        states = [
            event.part.state.__class__.__name__
            for event in await server.log()
            if isinstance(event, e.PartUpdated) and isinstance(event.part, ToolPart)
        ]
        assert states == ["ToolPending", "ToolPending", "ToolRunning", "ToolRunning", "ToolCompleted"]


async def test_a_stream_that_breaks_keeps_its_text_and_goes_on_in_the_same_part():
    provider = ScriptedProvider([*reasoning("hm"), *text("Half a "), cut()], [text("sentence.")])
    async with serving(provider) as server:
        await server.prompt()
        await server.until("message.part.updated", count=6)
        deadline = await server.clock.until_sleeping(server.clock.now_ms() + 2000)
        assert isinstance((await server.store.turn_state(s.SESSION)).status, StatusRetry)
        server.clock.advance(deadline - server.clock.now_ms())
        await server.engine.idle()
        (answer,) = await server.answers()
        assert said(answer) == "Half a sentence."
        assert [type(part) for part in answer.parts].count(TextPart) == 1
        assert [part.attempt for part in answer.parts if isinstance(part, RetryPart)] == [1]
        assert all(part.time.end for part in answer.parts if isinstance(part, ReasoningPart))
        assert provider.requests[1].conversation[-1].text == CONTINUE  # type: ignore[union-attr]


async def test_a_provider_that_never_recovers_fails_the_turn_with_its_error_and_keeps_the_text():
    failing = [ProviderError("overloaded", status_code=529, retryable=True, retry_after_ms=100)] * 6
    provider = ScriptedProvider([*text("Half a "), failing[0]], *([error] for error in failing[1:]))
    async with serving(provider) as server:
        await server.prompt()
        for _ in range(turn.TRIES_MAX):
            await server.clock.until_sleeping(server.clock.now_ms() + 100)
            server.clock.advance(100)
        await server.engine.idle()
        (answer,) = await server.answers()
        assert isinstance(answer.info, AssistantMessage)
        assert isinstance(answer.info.error, APIError)
        assert answer.info.error.data.status_code == 529
        assert said(answer) == "Half a "
        assert (await server.store.turn_state(s.SESSION)).status == IDLE


async def test_an_error_that_will_not_go_away_is_not_tried_again():
    provider = ScriptedProvider([ProviderError("no such key", failure="auth", provider_id="fake")])
    async with serving(provider) as server:
        await server.prompt()
        await server.engine.idle()
        assert kinds(await server.log())[-5:] == [
            "session.updated",
            "session.error",
            "turn.ended",
            "StatusIdle",
            "session.idle",
        ]
        assert len(provider.requests) == 1


async def test_an_abort_keeps_the_text_stops_the_model_and_leaves_the_queue_to_be_answered():
    stall = Stall()
    provider = ScriptedProvider([*text("Half a "), stall], [text("Second answer.")])
    async with serving(provider) as server:
        await server.prompt("msg_u1")
        await server.prompt("msg_u2")
        await stall.reached.wait()
        await server.abort("msg_u1")
        await server.engine.idle()
        first, second = await server.answers()
        assert isinstance(first.info, AssistantMessage)
        assert isinstance(first.info.error, MessageAbortedError)
        assert said(first) == "Half a "
        assert said(second) == "Second answer."
        assert provider.closed == 1
        outcomes = [event.outcome for event in await server.log() if isinstance(event, e.TurnEnded)]
        assert outcomes == ["aborted", "completed"]
        assert kinds(await server.log()).count("session.idle") == 1


async def test_an_abort_ends_a_running_tool():
    stall = Stall()
    provider = ScriptedProvider([call("count", {})])
    async with serving(provider, counter := Counter("count", repeatable=False, pause=stall.wait)) as server:
        await server.prompt()
        await stall.reached.wait()
        await server.abort()
        await server.engine.idle()
        (answer,) = await server.answers()
        tool = next(part for part in answer.parts if isinstance(part, ToolPart))
        assert isinstance(tool.state, ToolError)
        assert tool.state.error == turn.ABORTED
        assert (tool.state.metadata or {})["output"] == "1"
        assert counter.cleaned == [tool.id]


async def test_an_abort_ends_a_pause_before_the_next_try():
    provider = ScriptedProvider([ProviderError("busy", retryable=True, retry_after_ms=3_600_000)])
    async with serving(provider) as server:
        await server.prompt()
        await server.clock.until_sleeping(server.clock.now_ms() + 3_600_000)
        await server.abort()
        await server.engine.idle()
        assert (await server.store.turn_state(s.SESSION)).status == IDLE


async def test_a_provider_that_says_at_once_again_and_again_is_given_time():
    busy = [ProviderError("busy", retryable=True, retry_after_ms=0)]
    async with serving(ScriptedProvider(busy, busy, text("Done."))) as server:
        await server.prompt()
        second = server.clock.now_ms() + 2 * BACKOFF_FIRST_MS
        await server.clock.until_sleeping(second)
        server.clock.advance(2 * BACKOFF_FIRST_MS)
        await server.engine.idle()
        (answer,) = await server.answers()
        assert said(answer) == "Done."


async def test_a_graceful_stop_suspends_the_turn_and_the_next_server_goes_on_where_it_stopped():
    stall = Stall()
    async with serving(ScriptedProvider([*text("Half a "), stall])) as server:
        await server.prompt()
        await stall.reached.wait()
        await server.engine.stop()
        second = Server(ScriptedProvider([text("sentence.")]), store=server.store)
        await second.engine.start()
        await second.engine.idle()
        (answer,) = await second.answers()
        assert said(answer) == "Half a sentence."
        assert kinds(await second.log()).count("turn.suspended") == 1


async def test_a_tool_that_a_graceful_stop_ended_says_so():
    stall = Stall()
    first = ScriptedProvider([call("count", {})])
    async with serving(first, Counter("count", repeatable=False, pause=stall.wait)) as server:
        await server.prompt()
        await stall.reached.wait()
        await server.engine.stop()
        counter = Counter("count", repeatable=False)
        second = Server(ScriptedProvider([text("I see.")]), counter, store=server.store)
        await second.engine.start()
        await second.engine.idle()
        tool = next(part for part in (await second.answers())[0].parts if isinstance(part, ToolPart))
        assert isinstance(tool.state, ToolError)
        assert "server was stopped" in tool.state.error
        assert counter.began == []


@pytest.mark.parametrize(
    ("chunks", "complaint"),
    [
        (call("nothing", {}), "There is no tool 'nothing'. The tools are: count."),
        (call("count", "{not json"), "not a JSON object"),
        ([ToolCallChunk(call_id="c", name="count", arguments="[1]")], "not a JSON object"),
    ],
)
async def test_a_call_that_cannot_be_one_becomes_an_invalid_call_that_says_why(
    chunks: list[ToolCallChunk], complaint: str
):
    provider = ScriptedProvider(chunks, [text("Sorry.")])
    async with serving(provider, counter := Counter("count", repeatable=False), Invalid()) as server:
        await server.prompt()
        await server.engine.idle()
        tool = next(part for part in (await server.answers())[0].parts if isinstance(part, ToolPart))
        assert tool.tool == "invalid"
        assert isinstance(tool.state, ToolCompleted)
        assert complaint in tool.state.output
        assert tool.state.input["tool"] == chunks[0].name
        assert counter.began == []
        assert said((await server.answers())[1]) == "Sorry."


async def test_a_tool_that_was_called_in_capitals_is_the_tool():
    provider = ScriptedProvider(call("Count", {"n": 1}), [text("One.")])
    async with serving(provider, counter := Counter("count", repeatable=False), Invalid()) as server:
        await server.prompt()
        await server.engine.idle()
        tool = next(part for part in (await server.answers())[0].parts if isinstance(part, ToolPart))
        assert tool.tool == "count"
        assert isinstance(tool.state, ToolCompleted)
        assert len(counter.began) == 1


async def test_a_call_with_the_wrong_input_is_answered_with_what_is_wrong():
    provider = ScriptedProvider(call("count", {"n": "seven"}), [text("Sorry.")])
    async with serving(provider, counter := Counter("count", repeatable=False)) as server:
        await server.prompt()
        await server.engine.idle()
        tool = next(part for part in (await server.answers())[0].parts if isinstance(part, ToolPart))
        assert isinstance(tool.state, ToolError)
        assert "n: 'seven' is not of type 'integer'" in tool.state.error
        assert counter.began == []
        assert said((await server.answers())[1]) == "Sorry."


async def test_a_session_deleted_in_mid_turn_is_left_alone():
    stall = Stall()
    server = Server(provider := ScriptedProvider([*text("Half a "), stall]))
    await server.store.append(s.SESSION, [s.created()])
    await server.prompt()
    await stall.reached.wait()
    await server.store.append(s.SESSION, [e.SessionDeleted(session_id=s.SESSION, info=s.session())])
    await server.engine.idle()
    assert provider.closed == 1
    with pytest.raises(NotFound):
        await server.store.session(s.SESSION)


async def test_many_sessions_are_answered_side_by_side():
    server = Server(ScriptedProvider(*[[text("Hello.")]] * 20))
    for n in range(20):
        info = s.session(id=f"ses_{n}")
        user = s.user(f"msg_{n}")
        await server.store.append(
            info.id,
            [
                e.SessionCreated(session_id=info.id, info=info),
                e.MessageUpdated(session_id=info.id, info=user),
                e.TurnRequested(session_id=info.id, message_id=user.id),
            ],
        )
    await server.engine.start()
    await server.engine.idle()
    assert await server.store.unfinished() == []
    await asyncio.sleep(0)
