"""What a turn asks of the user, and of other agents: permissions, questions, subagents; and what outlives a restart."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from holdfast.agent.permissions import Ask
from holdfast.agent.providers.base import AssistantTurn, ModelRequest, ProviderError, UserTurn
from holdfast.agent.providers.conversation import SUMMARISE, SUMMARY_REQUEST
from holdfast.agent.tools import ToolContext, ToolResult
from holdfast.agent.tools.base import Subagent
from holdfast.core import events as e
from holdfast.core.codec import type_of
from holdfast.core.messages import (
    AssistantMessage,
    ToolCompleted,
    ToolError,
    ToolPart,
)
from holdfast.core.offsets import BEGINNING
from holdfast.core.permissions import PermissionReply, PermissionRule
from holdfast.core.questions import Question
from holdfast.core.session import IDLE
from holdfast.core.store import SessionQuery, SessionScope
from holdfast.testing.scripted_provider import ScriptedProvider, Stall, call, finished, text
from holdfast.testing.stories import Story
from tests.agent.scripts import ALLOW_ALL, Counter, World
from tests.agent.test_runner import Server, kinds, said, serving
from tests.core import samples as s

Run = Callable[[dict[str, Any], ToolContext], Awaitable[ToolResult]]


class Scripted:
    """A tool that does what the test says."""

    description = "Does what the test says."
    repeatable = True

    def __init__(self, id: str, run: Run) -> None:
        self.id = id
        self.parameters: dict[str, Any] = {"type": "object"}
        self._run = run

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return []

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        return await self._run(input, context)

    async def clean_up(self, part: ToolPart) -> None:
        pass


def asking(server: Server, *tools: Counter | Scripted, rules: tuple[PermissionRule, ...] = ()) -> Server:
    """The same server, but the user is asked."""
    return Server(server.provider, *tools, store=server.store, rules=rules)


async def tools_of(server: Server) -> list[ToolPart]:
    return [part for answer in await server.answers() for part in answer.parts if isinstance(part, ToolPart)]


async def reply(server: Server, reply: PermissionReply, message: str | None = None, *, nth: int = 0) -> None:
    entries = [entry for entry in (await server.store.turn_state(s.SESSION)).permissions if entry.reply is None]
    id = entries[nth].request.id
    await server.store.append(
        s.SESSION, [e.PermissionReplied(session_id=s.SESSION, request_id=id, reply=reply, message=message)]
    )


# --- permissions ------------------------------------------------------------------------------------------------


async def test_a_call_that_needs_permission_waits_for_it_and_then_runs():
    provider = ScriptedProvider([call("count", {"n": 1})], [text("Done.")])
    async with serving(provider, counter := Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked")
        assert counter.began == []
        await reply(server, "once")
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolCompleted)
        assert (await server.store.turn_state(s.SESSION)).permissions == ()


async def test_a_pending_permission_outlives_the_server_and_the_answer_continues_the_turn():
    provider = ScriptedProvider([call("count", {"n": 1})], [text("Done.")])
    async with serving(provider, Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked")
        await server.engine.stop()
        assert len(await server.store.pending_permissions()) == 1
        second = asking(server, counter := Counter("count", repeatable=False))
        await second.engine.start()
        await second.until("turn.started", count=2)
        await reply(second, "once")
        await second.engine.idle()
        assert len(counter.began) == 1
        assert kinds(await second.log()).count("permission.asked") == 1
        assert said((await second.answers())[-1]) == "Done."


async def test_an_answer_given_while_the_server_was_down_counts():
    provider = ScriptedProvider([call("count", {"n": 1})], [text("Done.")])
    async with serving(provider, Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked")
        await server.engine.stop()
        await reply(server, "once")
        second = asking(server, counter := Counter("count", repeatable=False))
        await second.engine.start()
        await second.engine.idle()
        assert len(counter.began) == 1


async def test_a_rejected_call_does_not_run_and_ends_the_turn():
    provider = ScriptedProvider([call("count", {"n": 1})])
    async with serving(provider, counter := Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked")
        await reply(server, "reject")
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolError)
        assert "rejected permission" in tool.state.error
        assert counter.began == []
        assert (await server.store.turn_state(s.SESSION)).status == IDLE
        assert len(provider.requests) == 1


async def test_a_rejection_with_a_reason_is_told_to_the_model_which_goes_on():
    provider = ScriptedProvider([call("count", {"n": 1})], [text("Then not.")])
    async with serving(provider, Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked")
        await reply(server, "reject", "Use your fingers.")
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolError)
        assert "Use your fingers." in tool.state.error
        assert said((await server.answers())[-1]) == "Then not."


async def test_always_is_remembered_for_the_project_over_restarts_and_in_other_sessions():
    provider = ScriptedProvider([call("count", {"n": 1})], [text("One.")], [call("count", {"n": 2})], [text("Two.")])
    async with serving(provider, Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked")
        await reply(server, "always")
        await server.engine.idle()
        second = asking(server, counter := Counter("count", repeatable=False))
        await second.prompt("msg_u2", "again")
        await second.engine.idle()
        assert len(counter.began) == 1
        assert said((await second.answers())[-1]) == "Two."


async def test_always_also_answers_the_other_calls_that_wait():
    calls = [*call("count", {"n": 1}, call_id="a"), *call("count", {"n": 2}, call_id="b")]
    provider = ScriptedProvider(calls, [text("Done.")])
    async with serving(provider, counter := Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked", count=2)
        await reply(server, "always")
        await server.engine.idle()
        assert len(counter.began) == 2


async def test_what_a_rule_forbids_is_not_asked():
    rules = (ALLOW_ALL, PermissionRule(permission="count", pattern="1", action="deny"))
    provider = ScriptedProvider([call("count", {"n": 1})], [text("Pity.")])
    async with serving(provider, counter := Counter("count", repeatable=False), rules=rules) as server:
        await server.prompt()
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolError)
        assert "forbids" in tool.state.error
        assert counter.began == []


async def test_an_abort_ends_a_turn_that_waits_for_permission_and_forgets_the_request():
    provider = ScriptedProvider([call("count", {"n": 1})])
    async with serving(provider, Counter("count", repeatable=False), rules=()) as server:
        await server.prompt()
        await server.until("permission.asked")
        await server.abort()
        await server.engine.idle()
        assert await server.store.pending_permissions() == []
        assert (await server.store.turn_state(s.SESSION)).status == IDLE


async def test_the_same_call_three_times_in_a_row_is_asked_about_also_over_steps():
    same = [call("count", {"n": 1})] * 3
    rules = (ALLOW_ALL, PermissionRule(permission="doom_loop", pattern="*", action="ask"))
    provider = ScriptedProvider(*same, [text("Enough.")])
    async with serving(provider, counter := Counter("count", repeatable=False), rules=rules) as server:
        await server.prompt()
        await server.until("permission.asked")
        (entry,) = (await server.store.turn_state(s.SESSION)).permissions
        assert entry.request.permission == "doom_loop"
        assert len(counter.began) == 2
        await reply(server, "reject", "Stop counting.")
        await server.engine.idle()
        assert said((await server.answers())[-1]) == "Enough."


# --- questions --------------------------------------------------------------------------------------------------

WHICH = Question(question="Which?", header="Pick", options=())


async def ask(input: dict[str, Any], context: ToolContext) -> ToolResult:
    answers = await context.host.ask([WHICH])
    return ToolResult(title="Asked", output=str(answers))


async def test_a_question_waits_for_its_answer_over_a_restart_and_is_asked_once():
    provider = ScriptedProvider([call("question", {})], [text("I see.")])
    async with serving(provider, Scripted("question", ask)) as server:
        await server.prompt()
        await server.until("question.asked")
        await server.engine.stop()
        second = asking(server, Scripted("question", ask))
        await second.engine.start()
        await second.until("turn.started", count=2)
        ((entry,),) = ((await server.store.turn_state(s.SESSION)).questions,)
        answered = e.QuestionReplied(session_id=s.SESSION, request_id=entry.request.id, answers=(("A",),))
        await second.store.append(s.SESSION, [answered])
        await second.engine.idle()
        (tool,) = await tools_of(second)
        assert isinstance(tool.state, ToolCompleted)
        assert tool.state.output == "(('A',),)"
        assert kinds(await second.log()).count("question.asked") == 1


async def test_a_dismissed_question_ends_the_turn():
    """The user does not want to be asked: what comes next is the user's to say, as with a call that is rejected."""
    provider = ScriptedProvider([call("question", {})])
    async with serving(provider, Scripted("question", ask)) as server:
        await server.prompt()
        await server.until("question.asked")
        ((entry,),) = ((await server.store.turn_state(s.SESSION)).questions,)
        await server.store.append(s.SESSION, [e.QuestionRejected(session_id=s.SESSION, request_id=entry.request.id)])
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolError)
        assert "dismissed" in tool.state.error
        assert kinds(await server.log()).count("turn.ended") == 1
        assert len(provider.requests) == 1


