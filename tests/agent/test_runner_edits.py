"""Edits in a real turn: what the session has read is known from its log, and a kill neither loses nor repeats a change."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from holdfast.agent.tools import Tool
from holdfast.agent.tools.apply_patch import ApplyPatch
from holdfast.agent.tools.base import FileChange
from holdfast.agent.tools.diagnostics import CodeError, FileErrors
from holdfast.agent.tools.edit import Edit
from holdfast.agent.tools.file_edits import FileEdits
from holdfast.agent.tools.formatters import Formatters
from holdfast.agent.tools.read import Read
from holdfast.agent.tools.write import Write
from holdfast.core.codec import decode
from holdfast.core.events import FileEdited, FileWatcherUpdated, PartUpdated
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import AssistantMessage, ToolCompleted, ToolError, ToolPart
from holdfast.core.offsets import BEGINNING
from holdfast.core.session import IDLE
from holdfast.core.store import SessionScope
from holdfast.core.workspace import SymbolPosition, SymbolRange
from holdfast.storage.memory import MemoryStore
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.scripted_provider import ScriptedProvider, call, text
from tests.agent.scripts import Call, Say
from tests.agent.test_runner import Server, serving
from tests.agent.test_runner_killed import one_life
from tests.core import samples as s


def tools() -> tuple[Tool, ...]:
    edits = FileEdits()
    return Read(), Edit(edits), ApplyPatch(edits)


async def states(store: MemoryStore) -> list[ToolCompleted | ToolError]:
    parts = [part for message in await store.history(s.SESSION) for part in message.parts if isinstance(part, ToolPart)]
    assert all(isinstance(part.state, ToolCompleted | ToolError) for part in parts)
    return [part.state for part in parts if isinstance(part.state, ToolCompleted | ToolError)]


async def test_a_file_read_before_a_restart_may_be_edited_after_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    provider = ScriptedProvider(
        [call("read", {"filePath": str(path)})],
        [text("Read.")],
        [call("edit", {"filePath": str(path), "oldString": "a", "newString": "b"})],
        [text("Done.")],
    )
    async with serving(provider, *tools()) as first:
        await first.prompt()
        await first.engine.idle()
        await first.engine.stop()
        second = Server(provider, *tools(), store=first.store)
        await second.engine.start()
        await second.prompt("msg_u2", "go on")
        await second.engine.idle()
        await second.engine.stop()

        assert path.read_text() == "b\n"


async def test_a_file_changed_between_two_turns_has_to_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    edit = call("edit", {"filePath": str(path), "oldString": "a", "newString": "b"})
    read = call("read", {"filePath": str(path)})
    provider = ScriptedProvider([read], [text("Read.")], [edit], [read], [edit], [text("Done.")])
    async with serving(provider, *tools()) as server:
        await server.prompt()
        await server.engine.idle()
        path.write_text("a\nmore\n")
        await server.prompt("msg_u2", "edit")
        await server.engine.idle()

        _, refused, _, done = await states(server.store)
        assert isinstance(refused, ToolError)
        assert "changed by somebody else" in refused.error
        assert isinstance(done, ToolCompleted)
        assert path.read_text() == "b\nmore\n"


async def test_a_file_that_another_session_read_was_not_read_in_this_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    provider = ScriptedProvider(
        [call("edit", {"filePath": str(path), "oldString": "a", "newString": "b"})], [text("Done.")]
    )
    async with serving(provider, *tools()) as server:
        await server.prompt()
        await server.engine.idle()

        (refused,) = await states(server.store)
        assert isinstance(refused, ToolError)
        assert "was not read in this session" in refused.error
        assert path.read_text() == "a\n"


async def told(store: MemoryStore) -> list[tuple[str, str, str]]:
    """What clients were told of files: the kind of event, the file, what became of it."""
    records = await store.read(SessionScope(s.SESSION), after=BEGINNING, limit=10_000)
    events = [decode(record.tag, record.data)[1] for record in records]
    return [
        (event.type, Path(event.file).name, event.event if isinstance(event, FileWatcherUpdated) else "")
        for event in events
        if isinstance(event, FileEdited | FileWatcherUpdated)
    ]


async def test_clients_are_told_which_files_changed_before_the_call_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    read = call("read", {"filePath": str(path)})
    edit = call("edit", {"filePath": str(path), "oldString": "a", "newString": "b"})
    async with serving(ScriptedProvider([read], [edit], [text("Done.")]), *tools()) as server:
        await server.prompt()
        await server.engine.idle()

        assert await told(server.store) == [("file.edited", "a.txt", ""), ("file.watcher.updated", "a.txt", "change")]
        log = await server.log()
        last = next(at for at, event in enumerate(log) if isinstance(event, FileWatcherUpdated))
        after = log[last + 1]
        assert isinstance(after, PartUpdated)
        assert isinstance(after.part, ToolPart)
        assert isinstance(after.part.state, ToolCompleted)


async def test_a_change_that_changes_nothing_is_not_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    read = call("read", {"filePath": str(path)})
    write = call("write", {"filePath": str(path), "content": "a\n"})
    async with serving(ScriptedProvider([read], [write], [text("Done.")]), *tools(), Write(FileEdits())) as server:
        await server.prompt()
        await server.engine.idle()

        assert [type(state) for state in await states(server.store)] == [ToolCompleted, ToolCompleted]
        assert await told(server.store) == []


TOLD = [
    ("file.edited", "a.txt", ""),
    ("file.watcher.updated", "a.txt", "change"),
    ("file.edited", "a.txt", ""),
    ("file.watcher.updated", "a.txt", "change"),
    ("file.edited", "b.txt", ""),
    ("file.edited", "c.txt", ""),
    ("file.watcher.updated", "a.txt", "unlink"),
    ("file.watcher.updated", "b.txt", "add"),
    ("file.watcher.updated", "c.txt", "add"),
]


async def story(directory: Path, lives: list[int]) -> None:
    for left in os.scandir(directory):
        os.unlink(left)
    path = directory / "a.txt"
    path.write_text("1\n2\n")
    patch = "\n".join(
        (
            "*** Begin Patch",
            f"*** Update File: {path}",
            f"*** Move to: {directory}/b.txt",
            "-2.",
            "+two",
            f"*** Add File: {directory}/c.txt",
            "+new",
            "*** End Patch",
        )
    )
    script = (
        Say(calls=(Call("read", {"filePath": str(path)}),)),
        Say(
            calls=(
                Call("edit", {"filePath": str(path), "oldString": "1\n", "newString": "one\n1.\n"}),
                Call("edit", {"filePath": str(path), "oldString": "2\n", "newString": "2.\n"}),
            )
        ),
        Say(calls=(Call("apply_patch", {"patchText": patch}),)),
        Say(words=("Done.",)),
    )
    clock = ManualClock()
    store = MemoryStore(clock.now_ms, IdGenerator(clock.now_ms, os.urandom))
    await store.append(
        s.SESSION, [s.created(), s.message(s.user()), s.part(s.prompt_text("prt_u1", "edit")), s.requested()]
    )
    for steps in (*lives, 10_000):
        await one_life(store, clock, steps, script, *tools())

    assert {entry.name: Path(entry).read_text() for entry in os.scandir(directory)} == {
        "b.txt": "one\n1.\ntwo\n",
        "c.txt": "new\n",
    }
    done = [state for state in await states(store) if not (state.metadata or {}).get("incomplete")]
    assert [type(state) for state in done] == [ToolCompleted] * 4, (
        lives,
        [getattr(state, "error", "") for state in done],
    )
    assert all("writes" not in (state.metadata or {}) for state in done)
    assert await told(store) == TOLD, lives
    assert (await store.turn_state(s.SESSION)).status == IDLE
    assert all(m.info.time.completed for m in await store.history(s.SESSION) if isinstance(m.info, AssistantMessage))


def test_edits_killed_at_any_await_happen_once(tmp_path: Path) -> None:
    """Wherever the server is killed, once or twice: after the restart every change is made, none is made twice, and nothing
    else is left in the directory."""
    for steps in range(0, 120, 2):
        asyncio.run(story(tmp_path, [steps]))
    for steps in range(1, 60, 7):
        asyncio.run(story(tmp_path, [steps, 12]))


class Upper(Formatters):
    """Changes files as a program would, without one."""

    def __init__(self) -> None: ...

    def take(self, directory: Path, path: str) -> bool:
        return True

    async def run(self, directory: Path, paths: list[str]) -> None:
        for path in map(Path, paths):
            await asyncio.sleep(0)
            path.write_text(path.read_text().upper())
            await asyncio.sleep(0)


class Finds:
    """An error in each file that is changed, as a language server would, without one."""

    def take(self, directory: Path, path: str) -> bool:
        return True

    def read(self, directory: Path, path: str) -> None: ...

    async def changed(self, directory: Path, changes: Sequence[FileChange]) -> Mapping[str, FileErrors]:
        await asyncio.sleep(0)
        place = SymbolPosition(line=0, character=4)
        error = CodeError(range=SymbolRange(start=place, end=place), severity=1, message="wrong")
        await asyncio.sleep(0)
        return {change.path: FileErrors((error,)) for change in changes}


async def formatted_story(directory: Path, lives: list[int]) -> None:
    path = directory / "a.txt"
    path.write_text("1\n")
    script = (
        Say(calls=(Call("read", {"filePath": str(path)}),)),
        Say(calls=(Call("edit", {"filePath": str(path), "oldString": "1\n", "newString": "one\n1\n"}),)),
        Say(words=("Done.",)),
    )
    clock = ManualClock()
    store = MemoryStore(clock.now_ms, IdGenerator(clock.now_ms, os.urandom))
    created = replace(s.created(), info=s.session(directory=str(directory)))
    await store.append(
        s.SESSION, [created, s.message(s.user()), s.part(s.prompt_text("prt_u1", "edit")), s.requested()]
    )
    edits = FileEdits(Upper(), Finds())
    for steps in (*lives, 10_000):
        await one_life(store, clock, steps, script, Read(), Edit(edits))

    done = [state for state in await states(store) if not (state.metadata or {}).get("incomplete")]
    assert [type(state) for state in done] == [ToolCompleted] * 2, (lives, done)
    assert path.read_text() == "ONE\n1\n", lives
    assert not {"writes", "formatting"} & set(done[1].metadata or {})
    assert isinstance(done[1], ToolCompleted)
    assert done[1].output.endswith(f'please fix:\n<diagnostics file="{path}">\nERROR [1:5] wrong\n</diagnostics>'), (
        lives
    )


def test_a_change_killed_while_it_is_formatted_or_checked_is_made_once_formatted_and_checked(tmp_path: Path) -> None:
    """Wherever the server is killed, once or twice."""
    for steps in range(30, 90):
        asyncio.run(formatted_story(tmp_path, [steps]))
    for steps in range(40, 90, 5):
        asyncio.run(formatted_story(tmp_path, [steps, 12]))
