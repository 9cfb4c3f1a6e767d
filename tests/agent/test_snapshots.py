"""Snapshots of a work tree: what they cover comes back exactly, what they do not cover is never touched."""

import asyncio
import os
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.agent import snapshots as snapshots_module
from holdfast.agent.git import Git
from holdfast.agent.restoring import Contents
from holdfast.agent.snapshots import Patch, Snapshots, WorkTree
from holdfast.core.errors import NotFound, Unavailable
from holdfast.testing.other_processes import until


def git(directory: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@example.org",
    }
    done = subprocess.run(["git", *arguments], cwd=directory, env=environment, capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def snapshots(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "data", file_bytes_max=10_000)


@pytest.fixture
def tree(snapshots: Snapshots, work: Path) -> WorkTree:
    return snapshots.of(str(work))


async def taken(tree: WorkTree) -> str:
    snapshot = await tree.take()
    assert snapshot is not None
    return snapshot


def contents(directory: Path) -> dict[str, tuple[str, bytes]]:
    """Every file and link under a directory, without `.git`: its kind and content."""
    found: dict[str, tuple[str, bytes]] = {}
    for place, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name != ".git"]
        for name in [*names, *directories]:
            path = os.path.join(place, name)
            if os.path.islink(path):
                found[os.path.relpath(path, directory)] = ("link", os.fsencode(os.readlink(path)))
            elif name in names:
                kind = "program" if os.stat(path).st_mode & 0o100 else "file"
                found[os.path.relpath(path, directory)] = (kind, Path(path).read_bytes())
    return found


# --- taking and comparing ---------------------------------------------------------------------------------------


async def test_the_same_files_give_the_same_snapshot(tree: WorkTree, work: Path) -> None:
    (work / "a.txt").write_text("one\n")
    first = await taken(tree)
    os.utime(work / "a.txt", (1, 1))
    assert await taken(tree) == first
    (work / "a.txt").write_text("two\n")
    assert await taken(tree) != first


async def test_a_diff_shows_whole_small_files_in_the_form_that_clients_know(tree: WorkTree, work: Path) -> None:
    (work / "note.txt").write_text("line one\n")
    (work / "gone.txt").write_text("x\n")
    old = await taken(tree)
    (work / "note.txt").write_text("line 1!\n")
    (work / "gone.txt").unlink()
    (work / "new.txt").write_text("a\nb")
    diffs = {diff.file: diff for diff in await tree.diff(old, await taken(tree))}

    assert diffs["note.txt"].patch == (
        "Index: note.txt\n===================================================================\n"
        "--- note.txt\t\n+++ note.txt\t\n@@ -1,1 +1,1 @@\n-line one\n+line 1!\n"
    )
    assert {file: (diff.status, diff.additions, diff.deletions) for file, diff in diffs.items()} == {
        "note.txt": ("modified", 1, 1),
        "gone.txt": ("deleted", 0, 1),
        "new.txt": ("added", 2, 0),
    }
    assert diffs["new.txt"].patch is not None
    assert diffs["new.txt"].patch.endswith("@@ -0,0 +1,2 @@\n+a\n+b\n\\ No newline at end of file\n")


async def test_a_patch_names_the_changed_files_by_absolute_path(tree: WorkTree, work: Path) -> None:
    (work / "same").write_text("x")
    old = await taken(tree)
    (work / "sub").mkdir()
    (work / "sub/ä b\n.txt").write_text("x")
    assert await tree.changed(old, await taken(tree)) == (str(work / "sub/ä b\n.txt"),)
    assert await tree.changed(old, old) == ()


async def test_the_raw_diff_is_what_git_prints(tree: WorkTree, work: Path) -> None:
    (work / "note.txt").write_text("line 1!\n")
    old = await taken(tree)
    (work / "note.txt").write_text("line one\n")
    raw = await tree.raw_diff(old, await taken(tree))
    assert raw.startswith("diff --git a/note.txt b/note.txt\nindex ")
    assert raw.endswith("@@ -1 +1 @@\n-line 1!\n+line one")


async def test_binary_files_have_counts_of_zero_and_no_patch(tree: WorkTree, work: Path) -> None:
    old = await taken(tree)
    (work / "image").write_bytes(b"\x89PNG\0\0\xff")
    (diff,) = await tree.diff(old, await taken(tree))
    assert (diff.file, diff.patch, diff.additions, diff.deletions, diff.status) == ("image", "", 0, 0, "added")


