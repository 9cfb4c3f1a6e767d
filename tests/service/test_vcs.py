"""Version control of a project: what is reported, and that a diff applied elsewhere gives the same files."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Invalid, TooLarge, Unavailable
from holdfast.service import vcs as vcs_module
from holdfast.service.vcs import PatchRefused, VcsService

VCS = VcsService()


def git(directory: Path, *arguments: str) -> str:
    identity = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = os.environ | identity | {"GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, check=True, capture_output=True
    ).stdout.decode()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A work tree with one commit on `main`."""
    directory = tmp_path.resolve() / "work"
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main")
    (directory / "a.txt").write_text("".join(f"{number}\n" for number in range(1, 11)))
    (directory / "gone.txt").write_text("x\n")
    (directory / "b.bin").write_bytes(b"ab\0cd")
    (directory / ".gitignore").write_text("*.log\n")
    (directory / "sub").mkdir()
    (directory / "sub/s.txt").write_text("s\n")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "first")
    return directory


@pytest.fixture
def changed(work: Path) -> Path:
    (work / "a.txt").write_text("".join(f"{number if number != 5 else 'five'}\n" for number in range(1, 11)))
    git(work, "rm", "-q", "gone.txt")
    (work / "b.bin").write_bytes(b"ab\0xx")
    (work / "staged.txt").write_text("staged\n")
    git(work, "add", "staged.txt")
    (work / "new é.txt").write_text("one\ntwo")
    (work / "empty").touch()
    (work / "x.log").write_text("ignored")
    return work


# --- branches ---------------------------------------------------------------------------------------------------


async def test_branch_and_default_branch(work: Path) -> None:
    info = await VCS.info(str(work / "sub"))
    assert (info.branch, info.default_branch) == ("main", "main")
    git(work, "checkout", "-q", "-b", "feature/x")
    info = await VCS.info(str(work))
    assert (info.branch, info.default_branch) == ("feature/x", "main")


async def test_a_detached_head_is_no_branch(work: Path) -> None:
    git(work, "checkout", "-q", "--detach")
    assert (await VCS.info(str(work))).branch is None


async def test_the_default_branch_is_that_of_the_remote(work: Path, tmp_path: Path) -> None:
    git(work, "branch", "-m", "main", "trunk")
    git(tmp_path, "clone", "-q", str(work), "clone")
    git(tmp_path / "clone", "checkout", "-q", "-b", "main")
    assert (await VCS.info(str(tmp_path / "clone"))).default_branch == "trunk"


async def test_outside_of_git_there_is_nothing_to_report(tmp_path: Path) -> None:
    directory = str(tmp_path)
    info = await VCS.info(directory)
    assert (info.branch, info.default_branch) == (None, None)
    assert await VCS.status(directory) == ()
    assert await VCS.diff(directory, "git") == ()
    assert await VCS.raw_diff(directory) == b""
    with pytest.raises(PatchRefused) as refused:
        await VCS.apply(directory, "x")
    assert refused.value.reason == "non-git"


