"""The tool `apply_patch` on real files: all of a patch happens, or nothing."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.agent.tools import ToolFailure, file_edits
from holdfast.agent.tools.apply_patch import ApplyPatch
from holdfast.agent.tools.file_edits import FileEdits
from holdfast.agent.tools.read import Read
from tests.agent.tools.hosts import Session
from tests.agent.tools.test_edit import Killed
from tests.agent.tools.test_patch_text import patch, words, written

PATCH = ApplyPatch(FileEdits())

ALL = patch(
    "*** Add File: sub/new.txt",
    "+new",
    "*** Update File: a.txt",
    "-a",
    "+A",
    "*** Update File: b.sh",
    "*** Move to: c.sh",
    "-b",
    "+B",
    "*** Delete File: d.txt",
)


async def prepare(session: Session) -> Path:
    directory = session.context.directory
    for name, content in (("a.txt", b"a\r\n"), ("b.sh", b"b"), ("d.txt", b"d\n")):
        (directory / name).write_bytes(content)
        await session.call(Read(), filePath=name)
    os.chmod(directory / "b.sh", 0o755)
    return directory


def tree(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


BEFORE = {"a.txt": b"a\r\n", "b.sh": b"b", "d.txt": b"d\n"}
AFTER = {"a.txt": b"A\r\n", "c.sh": b"B", "sub/new.txt": b"new\n"}


async def test_a_patch_adds_changes_moves_and_deletes(session: Session) -> None:
    directory = await prepare(session)

    result = await session.call(PATCH, patchText=ALL)

    assert tree(directory) == AFTER
    assert session.host.changes == [
        ("add", "new.txt"),
        ("change", "a.txt"),
        ("unlink", "b.sh"),
        ("add", "c.sh"),
        ("unlink", "d.txt"),
    ]
    assert stat.S_IMODE((directory / "c.sh").stat().st_mode) == 0o755
    assert result.title == "4 files"
    assert result.output.splitlines()[1:] == ["A sub/new.txt", "M a.txt", "M c.sh", "D d.txt"]
    files = result.metadata["files"]
    assert [file["type"] for file in files] == ["add", "update", "move", "delete"]
    assert [(file["additions"], file["deletions"]) for file in files] == [(1, 0), (1, 1), (1, 1), (0, 1)]
    assert files[2]["movePath"] == str(directory / "c.sh")
    assert files[2]["filePath"] == str(directory / "b.sh")
    assert result.metadata["diff"] == "\n".join(file["patch"] for file in files)
    assert result.metadata["diagnostics"] == {}


async def test_the_user_is_asked_once_for_all_files(session: Session, tmp_path: Path) -> None:
    directory = await prepare(session)
    text = ALL.replace("sub/new.txt", str(tmp_path / "out" / "new.txt"))

    outside, ask = await PATCH.asks({"patchText": text}, session.next_context())

    assert (outside.permission, outside.patterns) == ("external_directory", (f"{tmp_path}/out/*",))
    assert (ask.permission, ask.patterns) == ("edit", (f"{tmp_path}/out/new.txt", "a.txt", "b.sh", "c.sh", "d.txt"))
    assert ask.metadata["files"][1]["relativePath"] == "a.txt"
    assert "+A" in ask.metadata["diff"]
    assert tree(directory) == BEFORE


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        (("*** Update File: a.txt", "-zzz", "+x"), "does not fit"),
        (("*** Add File: a.txt", "+x"), "exists already"),
        (("*** Delete File: none.txt",), "There is no"),
        (("*** Update File: a.txt", "*** Move to: d.txt"), "cannot be moved to .*d.txt, which exists"),
        (("*** Delete File: a.txt", "*** Update File: ./a.txt", "-a", "+b"), "in two sections"),
        (("*** Update File: a.txt", "*** Move to: new.txt"), "in two sections"),
        (("*** Update File: unread.txt", "-u", "+b"), "was not read"),
        (("*** Delete File: unread.txt",), "was not read"),
    ],
)
async def test_if_one_section_cannot_be_nothing_happens(
    session: Session, section: tuple[str, ...], complaint: str
) -> None:
    directory = await prepare(session)
    (directory / "unread.txt").write_bytes(b"u\n")
    before = tree(directory)

    with pytest.raises(ToolFailure, match=complaint):
        await session.call(PATCH, patchText=patch("*** Add File: new.txt", "+new", *section))

    assert tree(directory) == before


async def test_a_rename_that_is_refused_is_told_with_what_was_done(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = await prepare(session)
    rename = os.rename

    def refused(source: str, target: str) -> None:
        if target.endswith("c.sh"):
            raise OSError(16, "Device or resource busy")
        rename(source, target)

    monkeypatch.setattr(file_edits.os, "rename", refused)
    with pytest.raises(
        ToolFailure, match=r"c.sh cannot be replaced: Device or resource busy\. Changed already: .*a\.txt"
    ):
        await session.call(PATCH, patchText=ALL)

    assert tree(directory) == {**BEFORE, "a.txt": b"A\r\n", "sub/new.txt": b"new\n"}


@pytest.mark.parametrize("renames", range(5))
async def test_a_patch_whose_server_was_killed_anywhere_is_done_whole_when_it_runs_again(
    session: Session, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Killed after any number of the renames and removals: the second run does the rest, once, and leaves nothing behind."""
    directory = await prepare(session)
    real_rename, real_unlink = os.rename, Path.unlink
    left = renames

    def step() -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1

    def rename(source: str, target: str) -> None:
        step()
        real_rename(source, target)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if not path.name.startswith(".holdfast"):
            step()
        real_unlink(path, missing_ok=missing_ok)

    context = session.next_context()
    with monkeypatch.context() as patched:
        patched.setattr(file_edits.os, "rename", rename)
        patched.setattr(Path, "unlink", unlink)
        patched.setattr(file_edits, "_discard", lambda _: None)
        with pytest.raises(Killed):
            await PATCH.run({"patchText": ALL}, context)

    again = replace(context, recorded=session.host.recorded[-1])
    result = await PATCH.run({"patchText": ALL}, again)

    assert tree(directory) == AFTER
    assert [file["type"] for file in result.metadata["files"]] == ["add", "update", "move", "delete"]


@given(words.filter(bool), words.filter(bool), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=40
)
async def test_a_patch_and_the_reverse_patch_give_the_same_bytes(
    session: Session, old: list[str], new: list[str], line_break: str, ends: bool, has_mark: bool
) -> None:
    path = session.context.directory / "a.txt"
    before = (("\ufeff" if has_mark else "") + line_break.join(old) + (line_break if ends else "")).encode()
    path.write_bytes(before)
    await session.call(Read(), filePath="a.txt")
    if old == new or (line_break == "\r\n" and min(len(old), len(new)) < 2):  # one line has no line break to keep
        return

    await session.call(PATCH, patchText=patch("*** Update File: a.txt", *written(old, new)))
    expected = (("\ufeff" if has_mark else "") + line_break.join(new) + (line_break if ends else "")).encode()
    assert path.read_bytes() == expected
    await session.call(PATCH, patchText=patch("*** Update File: a.txt", *written(new, old)))
    assert path.read_bytes() == before