async def test_a_rename_is_a_file_that_went_and_one_that_came(tree: WorkTree, work: Path) -> None:
    (work / "old.txt").write_text("same\n")
    old = await taken(tree)
    (work / "old.txt").rename(work / "new.txt")
    new = await taken(tree)
    assert {diff.file: diff.status for diff in await tree.diff(old, new)} == {"old.txt": "deleted", "new.txt": "added"}
    await tree.restore(old)
    assert contents(work) == {"old.txt": ("file", b"same\n")}


async def test_a_file_that_became_a_link_has_its_own_patch_and_so_has_the_next(tree: WorkTree, work: Path) -> None:
    (work / "a").write_text("x\n")
    (work / "b").write_text("y\n")
    old = await taken(tree)
    (work / "a").unlink()
    (work / "a").symlink_to("b")
    (work / "b").write_text("z\n")
    diffs = {diff.file: diff for diff in await tree.diff(old, await taken(tree))}
    assert diffs["b"].patch is not None
    assert diffs["b"].patch.endswith("-y\n+z\n")
    assert diffs["a"].status == "modified"


async def test_a_patch_too_large_to_show_is_left_out_but_counted(tmp_path: Path, work: Path) -> None:
    tree = Snapshots(tmp_path / "data").of(str(work))
    old = await taken(tree)
    (work / "large.txt").write_text("line\n" * 100_000)
    (diff,) = await tree.diff(old, await taken(tree))
    assert (diff.patch, diff.additions) == ("", 100_000)


async def test_an_unknown_snapshot_is_not_found(tree: WorkTree, work: Path) -> None:
    (work / "a").write_text("x")
    now = await taken(tree)
    for unknown in ("0" * 40, "--output=/tmp/x", "HEAD", ""):
        with pytest.raises(NotFound):
            await tree.diff(unknown, now)
        with pytest.raises(NotFound):
            await tree.restore(unknown)


# --- what is covered --------------------------------------------------------------------------------------------


async def test_ignored_files_are_not_covered_and_survive_a_restore(tree: WorkTree, work: Path) -> None:
    (work / ".gitignore").write_text("*.log\nbuild/\n")
    (work / "a.txt").write_text("1")
    old = await taken(tree)
    (work / "x.log").write_text("log")
    (work / "build").mkdir()
    (work / "build/out").write_text("out")
    (work / "a.txt").write_text("2")
    assert await tree.changed(old, await taken(tree)) == (str(work / "a.txt"),)
    await tree.restore(old)
    assert (work / "x.log").read_text() == "log"
    assert (work / "build/out").read_text() == "out"
    assert (work / "a.txt").read_text() == "1"


async def test_what_the_restored_rules_ignore_is_not_deleted(tree: WorkTree, work: Path) -> None:
    """The step took a file out of `.gitignore`: that it was not in the snapshot before does not say that it was not there."""
    (work / ".gitignore").write_text("secret\n:*\n")
    (work / "secret").write_text("the only one")
    (work / ":(top)made").write_text("")
    (work / "at").mkdir()
    (work / "at/.gitignore").write_text("x")
    old = await taken(tree)
    (work / ".gitignore").write_text("")
    (work / "at/.gitignore").unlink()
    (work / "at").rmdir()
    (work / "at").write_text("a file where a directory was")
    (work / "made").write_text("by the step")
    new = await taken(tree)
    files = await tree.changed(old, new)
    assert str(work / "secret") in files
    restored = await tree.undo([Patch(old, files)])
    assert (work / ".gitignore").read_text() == "secret\n:*\n"
    assert (work / "secret").read_text() == "the only one"
    assert (work / "at/.gitignore").read_text() == "x"
    assert not (work / "made").exists()
    assert restored.skipped == (str(work / ":(top)made"), str(work / "secret"))


async def test_the_repositorys_own_exclude_file_counts(tree: WorkTree, work: Path) -> None:
    git(work, "init", "-q")
    (work / ".git/info/exclude").write_text("private\n")
    old = await taken(tree)
    (work / "private").write_text("x")
    assert await taken(tree) == old


async def test_a_file_over_the_limit_is_not_covered_and_never_overwritten(tree: WorkTree, work: Path) -> None:
    (work / "data").write_text("small")
    small = await taken(tree)
    (work / "data").write_text("x" * 20_000)
    large = await taken(tree)
    assert await tree.changed(small, large) == (str(work / "data"),)

    restored = await tree.restore(small)
    assert restored.skipped == (str(work / "data"),)
    assert (work / "data").read_text() == "x" * 20_000

    (work / "data").unlink()
    assert (await tree.restore(small)).changed == (str(work / "data"),)
    assert (work / "data").read_text() == "small"