async def test_without_the_git_program_there_is_nothing_to_report(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert (await VCS.info(str(work))).branch is None
    assert await VCS.status(str(work)) == ()
    with pytest.raises(Unavailable):
        await VCS.init(str(work))


# --- changes ----------------------------------------------------------------------------------------------------


async def test_status_has_staged_unstaged_and_new_files(changed: Path) -> None:
    found = {
        change.file: (change.status, change.additions, change.deletions) for change in await VCS.status(str(changed))
    }
    assert found == {
        "a.txt": ("modified", 1, 1),
        "b.bin": ("modified", 0, 0),
        "empty": ("added", 0, 0),
        "gone.txt": ("deleted", 0, 1),
        "new é.txt": ("added", 2, 0),
        "staged.txt": ("added", 1, 0),
    }


async def test_a_diff_shows_whole_files_or_as_many_lines_as_asked_for(changed: Path) -> None:
    whole = {diff.file: diff for diff in await VCS.diff(str(changed), "git")}
    patch = whole["a.txt"].patch
    assert patch is not None
    assert patch.startswith("diff --git a/a.txt b/a.txt\n")
    assert "@@ -1,10 +1,10 @@\n 1\n" in patch
    assert whole["new é.txt"].patch is not None
    assert whole["new é.txt"].patch.endswith("@@ -0,0 +1,2 @@\n+one\n+two\n\\ No newline at end of file\n")
    assert "Binary files" in (whole["b.bin"].patch or "")

    narrow = {diff.file: diff for diff in await VCS.diff(str(changed / "sub"), "git", 1)}
    assert "@@ -4,3 +4,3 @@" in (narrow["a.txt"].patch or "")
    with pytest.raises(Invalid):
        await VCS.diff(str(changed), "git", -1)


async def test_a_branch_is_compared_with_where_it_left_the_default_branch(work: Path) -> None:
    assert await VCS.diff(str(work), "branch") == ()
    git(work, "checkout", "-q", "-b", "feature")
    (work / "committed").write_text("1\n")
    git(work, "add", "committed")
    git(work, "commit", "-qm", "second")
    (work / "pending").write_text("1\n")
    git(work, "branch", "-f", "main", "main")
    assert [diff.file for diff in await VCS.diff(str(work), "branch")] == ["committed", "pending"]
    assert [diff.file for diff in await VCS.diff(str(work), "git")] == ["pending"]


async def test_before_the_first_commit_every_file_is_new(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1\n")
    assert [(change.file, change.status) for change in await VCS.status(str(tmp_path))] == [("a", "added")]
    assert (await VCS.diff(str(tmp_path), "git"))[0].additions == 1


async def test_reading_changes_leaves_the_repository_as_it_is(changed: Path) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in (changed / ".git").rglob("*") if path.is_file()}

    before = state()
    await VCS.status(str(changed))
    await VCS.diff(str(changed), "git")
    await VCS.raw_diff(str(changed))
    await VCS.info(str(changed))
    assert state() == before


async def test_the_users_settings_do_not_change_what_is_sent(changed: Path) -> None:
    plain = await VCS.diff(str(changed), "git")
    (changed / "order").write_text("*.bin\n")
    for name, value in {
        "diff.noprefix": "true",
        "diff.mnemonicPrefix": "true",
        "diff.external": "false",
        "diff.renames": "copies",
        "color.ui": "always",
        "diff.relative": "true",
        "diff.orderFile": "order",
        "diff.context": "7",
    }.items():
        git(changed, "config", name, value)
    (changed / "order").unlink()
    assert await VCS.diff(str(changed / "sub"), "git") == plain


async def test_a_diff_that_is_too_large_is_refused(changed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcs_module, "RAW_DIFF_BYTES_MAX", 100)
    with pytest.raises(TooLarge):
        await VCS.raw_diff(str(changed))


# --- patches ----------------------------------------------------------------------------------------------------


async def test_a_patch_is_applied_as_a_whole_or_not_at_all(work: Path) -> None:
    patch = (
        "--- a/sub/s.txt\n+++ b/sub/s.txt\n@@ -1 +1 @@\n-s\n+S\n"
        "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-no such line\n+x\n"
    )
    with pytest.raises(PatchRefused) as refused:
        await VCS.apply(str(work), patch)
    assert refused.value.reason == "not-clean"
    assert (work / "sub/s.txt").read_text() == "s\n"

    await VCS.apply(str(work / "sub"), patch.partition("--- a/a.txt")[0])
    assert (work / "sub/s.txt").read_text() == "S\n"
    assert git(work, "diff", "--cached", "--name-only") == ""


@pytest.mark.parametrize("path", ["../evil", "/tmp/evil", ".git/hooks/pre-commit", "link/evil", "sub/../../evil"])
async def test_a_patch_cannot_reach_out_of_the_work_tree(work: Path, path: str) -> None:
    (work / "link").symlink_to("..")
    patch = f"diff --git a/{path} b/{path}\nnew file mode 100644\n--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+evil\n"
    with pytest.raises(PatchRefused):
        await VCS.apply(str(work), patch)
    assert not (work.parent / "evil").exists()
    assert not (work / ".git/hooks/pre-commit").exists()


@pytest.mark.parametrize("patch", ["", "\n", "garbage", "\ud800", "--- a/a.txt\n+++ b/a.txt\n@@ -1,9 +1 @@\n-1\n"])
async def test_what_is_no_patch_is_refused(work: Path, patch: str) -> None:
    with pytest.raises(Invalid):
        await VCS.apply(str(work), patch)
    assert await VCS.status(str(work)) == ()


async def test_a_directory_becomes_a_work_tree_once(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    await VCS.init(str(tmp_path))
    assert (tmp_path / ".git").is_dir()
    await VCS.init(str(tmp_path / "sub"))
    assert not (tmp_path / "sub/.git").exists()


FILES = st.dictionaries(
    st.sampled_from(["a", "b.txt", "d/e", "d/f", "ü", "with space", "-x", '"q"']),
    st.binary(max_size=30)
    | st.lists(st.sampled_from(["one\n", "two\r\n", "three"]), max_size=8).map("".join).map(str.encode),
    max_size=6,
)


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)


@settings(max_examples=25)
@given(before=FILES, after=FILES)
async def test_a_raw_diff_applied_to_the_last_commit_gives_the_same_files(
    before: dict[str, bytes], after: dict[str, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        work, other = Path(directory) / "work", Path(directory) / "other"
        work.mkdir()
        git(work, "init", "-q")
        write(work, before)
        git(work, "add", "-A")
        git(work, "commit", "-qm", "before", "--allow-empty")
        git(Path(directory), "clone", "-q", str(work), str(other))
        for name in before.keys() - after.keys():
            (work / name).unlink()
        write(work, after)

        patch = await VCS.raw_diff(str(work))
        if patch:
            await VCS.apply(str(other), patch.decode(errors="surrogateescape"))

        files = {
            str(path.relative_to(other)): path.read_bytes()
            for path in other.rglob("*")
            if path.is_file() and ".git" not in path.parts
        }
        assert files == after
        assert {change.file for change in await VCS.status(str(other))} == {
            name for name in before.keys() | after.keys() if before.get(name) != after.get(name)
        }
