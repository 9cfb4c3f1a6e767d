"""The tool `edit` on real files: what it changes, what it refuses, and what it leaves behind."""

import asyncio
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.agent.tools import ToolFailure, file_edits
from holdfast.agent.tools.edit import Edit
from holdfast.agent.tools.file_edits import FileEdits
from holdfast.agent.tools.read import Read
from holdfast.agent.tools.stamps import FILE_BYTES_MAX, stamp_of
from holdfast.agent.tools.write import Write
from holdfast.core.messages import ToolPart, ToolRunning, ToolTimeStart
from tests.agent.tools.hosts import Session

EDIT = Edit(FileEdits())


async def known(session: Session, name: str, content: bytes) -> Path:
    """A file that the LLM has read."""
    path = session.context.directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    await session.call(Read(), filePath=name)
    return path


def running(session: Session, call: int, metadata: dict[str, Any]) -> ToolPart:
    state = ToolRunning(input={}, metadata=metadata, time=ToolTimeStart(start=0))
    return ToolPart(
        id=f"prt_{call}", session_id="ses_1", message_id="msg_1", call_id=f"call_{call}", tool="edit", state=state
    )


async def test_an_edit_changes_the_file_and_shows_the_difference(session: Session) -> None:
    path = await known(session, "sub/note.txt", b"line one\nline two\n")

    result = await session.call(EDIT, filePath="sub/note.txt", oldString="line one", newString="line 1!")

    assert path.read_bytes() == b"line 1!\nline two\n"
    assert result.title == "sub/note.txt"
    assert "-line one\n+line 1!\n line two\n" in result.metadata["diff"]
    assert result.metadata == {
        "diagnostics": {},
        "diff": result.metadata["diff"],
        "filediff": {"file": str(path), "patch": result.metadata["diff"], "additions": 1, "deletions": 1},
        "seen": {str(path): stamp_of(b"line 1!\nline two\n")},
        "truncated": False,
    }


async def test_the_user_is_asked_with_the_difference_before_anything_changes(session: Session) -> None:
    path = await known(session, "a.txt", b"a\n")

    (ask,) = await EDIT.asks({"filePath": "a.txt", "oldString": "a", "newString": "b"}, session.next_context())

    assert (ask.permission, ask.patterns, ask.always) == ("edit", ("a.txt",), ("*",))
    assert ask.metadata["filepath"] == "a.txt"
    assert "-a\n+b\n" in ask.metadata["diff"]
    assert path.read_bytes() == b"a\n"


async def test_one_edit_after_another_needs_no_reading_in_between(session: Session) -> None:
    path = await known(session, "a.txt", b"1\n2\n3\n")

    await asyncio.gather(
        *(session.call(EDIT, filePath="a.txt", oldString=str(n), newString=f"{n}{n}") for n in (1, 2, 3))
    )

    assert path.read_bytes() == b"11\n22\n33\n"


async def test_a_file_that_was_never_read_is_refused(session: Session) -> None:
    (session.context.directory / "a.txt").write_bytes(b"a\n")

    with pytest.raises(ToolFailure, match=r"was not read in this session. Read it first"):
        await session.call(EDIT, filePath="a.txt", oldString="a", newString="b")


async def test_a_file_that_changed_since_it_was_read_is_refused(session: Session) -> None:
    path = await known(session, "a.txt", b"a\nb\n")
    path.write_bytes(b"a\nB\n")

    with pytest.raises(ToolFailure, match=r"changed by somebody else.*Read it again"):
        await session.call(EDIT, filePath="a.txt", oldString="a", newString="x")

    assert path.read_bytes() == b"a\nB\n"
    await session.call(Read(), filePath="a.txt")
    await session.call(EDIT, filePath="a.txt", oldString="a", newString="x")
    assert path.read_bytes() == b"x\nB\n"