async def test_special_files_and_nested_repositories_are_left_alone(tree: WorkTree, work: Path) -> None:
    os.mkfifo(work / "pipe")
    nested = work / "nested"
    nested.mkdir()
    git(nested, "init", "-q")
    (nested / "inner.txt").write_text("1")
    (work / "a").write_text("1")
    old = await taken(tree)
    (nested / "inner.txt").write_text("2")
    (work / "a").write_text("2")
    await tree.restore(old)
    assert (nested / "inner.txt").read_text() == "2"
    assert stat.S_ISFIFO((work / "pipe").lstat().st_mode)
    assert (work / "a").read_text() == "1"


async def test_the_users_repository_is_not_touched(tree: WorkTree, work: Path) -> None:
    git(work, "init", "-q")
    (work / "a").write_text("1")
    git(work, "add", "a")
    git(work, "commit", "-qm", "first")
    (work / "a").write_text("staged")
    git(work, "add", "a")

    def state() -> dict[str, bytes]:
        found = [path for path in (work / ".git").rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in found}

    before = state()
    old = await taken(tree)
    (work / "a").write_text("2")
    await tree.diff(old, await taken(tree))
    await tree.restore(old)
    await tree.tidy()
    assert state() == before


async def test_line_ends_and_filters_of_gitattributes_change_nothing(tree: WorkTree, work: Path) -> None:
    (work / ".gitattributes").write_text(
        "* text=auto eol=crlf ident\n*.bin filter=missing\n*.u working-tree-encoding=UTF-16\n"
    )
    (work / "a.txt").write_bytes(b"one\r\ntwo\n$Id$\n")
    (work / "b.bin").write_bytes(b"\0\r\n")
    (work / "c.u").write_bytes(b"plain\n")
    old, before = await taken(tree), contents(work)
    for name in ("a.txt", "b.bin", "c.u"):
        (work / name).unlink()
    await tree.restore(old)
    assert contents(work) == before


async def test_the_data_directory_inside_a_project_is_not_covered(work: Path) -> None:
    tree = Snapshots(work / "[data] dir").of(str(work))
    (work / "a").write_text("x")
    first = await taken(tree)
    assert await taken(tree) == first


# --- restoring --------------------------------------------------------------------------------------------------


async def test_undo_brings_back_only_the_files_of_the_patches_as_they_were_before_the_first(
    tree: WorkTree, work: Path
) -> None:
    (work / "a").write_text("0")
    (work / "mine").write_text("0")
    first = await taken(tree)
    (work / "a").write_text("1")
    (work / "new").write_text("1")
    second = await taken(tree)
    (work / "a").write_text("2")
    third = await taken(tree)
    (work / "mine").write_text("edited by the user")
    patches = [Patch(first, await tree.changed(first, second)), Patch(second, await tree.changed(second, third))]

    undone = await tree.undo(patches)
    assert contents(work) == {"a": ("file", b"0"), "mine": ("file", b"edited by the user")}
    assert set(undone.changed) == {str(work / "a"), str(work / "new")}

    await tree.restore(undone.before, undone.changed)
    assert contents(work) == {"a": ("file", b"2"), "mine": ("file", b"edited by the user"), "new": ("file", b"1")}


