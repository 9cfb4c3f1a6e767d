"""Old output of tools goes out of the LLM's sight, if the user wants it, and out of nothing else."""

import pytest
from msgspec.structs import replace

from holdfast.agent.providers.base import ModelRequest, ToolOutput
from holdfast.core.messages import ToolCompleted, ToolPart, ToolTime
from holdfast.testing.scripted_provider import ScriptedProvider, text
from tests.agent.scripts import World
from tests.agent.test_runner import Server, serving
from tests.core import samples as s

BIG = "x" * 4 * 25_000
"""25,000 tokens, as they are guessed."""


async def earlier(server: Server, *outputs: str, tool: str = "bash", number: int = 1) -> None:
    """A turn that ran these calls."""
    user, step = f"msg_u{number}0", f"msg_a{number}0"
    await server.store.append(s.SESSION, [s.message(s.user(user)), s.part(s.prompt_text(f"prt_{user}", "do", user))])
    await server.store.append(s.SESSION, [s.message(s.assistant(step, user))])
    for at, output in enumerate(outputs):
        done = ToolCompleted(input={}, output=output, title="", metadata={}, time=ToolTime(start=1, end=2))
        part = s.tool(f"prt_{number}_{at}", "pending")
        part = replace(part, tool=tool, message_id=step, call_id=f"call_{number}_{at}", state=done)
        await server.store.append(s.SESSION, [s.part(part)])
    info = s.assistant(step, user, finish="stop")
    await server.store.append(s.SESSION, [s.message(replace(info, time=replace(info.time, completed=5)))])


async def answered(server: Server, *, pruning: bool = True) -> tuple[list[str], list[str]]:
    """(what the LLM sees of the outputs, the calls that are marked)"""
    assert isinstance(server.environment, World)
    assert isinstance(server.provider, ScriptedProvider)
    server.environment.pruning = pruning
    await server.prompt("msg_u99", "go on")
    await server.engine.idle()
    request: ModelRequest = server.provider.requests[-1]
    seen = [item.output[:5] for item in request.conversation if isinstance(item, ToolOutput)]
    parts = [part for message in await server.store.history(s.SESSION) for part in message.parts]
    assert all(
        part.state.output for part in parts if isinstance(part, ToolPart) and isinstance(part.state, ToolCompleted)
    )
    marked = [
        part.id
        for part in parts
        if isinstance(part, ToolPart) and isinstance(part.state, ToolCompleted) and part.state.time.compacted
    ]
    return seen, marked


async def test_what_is_beyond_the_newest_40000_tokens_goes_and_the_last_turn_stays():
    async with serving(ScriptedProvider(text("Done."))) as server:
        await earlier(server, BIG, BIG, BIG, number=1)
        await earlier(server, BIG, number=2)
        seen, marked = await answered(server)
        assert marked == ["prt_1_0", "prt_1_1"]
        assert seen == ["(Old ", "(Old ", "xxxxx", "xxxxx"]


async def test_nothing_goes_unless_the_user_wants_it():
    async with serving(ScriptedProvider(text("Done."))) as server:
        await earlier(server, BIG, BIG, BIG, number=1)
        await earlier(server, number=2)
        assert await answered(server, pruning=False) == (["xxxxx"] * 3, [])


@pytest.mark.parametrize(("outputs", "tool"), [((BIG, "x" * 60_000), "bash"), ((BIG, BIG, BIG), "skill")])
async def test_what_is_not_worth_it_and_what_a_skill_says_stays(outputs: tuple[str, ...], tool: str):
    async with serving(ScriptedProvider(text("Done."))) as server:
        await earlier(server, *outputs, tool=tool, number=1)
        await earlier(server, number=2)
        assert await answered(server) == (["xxxxx"] * len(outputs), [])


async def test_what_went_is_not_marked_again():
    async with serving(ScriptedProvider(text("Done."), text("Done."))) as server:
        await earlier(server, BIG, BIG, BIG, number=1)
        await earlier(server, number=2)
        _, first = await answered(server)
        marks = len(await server.log())
        await server.prompt("msg_u100", "go on")
        await server.engine.idle()
        again = [event for event in (await server.log())[marks:] if getattr(getattr(event, "part", None), "tool", "")]
        assert (len(first), again) == (2, [])
