import subprocess
from pathlib import Path

import pytest

from holdfast.core.errors import Invalid, NotFound
from holdfast.core.events import SessionCreated
from holdfast.core.ids import IdGenerator
from holdfast.service.project_details import ProjectDetails
from holdfast.service.projects import Place, ProjectService, checked_directory, find_place, worktree_of
from holdfast.storage.memory import MemoryStore
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.stories import Story


def git(directory: Path, *words: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main")
    return subprocess.run(
        ["git", *identity, *words], cwd=directory, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init")
    return root


def commit(root: Path, name: str) -> str:
    git(root, "commit", "--allow-empty", "-m", name)
    return git(root, "rev-parse", "HEAD")


async def test_a_repository_is_named_by_its_first_commit_wherever_one_stands_in_it(repository: Path):
    first = commit(repository, "first")
    commit(repository, "second")
    deep = repository / "a" / "b"
    deep.mkdir(parents=True)

    for directory in (repository, deep):
        assert await find_place(str(directory)) == Place(id=first, worktree=str(repository), vcs="git")


async def test_a_linked_work_tree_is_the_same_project_at_another_place(repository: Path, tmp_path: Path):
    first = commit(repository, "first")
    git(repository, "worktree", "add", str(tmp_path / "linked"), "-b", "other")

    assert await find_place(str(tmp_path / "linked")) == Place(id=first, worktree=str(tmp_path / "linked"), vcs="git")


async def test_a_repository_without_a_commit_has_no_name_yet(repository: Path):
    assert await find_place(str(repository)) == Place(id="global", worktree=str(repository), vcs="git")


async def test_outside_of_git_everything_is_one_project(tmp_path: Path):
    assert worktree_of(str(tmp_path)) is None
    assert await find_place(str(tmp_path)) == Place(id="global", worktree="/")


async def test_something_that_only_looks_like_a_repository_is_none_with_a_name(tmp_path: Path):
    (tmp_path / ".git").write_text("gitdir: /nowhere")

    assert (await find_place(str(tmp_path))).id == "global"


def test_a_directory_is_recorded_without_links_and_detours(tmp_path: Path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)

    for spelled in ("real", "real/", "./real", "real/../real", "link", "link/."):
        assert checked_directory(f"{tmp_path}/{spelled}") == str(real)


@pytest.mark.parametrize(
    "text", ["", "relative", "./x", "~", "/nowhere/at/all", "/dev/null", "/a\0b", "/" + "x" * 5000]
)
def test_what_is_no_directory_is_refused(text: str):
    with pytest.raises(Invalid):
        checked_directory(text)


def test_a_loop_of_links_is_refused(tmp_path: Path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    with pytest.raises(Invalid):
        checked_directory(str(tmp_path / "loop"))


async def test_projects_are_those_that_have_sessions_newest_use_first(repository: Path, tmp_path: Path):
    clock = ManualClock()
    store = MemoryStore(clock.now_ms, IdGenerator(clock.now_ms, bytes))
    projects = ProjectService(store, clock, ProjectDetails(None))
    assert await projects.all() == ()

    first = commit(repository, "first")
    linked = tmp_path / "linked"
    git(repository, "worktree", "add", str(linked), "-b", "other")
    for number, (directory, project_id) in enumerate([(repository, first), (tmp_path, "global"), (linked, first)]):
        story = Story(f"ses_{number}", directory=str(directory), project_id=project_id)
        await store.append(story.id, [SessionCreated(session_id=story.id, info=story.info)])
    found = {project.id: project for project in await projects.all()}

    assert found.keys() == {first, "global"}
    assert {found[first].worktree, *found[first].sandboxes} == {str(repository), str(linked)}
    assert found["global"].worktree == "/"
    assert found["global"].vcs is None
    outside = await find_place(str(tmp_path))
    assert set(await projects.directories(first, outside, str(tmp_path))) == {str(repository), str(linked)}
    with pytest.raises(NotFound):
        await projects.directories("none", outside, str(tmp_path))


async def test_the_project_of_a_directory_without_sessions_is_known_too(repository: Path):
    clock = ManualClock()
    projects = ProjectService(MemoryStore(clock.now_ms, IdGenerator(clock.now_ms, bytes)), clock, ProjectDetails(None))
    current = await projects.current(await find_place(str(repository)))

    assert current.worktree == str(repository)
    assert current.time.created == clock.now_ms()