async def test_a_file_that_changes_while_the_edit_is_prepared_is_refused(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await known(session, "a.txt", b"a\n")
    stage = file_edits._stage

    def meanwhile(target: Path, content: bytes, staged: Path) -> None:
        stage(target, content, staged)
        path.write_bytes(b"other\n")

    monkeypatch.setattr(file_edits, "_stage", meanwhile)

    with pytest.raises(ToolFailure, match="changed by somebody else just now"):
        await session.call(EDIT, filePath="a.txt", oldString="a", newString="b")

    assert path.read_bytes() == b"other\n"
    assert os.listdir(path.parent) == ["a.txt"]


async def test_a_text_that_is_there_twice_needs_replace_all(session: Session) -> None:
    path = await known(session, "a.txt", b"a\na\n")

    with pytest.raises(ToolFailure, match="2 times"):
        await session.call(EDIT, filePath="a.txt", oldString="a", newString="b")
    await session.call(EDIT, filePath="a.txt", oldString="a", newString="b", replaceAll=True)

    assert path.read_bytes() == b"b\nb\n"


@pytest.mark.parametrize(
    ("input", "complaint"),
    [
        ({"filePath": "a.txt", "oldString": "a", "newString": "a"}, "nothing to change"),
        ({"filePath": "a.txt", "oldString": "", "newString": "b"}, "oldString is empty, but"),
        ({"filePath": "new.txt", "oldString": "x", "newString": "b"}, "There is no .*new.txt"),
        ({"filePath": ".", "oldString": "x", "newString": "b"}, "is a directory"),
        ({"filePath": "pipe", "oldString": "x", "newString": "b"}, "device, pipe or socket"),
        ({"filePath": "a.txt/b", "oldString": "", "newString": "b"}, "Not a directory"),
        ({"filePath": "a\0b", "oldString": "x", "newString": "b"}, "NUL"),
        ({"filePath": "binary", "oldString": "x", "newString": "b"}, "not UTF-8"),
        ({"filePath": "large", "oldString": "x", "newString": "b"}, "larger than 10 MB"),
    ],
)
async def test_what_cannot_be_is_refused_before_anybody_is_asked(
    session: Session, input: dict[str, Any], complaint: str
) -> None:
    directory = session.context.directory
    await known(session, "a.txt", b"a\n")
    os.mkfifo(directory / "pipe")
    (directory / "binary").write_bytes(b"\xff\0")
    session.host.stamps[str(directory / "binary")] = stamp_of(b"\xff\0")
    (directory / "large").write_bytes(b"x" * (FILE_BYTES_MAX + 1))

    with pytest.raises(ToolFailure, match=complaint):
        await EDIT.asks(input, session.next_context())


async def test_an_empty_old_string_makes_a_file(session: Session) -> None:
    result = await session.call(EDIT, filePath="x/new.txt", oldString="", newString="a\n")

    assert (session.context.directory / "x/new.txt").read_bytes() == b"a\n"
    assert result.metadata["filediff"]["additions"] == 1


async def test_mode_owner_and_attributes_stay(session: Session) -> None:
    path = await known(session, "run.sh", b"a\n")
    os.chmod(path, 0o4751)
    before = os.stat(path)

    await session.call(EDIT, filePath="run.sh", oldString="a", newString="b")

    after = os.stat(path)
    # Only root's writes leave this bit, as with a file that is written in its place.
    assert stat.S_IMODE(after.st_mode) == (0o4751 if os.geteuid() == 0 else 0o751)
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)


async def test_a_link_inside_is_followed_and_stays_a_link(session: Session) -> None:
    path = await known(session, "real.txt", b"a\n")
    link = session.context.directory / "link.txt"
    link.symlink_to("real.txt")

    result = await session.call(EDIT, filePath="link.txt", oldString="a", newString="b")

    assert path.read_bytes() == b"b\n"
    assert link.is_symlink()
    assert result.title == "real.txt"