# --- subagents --------------------------------------------------------------------------------------------------


async def delegate(input: dict[str, Any], context: ToolContext) -> ToolResult:
    task = Subagent(description="Look", prompt="look around", agent=input.get("agent", "general"))
    session_id, answer = await context.host.run_subagent(task)
    return ToolResult(title="Delegated", output=answer, metadata={"sessionId": session_id})


async def child_of(server: Server) -> str:
    (session,) = await server.store.sessions(SessionQuery(parent_id=s.SESSION))
    return json.loads(session)["id"]


async def children(server: Server) -> int:
    return len(await server.store.sessions(SessionQuery(parent_id=s.SESSION)))


async def test_a_subagent_works_in_a_session_of_its_own_and_its_last_words_are_the_result():
    provider = ScriptedProvider([call("task", {})], [text("I looked.")], [text("It looked.")])
    async with serving(provider, Scripted("task", delegate)) as server:
        await server.prompt()
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolCompleted)
        assert tool.state.output == "I looked."
        assert await children(server) == 1


async def test_a_subagent_goes_on_after_a_restart_and_is_not_started_twice():
    stall = Stall()
    provider = ScriptedProvider([call("task", {})], [*text("I "), stall], [text("looked.")], [text("It looked.")])
    async with serving(provider, Scripted("task", delegate)) as server:
        await server.prompt()
        await stall.reached.wait()
        await server.engine.stop()
        second = asking(server, Scripted("task", delegate), rules=(ALLOW_ALL,))
        await second.engine.start()
        await second.engine.idle()
        (tool,) = await tools_of(second)
        assert isinstance(tool.state, ToolCompleted)
        assert tool.state.output == "I looked."
        assert await children(second) == 1