async def test_a_restored_file_keeps_its_permissions(tree: WorkTree, work: Path) -> None:
    (work / "secret").write_text("1")
    (work / "secret").chmod(0o600)
    (work / "tool").write_text("1")
    (work / "tool").chmod(0o750)
    old = await taken(tree)
    (work / "secret").write_text("2")
    (work / "tool").write_text("2")
    (work / "tool").chmod(0o640)
    await tree.restore(old)
    assert stat.S_IMODE((work / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((work / "tool").stat().st_mode) == 0o750


async def test_a_restore_never_writes_through_a_symbolic_link(tree: WorkTree, work: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("theirs")
    (work / "d").mkdir()
    (work / "d/a").write_text("ours")
    old = await taken(tree)
    (work / "d/a").unlink()
    (work / "d").rmdir()
    (work / "d").symlink_to(outside)
    await tree.restore(old)
    assert (outside / "a").read_text() == "theirs"
    assert not (work / "d").is_symlink()
    assert (work / "d/a").read_text() == "ours"


async def test_what_is_ignored_is_not_destroyed_even_if_it_stands_in_the_way(tree: WorkTree, work: Path) -> None:
    (work / ".gitignore").write_text("*.keep\n")
    (work / "d").write_text("a file")
    old = await taken(tree)
    (work / "d").unlink()
    (work / "d").mkdir()
    (work / "d/precious.keep").write_text("only copy")
    (work / "d/other").write_text("x")
    restored = await tree.restore(old)
    assert restored.skipped == (str(work / "d"),)
    assert (work / "d/precious.keep").read_text() == "only copy"
    assert not (work / "d/other").exists()


async def test_paths_outside_of_the_work_tree_are_not_restored(tree: WorkTree, work: Path, tmp_path: Path) -> None:
    (work / "a").write_text("1")
    old = await taken(tree)
    (work / "a").write_text("2")
    (tmp_path / "x").write_text("x")
    restored = await tree.restore(old, [str(tmp_path / "x"), "../x", "/", str(work)])
    assert (restored.changed, restored.skipped) == ((), ())
    assert (work / "a").read_text() == "2"


async def test_a_restore_that_began_is_finished_though_nobody_waits(tree: WorkTree, work: Path) -> None:
    for number in range(50):
        (work / f"{number}").write_text("1")
    old = await taken(tree)
    for number in range(50):
        (work / f"{number}").write_text("2")
    restoring = asyncio.create_task(tree.restore(old))
    await asyncio.sleep(0)
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert await taken(tree) == old  # waits for the lock that the restore holds


# --- many, crashes, no git --------------------------------------------------------------------------------------


async def test_a_git_that_ends_in_the_middle_of_a_restore_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, ended = tmp_path / "bin" / "git", tmp_path / "ended"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec 0<&- 1>&-\n: > {ended}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))

    with Contents(Git(directory=str(tmp_path))) as contents:
        await until(ended.exists)
        with pytest.raises(Unavailable, match="lost the content abc"):
            contents.read("abc")


async def test_several_sessions_may_use_one_work_tree_at_once(tree: WorkTree, work: Path) -> None:
    async def session(name: str) -> None:
        for step in range(3):
            (work / name).write_text(f"{step}")
            old = await taken(tree)
            (work / name).write_text(f"{step} and more")
            new = await taken(tree)
            assert str(work / name) in await tree.changed(old, new)
            await tree.restore(old, [str(work / name)])
            assert (work / name).read_text() == f"{step}"

    await asyncio.gather(*(session(name) for name in "abcd"))


async def test_a_lock_and_half_a_repository_left_by_a_crash_do_no_harm(tmp_path: Path, work: Path) -> None:
    (work / "a").write_text("1")
    tree = Snapshots(tmp_path / "data").of(str(work))
    old = await taken(tree)
    (repository,) = (tmp_path / "data/snapshots").iterdir()
    (repository / "index.lock").touch()
    (tmp_path / "data/snapshots" / f"{repository.name}.new").mkdir()

    again = Snapshots(tmp_path / "data").of(str(work))
    assert await taken(again) == old
    (repository / "index.lock").touch()  # a command of ours was killed
    assert await taken(again) == old


async def test_a_repository_that_is_lost_while_the_server_runs_is_made_again(
    tree: WorkTree, work: Path, tmp_path: Path
) -> None:
    """There were no snapshots any more until a restart."""
    (work / "a").write_text("1")
    old = await taken(tree)
    [repository] = (tmp_path / "data" / "snapshots").iterdir()
    shutil.rmtree(repository)
    assert await taken(tree) == old
    (work / "a").write_text("2")
    await tree.restore(old)
    assert (work / "a").read_text() == "1"


async def test_a_directory_that_takes_too_long_to_list_costs_that_time_twice_and_not_at_each_step(
    tree: WorkTree, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(snapshots_module, "_LIST_SECONDS_MAX", 0.0)
        assert await tree.take() is None
    assert await tree.take() is not None, "once may be by chance"
    with monkeypatch.context() as slow:
        slow.setattr(snapshots_module, "_LIST_SECONDS_MAX", 0.0)
        assert [await tree.take(), await tree.take()] == [None, None]
    assert await tree.take() is None


async def test_what_a_killed_restore_left_half_written_is_no_part_of_the_project_and_goes_away(
    tree: WorkTree, work: Path
) -> None:
    empty = await taken(tree)
    (work / "in").mkdir()
    left, fresh = work / "in/.holdfast-restore-0123456789abcdef", work / ".holdfast-restore-fedcba9876543210"
    for file in (left, fresh):
        file.write_text("half")
    os.utime(left, (1, 1))
    assert await taken(tree) == empty
    assert (left.exists(), fresh.exists()) == (False, True)


async def test_a_damaged_index_is_made_again(tree: WorkTree, work: Path, tmp_path: Path) -> None:
    (work / "a").write_text("1")
    old = await taken(tree)
    (repository,) = (tmp_path / "data/snapshots").iterdir()
    (repository / "index").write_bytes(b"DIRC garbage")
    assert await taken(tree) == old


async def test_snapshots_outlive_the_process_that_took_them(tmp_path: Path, work: Path) -> None:
    (work / "a").write_text("1")
    old = await taken(Snapshots(tmp_path / "data").of(str(work)))
    (work / "a").write_text("2")
    await Snapshots(tmp_path / "data").of(str(work)).restore(old)
    assert (work / "a").read_text() == "1"


async def test_without_git_there_are_no_snapshots_and_nothing_breaks(
    tree: WorkTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert await tree.take() is None
    with pytest.raises(Unavailable):
        await tree.restore("0" * 40)
    await tree.tidy()


async def test_a_directory_with_too_much_in_it_has_no_snapshots(tmp_path: Path, work: Path) -> None:
    for number in range(20):
        (work / f"{number}").write_text("x" * 1000)
    assert await Snapshots(tmp_path / "d1", files_max=10).of(str(work)).take() is None
    assert await Snapshots(tmp_path / "d2", bytes_max=10_000).of(str(work)).take() is None
    assert await Snapshots(tmp_path / "d3").of("/").take() is None


async def test_tidying_keeps_the_snapshots_of_today(tree: WorkTree, work: Path) -> None:
    (work / "a").write_text("1")
    old = await taken(tree)
    (work / "a").write_text("2")
    await taken(tree)
    await tree.tidy()
    await tree.restore(old)
    assert (work / "a").read_text() == "1"


# --- properties -------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c.txt", "d", "-e", "ü ", "x\ny", '"q"'])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
FILES = st.one_of(
    st.tuples(st.sampled_from(["file", "program"]), st.binary(max_size=40)),
    st.tuples(
        st.just("file"),
        st.lists(st.sampled_from(["one\n", "two\r\n", "three"]), max_size=6).map("".join).map(str.encode),
    ),
    st.tuples(st.just("link"), st.sampled_from([b"a", b"../outside", b"nowhere"])),
)
EDITS = st.lists(st.tuples(PATHS, st.none() | FILES), max_size=12)


def edit(work: Path, edits: list[tuple[str, tuple[str, bytes] | None]]) -> None:
    """Apply edits as far as they are possible; one may replace files by directories and the reverse."""
    for name, wanted in edits:
        path = work / name
        for parent in reversed(path.relative_to(work).parents):
            above = work / parent
            if above != work and (above.is_symlink() or above.is_file()):
                above.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            subprocess.run(["rm", "-rf", "--", str(path)], check=True)
        if wanted is None:
            continue
        kind, content = wanted
        if kind == "link":
            path.symlink_to(os.fsdecode(content))
        else:
            path.write_bytes(content)
            path.chmod(0o755 if kind == "program" else 0o644)


@settings(max_examples=40)
@given(first=EDITS, second=EDITS, third=EDITS)
async def test_a_restore_gives_back_exactly_the_files_that_the_snapshot_covered(
    first: list[tuple[str, tuple[str, bytes] | None]],
    second: list[tuple[str, tuple[str, bytes] | None]],
    third: list[tuple[str, tuple[str, bytes] | None]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory) / "work"
        work.mkdir()
        tree = Snapshots(Path(directory) / "data").of(str(work))
        moments: list[tuple[str, dict[str, tuple[str, bytes]]]] = []
        for edits in (first, second, third):
            edit(work, edits)
            moments.append((await taken(tree), contents(work)))
        for snapshot, files in (moments[0], moments[2], moments[1]):
            restored = await tree.restore(snapshot)
            assert restored.skipped == ()
            assert contents(work) == files
            assert await taken(tree) == snapshot


@settings(max_examples=25)
@given(first=EDITS, second=EDITS)
async def test_a_diff_names_exactly_the_files_that_differ(
    first: list[tuple[str, tuple[str, bytes] | None]], second: list[tuple[str, tuple[str, bytes] | None]]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory) / "work"
        work.mkdir()
        tree = Snapshots(Path(directory) / "data").of(str(work))
        edit(work, first)
        old, before = await taken(tree), contents(work)
        edit(work, second)
        new, after = await taken(tree), contents(work)
        differing = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        assert {diff.file for diff in await tree.diff(old, new)} == differing
        assert {os.path.relpath(path, work) for path in await tree.changed(old, new)} == differing
