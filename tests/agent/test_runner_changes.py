"""What tools do to files is recorded: the trees, the patch, the differences of turn and session. Also over a restart."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.snapshots import Snapshots, WorkTree
from holdfast.agent.tools import ToolContext, ToolResult
from holdfast.core.messages import PatchPart, StepFinishPart, StepStartPart, UserMessage
from holdfast.core.store import MessagePage
from holdfast.testing.scripted_provider import ScriptedProvider, Stall, call, text
from tests.agent.scripts import World
from tests.agent.test_runner import Server, kinds, serving
from tests.agent.test_runner_asks import Scripted, asking
from tests.core import samples as s


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    project = tmp_path / "project"
    project.mkdir()
    (project / "old.txt").write_text("old\n")
    return Snapshots(tmp_path / "data").of(str(project))


def writing(project: Path, stall: Stall | None = None) -> Scripted:
    async def write(input: dict[str, Any], context: ToolContext) -> ToolResult:
        (project / "new.txt").write_text("one\ntwo\n")
        if stall is not None:
            await stall.wait()
        return ToolResult(title="Wrote", output="ok")

    return Scripted("write", write)


def remembering(server: Server, tree: WorkTree) -> None:
    assert isinstance(server.environment, World)
    server.environment.tree = tree


async def reading(input: dict[str, Any], context: ToolContext) -> ToolResult:
    return ToolResult(title="Read", output="ok")


async def check(server: Server, project: Path) -> None:
    first, *_ = await server.answers()
    start = next(part for part in first.parts if isinstance(part, StepStartPart))
    finish = next(part for part in first.parts if isinstance(part, StepFinishPart))
    patch = next(part for part in first.parts if isinstance(part, PatchPart))
    assert patch.hash == start.snapshot != finish.snapshot
    assert patch.files == (str(project / "new.txt"),)
    prompt = (await server.store.message(s.SESSION, "msg_u1")).info
    assert isinstance(prompt, UserMessage)
    assert prompt.summary is not None
    assert [(diff.file, diff.additions, diff.status) for diff in prompt.summary.diffs] == [("new.txt", 2, "added")]
    summary = (await server.store.session(s.SESSION)).summary
    assert summary is not None
    assert (summary.files, summary.additions, summary.deletions) == (1, 2, 0)
    assert kinds(await server.log()).count("session.diff") == 1


async def test_the_files_are_taken_in_while_the_model_still_writes_the_call(
    tree: WorkTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The first snapshot of a large project takes seconds; the call of a tool that only reads, or mere talk, begins none."""
    prepared: list[str] = []
    began = asyncio.Event()
    prepare = tree.prepare

    async def noting() -> None:
        prepared.append("once")
        await prepare()
        began.set()

    monkeypatch.setattr(tree, "prepare", noting)
    stall = Stall()
    start, *rest = call("write", {})
    provider = ScriptedProvider(
        [*text("Talk."), *call("read", {"filePath": "."})], [start, stall, *rest], [text("Done.")]
    )
    async with serving(provider, writing(tmp_path / "project"), Scripted("read", reading)) as server:
        remembering(server, tree)
        await server.prompt(content="Write.")
        await asyncio.wait_for(stall.reached.wait(), 60)
        await asyncio.wait_for(began.wait(), 60)
        assert kinds(await server.log()).count("turn.ended") == 0
        (tmp_path / "project" / "old.txt").write_text("changed meanwhile\n")
        stall.release()
        await server.engine.idle()
        steps = [part for answer in await server.answers() for part in answer.parts if isinstance(part, StepStartPart)]
        before = next(part.snapshot for part in steps if part.snapshot)
    assert prepared == ["once"]
    await tree.restore(before)
    assert (tmp_path / "project" / "old.txt").read_text() == "changed meanwhile\n"
    assert not (tmp_path / "project" / "new.txt").exists()


async def test_a_step_whose_tools_change_files_records_what_they_changed(tree: WorkTree, tmp_path: Path):
    provider = ScriptedProvider([call("write", {})], [text("Done.")])
    async with serving(provider, writing(tmp_path / "project")) as server:
        remembering(server, tree)
        await server.prompt()
        await server.engine.idle()
        await check(server, tmp_path / "project")


async def test_the_first_snapshot_of_a_session_is_looked_for_once_in_a_turn(tree: WorkTree, tmp_path: Path):
    """From the oldest message on: in a long session that takes its time."""
    provider = ScriptedProvider(*([call("write", {}, call_id=f"call_{n}")] for n in range(3)), [text("Done.")])
    numbers = iter(range(3))

    async def write(input: dict[str, Any], context: ToolContext) -> ToolResult:
        (tmp_path / "project" / f"{next(numbers)}.txt").write_text("new\n")
        return ToolResult(title="Wrote", output="ok")

    async with serving(provider, Scripted("write", write)) as server:
        remembering(server, tree)
        searches: list[str] = []
        message_page = server.store.message_page

        async def noting(session_id: str, **keywords: Any) -> MessagePage:
            if keywords.get("after") == 0:
                searches.append(session_id)
            return await message_page(session_id, **keywords)

        server.store.message_page = noting
        await server.prompt()
        await server.engine.idle()
        assert searches == [s.SESSION]
        summary = (await server.store.session(s.SESSION)).summary
        assert summary is not None
        assert (summary.files, summary.additions) == (3, 3)


async def test_what_a_step_changed_before_the_server_stopped_is_found_after_the_restart(tree: WorkTree, tmp_path: Path):
    stall = Stall()
    provider = ScriptedProvider([call("write", {})], [text("Done.")])
    async with serving(provider, writing(tmp_path / "project", stall)) as server:
        remembering(server, tree)
        await server.prompt()
        await stall.reached.wait()
        await server.engine.stop()
        second = asking(server, writing(tmp_path / "project"))
        remembering(second, tree)
        await second.engine.start()
        await second.engine.idle()
        await check(second, tmp_path / "project")


async def test_a_step_of_mere_talk_takes_no_snapshot(tree: WorkTree):
    async with serving(ScriptedProvider([text("Hello.")])) as server:
        remembering(server, tree)
        await server.prompt()
        await server.engine.idle()
        (answer,) = await server.answers()
        assert all(part.snapshot is None for part in answer.parts if isinstance(part, StepStartPart))