async def test_an_abort_ends_the_subagents_too():
    stall = Stall()
    provider = ScriptedProvider([call("task", {})], [*text("I "), stall])
    async with serving(provider, Scripted("task", delegate)) as server:
        await server.prompt()
        await stall.reached.wait()
        await server.abort()
        await server.engine.idle()
        assert await server.store.unfinished() == []
        assert await server.store.statuses() == {}


async def requested(server: Server, session_id: str, count: int) -> None:
    """Return once so many prompts of a session are recorded."""
    async for batch in server.store.subscribe(SessionScope(session_id), after=BEGINNING):
        count -= sum(type_of(record.tag) == "turn.requested" for record in batch)
        if count <= 0:
            return


async def test_an_abort_takes_back_a_task_that_waits_in_the_subagents_session_and_nothing_else():
    """The user talks with the subagent when it is given a second task: that talk goes on, and the task is not done after it."""
    first, stall = Stall(), Stall()
    provider = ScriptedProvider(
        [call("task", {})],
        [text("I looked.")],
        [first, *call("task", {"session": "child"}, call_id="call_again")],
        [*text("Between us"), stall, *text(" two.")],
    )

    async def again(input: dict[str, Any], context: ToolContext) -> ToolResult:
        child = await child_of(server) if input else None
        task = Subagent(description="Look", prompt="look", agent="general", session_id=child)
        return ToolResult(title="Task", output=(await context.host.run_subagent(task))[1])

    async with serving(provider, Scripted("task", again)) as server:
        await server.prompt()
        await first.reached.wait()
        child = await child_of(server)
        story = Story(child)
        await server.store.append(
            child,
            [
                story.message(story.user("msg_mine")),
                story.part(story.prompt("prt_mine", "hi", "msg_mine")),
                story.requested("msg_mine"),
            ],
        )
        server.engine.wake(child)
        await stall.reached.wait()
        first.release()
        await requested(server, child, 3)
        await server.abort()
        await server.until("turn.ended")
        stall.release()
        await server.engine.idle()

        *_, answer = await server.store.history(child)
        assert said(answer) == "Between us two."
        assert len(provider.requests) == 4
        assert await server.store.unfinished() == []


async def test_an_agent_that_does_not_exist_is_told_to_the_model():
    provider = ScriptedProvider([call("task", {"agent": "nobody"})], [text("Oh.")])
    async with serving(provider, Scripted("task", delegate)) as server:
        await server.prompt()
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolError)
        assert "general" in tool.state.error


# --- summaries --------------------------------------------------------------------------------------------------


async def test_a_conversation_that_fills_the_model_is_summarised_and_the_turn_goes_on():
    provider = ScriptedProvider(
        [*call("count", {"n": 1}), finished("tool-calls", input=5000)],
        [text("The user wants to count; one is counted.")],
        [text("Going on.")],
    )
    async with serving(provider, Counter("count", repeatable=False), room=4000) as server:
        await server.prompt(content="count for me")
        await server.engine.idle()
        assert len(provider.requests) == 3
        assert provider.requests[1].conversation[-1] == UserTurn(text=SUMMARISE)
        assert provider.requests[1].tools == ()
        last = provider.requests[2].conversation
        assert last[0] == UserTurn(text=SUMMARY_REQUEST)
        assert "count for me" in last[-1].text  # type: ignore[union-attr]
        summary = next(m for m in await server.answers() if isinstance(m.info, AssistantMessage) and m.info.summary)
        assert summary.info.agent == "compaction"
        log = kinds(await server.log())
        assert log.count("session.compacted") == 1
        assert log.count("turn.ended") == 1
        assert said((await server.answers())[-1]) == "Going on."