async def test_a_link_that_leads_out_asks_for_the_place_it_leads_to(session: Session, tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "a.txt"
    outside.parent.mkdir()
    outside.write_bytes(b"")
    (session.context.directory / "link").symlink_to(outside)

    asks = await EDIT.asks({"filePath": "link", "oldString": "", "newString": "b"}, session.next_context())

    assert [(ask.permission, ask.patterns) for ask in asks] == [
        ("external_directory", (f"{outside.parent}/*",)),
        ("edit", (str(outside),)),
    ]


@given(
    st.lists(st.text("abc", max_size=3), min_size=2, max_size=6),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=30
)
async def test_an_edit_and_the_reverse_edit_give_the_same_bytes(
    session: Session, lines: list[str], line_break: str, has_mark: bool, ends: bool, draw: st.DataObject
) -> None:
    at = draw.draw(st.integers(0, len(lines) - 1))
    lines[at] = "here"
    content = (("\ufeff" if has_mark else "") + line_break.join(lines) + (line_break if ends else "")).encode()
    path = await known(session, "a.txt", content)

    await session.call(EDIT, filePath="a.txt", oldString="here", newString="now\nthere")
    assert path.read_bytes() == content.replace(b"here", f"now{line_break}there".encode())
    await session.call(EDIT, filePath="a.txt", oldString="now\nthere", newString="here")
    assert path.read_bytes() == content


# --- interrupted ------------------------------------------------------------------------------------------------


async def test_a_cancelled_edit_either_happened_or_did_not(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while it writes, it finishes, and the file is the new one."""
    path = await known(session, "a.txt", b"a\n")
    stage = file_edits._stage
    context = session.next_context()
    loop = asyncio.get_running_loop()
    call = asyncio.create_task(EDIT.run({"filePath": "a.txt", "oldString": "a", "newString": "b"}, context))

    def cancelling(target: Path, content: bytes, staged: Path) -> None:
        loop.call_soon_threadsafe(call.cancel)
        stage(target, content, staged)

    monkeypatch.setattr(file_edits, "_stage", cancelling)
    with pytest.raises(asyncio.CancelledError):
        await call

    assert path.read_bytes() == b"b\n"
    assert os.listdir(path.parent) == ["a.txt"]
    assert session.host.stamps[str(path)] == stamp_of(b"b\n")


async def test_an_edit_cancelled_before_it_writes_does_nothing(session: Session) -> None:
    path = await known(session, "a.txt", b"a\n")

    async def never(title: str | None, metadata: dict[str, Any]) -> None:
        call.cancel()
        await asyncio.sleep(60)

    context = replace(session.next_context(), progress=never)
    call = asyncio.create_task(EDIT.run({"filePath": "a.txt", "oldString": "a", "newString": "b"}, context))
    with pytest.raises(asyncio.CancelledError):
        await call

    assert path.read_bytes() == b"a\n"


class Killed(BaseException):
    """The server died here."""


async def die(session: Session, monkeypatch: pytest.MonkeyPatch, step: str, content: bytes = b"a\n") -> Path:
    """Leaves what a server leaves that is killed just before a step of an edit."""
    path = await known(session, "a.txt", content)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(file_edits, step, killed)
        patched.setattr(file_edits, "_discard", lambda _: None)
        with pytest.raises(Killed):
            await EDIT.run({"filePath": "a.txt", "oldString": "a", "newString": "b"}, session.next_context())
    return path


@pytest.mark.parametrize("step", ["_stage", "_commit", "_sync_directory"])
async def test_an_edit_whose_server_was_killed_is_done_once_when_it_runs_again(
    session: Session, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the rename it starts again, after it there is nothing left to do; nothing stays behind."""
    path = await die(session, monkeypatch, step)
    session.host.stamps[str(path)] = stamp_of(b"a\n" if step != "_sync_directory" else b"b\n")
    context = replace(session.next_context(), part_id="prt_2", recorded=session.host.recorded[-1])

    result = await EDIT.run({"filePath": "a.txt", "oldString": "a", "newString": "b"}, context)

    assert path.read_bytes() == b"b\n"
    assert os.listdir(path.parent) == ["a.txt"]
    assert "-a\n+b\n" in result.metadata["diff"]
    assert "writes" not in result.metadata


async def test_an_edit_that_was_killed_before_the_rename_runs_again_although_its_plan_is_the_newest_stamp(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stamp of a content that was planned, but never came to be, does not hide the one that was read."""
    path = await die(session, monkeypatch, "_commit")
    context = replace(session.next_context(), part_id="prt_2", recorded=session.host.recorded[-1])

    await EDIT.run({"filePath": "a.txt", "oldString": "a", "newString": "b"}, context)

    assert path.read_bytes() == b"b\n"


@pytest.mark.parametrize("step", ["_stage", "_commit", "_sync_directory"])
async def test_an_edit_that_is_not_run_again_leaves_the_old_or_the_new_file_and_no_other(
    session: Session, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = await die(session, monkeypatch, step)

    await EDIT.clean_up(running(session, 2, session.host.recorded[-1]))

    assert path.read_bytes() == (b"b\n" if step == "_sync_directory" else b"a\n")
    assert os.listdir(path.parent) == ["a.txt"]


async def test_a_file_changed_after_the_kill_is_not_overwritten(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await die(session, monkeypatch, "_commit")
    path.write_bytes(b"other\n")
    context = replace(session.next_context(), part_id="prt_2", recorded=session.host.recorded[-1])

    with pytest.raises(ToolFailure):
        await EDIT.run({"filePath": "a.txt", "oldString": "a", "newString": "b"}, context)

    assert path.read_bytes() == b"other\n"
    assert os.listdir(path.parent) == ["a.txt"]


async def test_a_disk_that_refuses_leaves_the_old_file(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await known(session, "a.txt", b"a\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(file_edits, "_keep_attributes", full)
    with pytest.raises(ToolFailure, match="cannot be written: No space left on device"):
        await session.call(EDIT, filePath="a.txt", oldString="a", newString="b")

    assert path.read_bytes() == b"a\n"
    assert os.listdir(path.parent) == ["a.txt"]
    assert isinstance(session.host.recorded, Sequence)


async def test_the_loop_goes_on_while_a_large_file_is_edited(session: Session) -> None:
    """Ten megabytes are read, compared and written beside the loop."""
    content = b"".join(b"%d\n" % n for n in range(1_200_000))
    await known(session, "large", content)
    lags: list[float] = []

    async def watch() -> None:
        while True:
            before = (
                time.thread_time()
            )  # what the loop's thread computes; what the machine does otherwise does not count
            await asyncio.sleep(0.005)
            lags.append(time.thread_time() - before)

    watcher = asyncio.create_task(watch())
    await session.call(EDIT, filePath="large", oldString="\n600000\n", newString="\nx\n")
    watcher.cancel()

    assert max(lags) < 0.5
    await session.call(Write(FileEdits()), filePath="large", content="")