def words_of(request: ModelRequest) -> list[str]:
    return [item.text for item in request.conversation if isinstance(item, UserTurn | AssistantTurn)]


async def test_a_prompt_that_waited_while_the_conversation_was_summarised_is_answered_from_the_summary():
    """It was added before the summary. Its answer came after it, and is in what later prompts are told."""
    stall = Stall()
    provider = ScriptedProvider(
        [*call("count", {"n": 1}), stall, finished("tool-calls", input=5000)],
        [text("One is counted.")],
        [text("Counted on.")],
        [text("It rains.")],
        [text("Goodbye.")],
    )
    async with serving(provider, Counter("count", repeatable=False), room=4000) as server:
        await server.prompt(content="count for me")
        await stall.reached.wait()
        await server.prompt("msg_u2", "how is the weather?")
        stall.release()
        await server.engine.idle()
        await server.prompt("msg_u3", "bye")
        await server.engine.idle()

        _, summary, going_on, second, third = map(words_of, provider.requests)
        assert summary == ["count for me", "", SUMMARISE]
        assert going_on[:2] == [SUMMARY_REQUEST, "One is counted."]
        assert second == [*going_on, "Counted on.", "how is the weather?"]
        assert third == [*second, "It rains.", "bye"]


async def test_a_model_that_says_its_context_is_full_gets_a_summary_instead():
    overflow = ProviderError("too long", failure="context_overflow", status_code=400)
    provider = ScriptedProvider([overflow], [text("Summary.")], [text("Answer.")])
    async with serving(provider) as server:
        await server.prompt()
        await server.engine.idle()
        assert said((await server.answers())[-1]) == "Answer."
        assert await server.store.unfinished() == []


async def test_a_model_whose_context_is_full_even_after_a_summary_fails_the_turn():
    overflow = ProviderError("too long", failure="context_overflow", status_code=400)
    provider = ScriptedProvider([overflow], [text("Summary.")], [overflow])
    async with serving(provider) as server:
        await server.prompt()
        await server.engine.idle()
        answer = (await server.answers())[-1].info
        assert isinstance(answer, AssistantMessage)
        assert type(answer.error).__name__ == "ContextOverflowError"


# --- titles, and calls that the user makes ------------------------------------------------------------------------


async def test_a_session_without_a_name_gets_one_beside_its_first_turn():
    async with serving(ScriptedProvider([text("Hello.")])) as server:
        unnamed = s.session(title="New session - 2026-11-21T00:05:35.462Z")
        await server.store.append(s.SESSION, [e.SessionUpdated(session_id=s.SESSION, info=unnamed)])
        assert isinstance(server.environment, World)
        server.environment.title_provider = ScriptedProvider([text('"Saying hello"')])
        await server.prompt()
        await server.engine.idle()
        assert (await server.store.session(s.SESSION)).title == "Saying hello"


@pytest.mark.parametrize("failure", [ProviderError("no"), RuntimeError("defect")])
async def test_a_title_that_cannot_be_had_is_nobodys_problem(failure: Exception):
    async with serving(ScriptedProvider([text("Hello.")])) as server:
        unnamed = s.session(title="New session - 2026-11-21T00:05:35.462Z")
        await server.store.append(s.SESSION, [e.SessionUpdated(session_id=s.SESSION, info=unnamed)])
        assert isinstance(server.environment, World)
        server.environment.title_provider = ScriptedProvider([failure])  # type: ignore[list-item]
        await server.prompt()
        await server.engine.idle()
        assert (await server.store.session(s.SESSION)).title == unnamed.title


async def test_a_command_of_the_user_runs_without_the_model_and_without_asking():
    async with serving(ScriptedProvider(), counter := Counter("bash", repeatable=False), rules=()) as server:
        part = s.prompt_text("prt_sh", "The user ran a command.")
        shell = type(part)(
            id=part.id, session_id=part.session_id, message_id=part.message_id, text=part.text, metadata={"shell": "ls"}
        )
        await server.store.append(s.SESSION, [s.message(s.user()), s.part(shell), s.requested()])
        server.engine.wake(s.SESSION)
        await server.engine.idle()
        (tool,) = await tools_of(server)
        assert isinstance(tool.state, ToolCompleted)
        assert tool.state.input == {"command": "ls"}
        assert len(counter.began) == 1
        assert await server.store.unfinished() == []
