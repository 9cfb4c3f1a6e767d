"""Files of a project directory, as a client sees them: nothing outside, nothing that blocks, nothing without a bound."""

import asyncio
import base64
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from holdfast.agent import search
from holdfast.core.errors import Invalid, NotFound, TooLarge, Unavailable
from holdfast.service import files as files_module
from holdfast.service.files import FileService

FILES = FileService()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path.resolve() / "project"
    (directory / "src/deep").mkdir(parents=True)
    (directory / "src/main.py").write_text("import os\nprint('héllo wörld')\n")
    (directory / "src/deep/notes.md").write_text("hello\nHello again hello\n")
    (directory / "README.md").write_text("# hello\n")
    return directory


@pytest.fixture
def repository(project: Path) -> Path:
    """The project as a git work tree with one commit and an ignore file."""
    (project / ".gitignore").write_text("*.log\nbuild/\n")
    git(project, "init", "-q")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "first")
    (project / "x.log").write_text("hello log\n")
    (project / "build").mkdir()
    (project / "build/out").write_text("hello out\n")
    return project


def git(directory: Path, *arguments: str) -> None:
    identity = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=directory, env=os.environ | identity, check=True, capture_output=True)


def without(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == program else which(name))


@pytest.fixture(params=["ripgrep", "worker"])
def searcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "worker":
        without(monkeypatch, "rg")
    elif shutil.which("rg") is None:
        pytest.skip("ripgrep is not installed; the worker of ours is tested")
    return request.param


# --- paths ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["..", "../secret", "src/../../secret", "/etc/passwd", "link", "linked/secret", "a\0b", "x" * 5000]
)
async def test_a_path_that_leads_out_is_refused(project: Path, path: str) -> None:
    (project.parent / "secret").write_text("secret")
    (project / "link").symlink_to("../secret")
    (project / "linked").symlink_to("..")
    with pytest.raises(Invalid):
        await FILES.read(str(project), path)
    with pytest.raises(Invalid):
        await FILES.list(str(project), path)


async def test_a_sibling_whose_name_begins_like_the_project_is_outside(project: Path) -> None:
    (project.parent / "project-2").mkdir()
    (project.parent / "project-2/f").write_text("x")
    with pytest.raises(Invalid):
        await FILES.read(str(project), "../project-2/f")


async def test_absolute_paths_and_links_inside_the_project_are_fine(project: Path) -> None:
    (project / "link").symlink_to("src/main.py")
    assert (await FILES.read(str(project), "link")).content.startswith("import os")
    assert (await FILES.read(str(project), str(project / "README.md"))).content == "# hello\n"
    assert (await FILES.read(str(project), "src/../README.md")).content == "# hello\n"


async def test_what_is_not_there_is_not_found(project: Path) -> None:
    (project / "dangling").symlink_to("nowhere")
    for path in ("nope", "src/nope", "README.md/x", "dangling"):
        with pytest.raises(NotFound):
            await FILES.read(str(project), path)


async def test_a_circle_of_links_is_refused(project: Path) -> None:
    (project / "a").symlink_to("b")
    (project / "b").symlink_to("a")
    with pytest.raises((Invalid, NotFound)):
        await FILES.read(str(project), "a")


# --- content ----------------------------------------------------------------------------------------------------


async def test_text_is_sent_as_it_is(project: Path) -> None:
    (project / "t").write_bytes("  wörds\r\n\n".encode())
    content = await FILES.read(str(project), "t")
    assert (content.type, content.content, content.encoding) == ("text", "  wörds\r\n\n", None)


@pytest.mark.parametrize(
    ("name", "data", "mime"),
    [
        ("p.png", b"\x89PNG\r\n\x1a\n\0", "image/png"),
        ("looks-like.txt", b"\xff\xd8\xff\0", "image/jpeg"),
        ("b.bin", b"ab\0cd", "application/octet-stream"),
        ("latin1.txt", b"caf\xe9", "application/octet-stream"),
        ("a.wav", b"RIFF\0\0\0\0WAVE\xff", "audio/x-wav"),
    ],
)
async def test_anything_else_is_sent_in_base64_with_its_type(project: Path, name: str, data: bytes, mime: str) -> None:
    (project / name).write_bytes(data)
    content = await FILES.read(str(project), name)
    assert (content.type, content.encoding, content.mime_type) == ("binary", "base64", mime)
    assert base64.b64decode(content.content) == data


async def test_special_files_are_refused_at_once(project: Path) -> None:
    os.mkfifo(project / "pipe")
    (project / "null").symlink_to("/dev/zero")
    async with asyncio.timeout(60):
        for path in ("pipe", "null", "src", ""):
            with pytest.raises(Invalid):
                await FILES.read(str(project), path)


async def test_an_enormous_file_is_refused_without_reading_it(project: Path) -> None:
    with (project / "huge").open("wb") as file:
        file.truncate(1 << 40)
    async with asyncio.timeout(60):
        with pytest.raises(TooLarge):
            await FILES.read(str(project), "huge")


async def test_what_changed_since_the_last_commit_comes_with_the_content(repository: Path) -> None:
    (repository / "src/deep/notes.md").write_text("hello\nchanged\n")
    content = await FILES.read(str(repository / "src"), "deep/notes.md")
    assert content.patch is not None
    assert content.patch.hunks[0].lines == (" hello", "-Hello again hello", "+changed")
    assert content.diff is not None
    assert "-Hello again hello\n+changed\n" in content.diff
    unchanged = await FILES.read(str(repository), "README.md")
    assert (unchanged.diff, unchanged.patch) == (None, None)


# --- lists ------------------------------------------------------------------------------------------------------


async def test_a_list_has_directories_first_and_says_what_is_ignored(repository: Path) -> None:
    (repository / "inside").symlink_to("src")
    (repository / "outside").symlink_to("/etc")
    os.mkfifo(repository / "pipe")
    nodes = await FILES.list(str(repository), "")
    assert [(node.path, node.ignored) for node in nodes] == [
        (".git/", False),
        ("build/", True),
        ("inside/", False),
        ("src/", False),
        (".gitignore", False),
        ("README.md", False),
        ("x.log", True),
    ]
    assert [node.path for node in await FILES.list(str(repository), "src")] == ["src/deep/", "src/main.py"]
    assert (await FILES.list(str(repository), "src"))[0].absolute == str(repository / "src/deep")
    with pytest.raises(Invalid):
        await FILES.list(str(repository), "README.md")


async def test_a_list_is_bounded(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "ENTRIES_MAX", 50)
    for number in range(200):
        (project / f"src/{number:04}").touch()
    nodes = await FILES.list(str(project), "src")
    assert [node.name for node in nodes] == ["deep", *(f"{number:04}" for number in range(49))]


@pytest.mark.slow
async def test_a_directory_of_100_000_entries_is_listed_and_searched_in_time(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SECONDS_MAX", 120)  # what it costs is looked at, not how busy the machine is
    for number in range(100_000):
        os.close(os.open(project / f"src/{number:06}", os.O_CREAT | os.O_WRONLY))
    started = time.process_time()
    assert len(await FILES.list(str(project), "src")) == files_module.ENTRIES_MAX
    assert await FILES.find_files(str(project), "099999") == ("src/099999",)
    assert time.process_time() - started < 10


# --- finding files ----------------------------------------------------------------------------------------------


async def test_the_closest_name_comes_first(project: Path) -> None:
    (project / "src/main").mkdir()
    (project / "src/main/domain.py").touch()
    found = await FILES.find_files(str(project), "main")
    assert found == ("src/main/", "src/main.py", "src/main/domain.py")
    assert await FILES.find_files(str(project), "main", type="directory") == ("src/main/",)
    assert await FILES.find_files(str(project), "main", dirs=False, limit=1) == ("src/main.py",)
    assert await FILES.find_files(str(project), "smp", type="file") == ("src/main.py", "src/main/domain.py")
    assert await FILES.find_files(str(project), "zzz") == ()
    assert (await FILES.find_files(str(project), ""))[0] == "src/"


async def test_ignored_and_deleted_files_are_not_found_but_new_ones_are(repository: Path) -> None:
    (repository / "README.md").unlink()
    (repository / "new.md").touch()
    found = await FILES.find_files(str(repository), "", limit=200)
    assert set(found) == {"src/", "src/deep/", "new.md", "src/main.py", "src/deep/notes.md", ".gitignore"}


async def test_without_git_everything_but_the_repository_itself_is_found(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "git")
    found = await FILES.find_files(str(repository), "", limit=200)
    assert "x.log" in found
    assert not [path for path in found if path.startswith(".git/")]


async def test_names_that_are_no_text_are_left_out(project: Path) -> None:
    Path(os.fsdecode(os.fsencode(project) + b"/bad\xff")).touch()
    assert await FILES.find_files(str(project), "bad") == ()
    assert "bad" not in {node.name[:3] for node in await FILES.list(str(project), "")}


@pytest.mark.parametrize("limit", [0, -1, 201])
async def test_a_limit_out_of_range_is_refused(project: Path, limit: int) -> None:
    with pytest.raises(Invalid):
        await FILES.find_files(str(project), "a", limit=limit)


# --- finding text -----------------------------------------------------------------------------------------------


async def test_text_is_found_with_its_place_in_bytes(project: Path, searcher: str) -> None:
    (match,) = await FILES.find_text(str(project), "w.rld")
    assert (match.path.text, match.lines.text) == ("src/main.py", "print('héllo wörld')\n")
    assert (match.line_number, match.absolute_offset) == (2, 10)
    assert [(found.match.text, found.start, found.end) for found in match.submatches] == [("wörld", 14, 20)]


async def test_all_matches_of_a_line_are_told(project: Path, searcher: str) -> None:
    found = await FILES.find_text(str(project), "[Hh]ello")
    assert {(match.path.text, match.line_number, len(match.submatches)) for match in found} == {
        ("README.md", 1, 1),
        ("src/deep/notes.md", 1, 1),
        ("src/deep/notes.md", 2, 2),
    }


async def test_ignored_binary_linked_and_special_files_are_not_searched(repository: Path, searcher: str) -> None:
    (repository / "b.bin").write_bytes(b"hello\0hello")
    (repository / "link.md").symlink_to("README.md")
    (repository / "out").symlink_to("/etc")
    os.mkfifo(repository / "pipe")
    (repository / ".hidden").write_text("hello hidden\n")
    async with asyncio.timeout(60):
        found = await FILES.find_text(str(repository), "hello")
    assert {match.path.text for match in found} == {"README.md", "src/deep/notes.md", ".hidden"}


@pytest.mark.parametrize("pattern", ["[", "(?P<n", "*", "", "x" * 2000, "a\0"])
async def test_what_is_no_pattern_is_refused_with_a_reason(project: Path, searcher: str, pattern: str) -> None:
    with pytest.raises(Invalid) as refused:
        await FILES.find_text(str(project), pattern)
    assert refused.value.field == "pattern"


async def test_a_pattern_is_never_an_option(project: Path, searcher: str) -> None:
    (project / "o.txt").write_text("use --files here\n")
    assert [match.path.text for match in await FILES.find_text(str(project), "--files")] == ["o.txt"]


async def test_matches_and_lines_are_bounded(project: Path, searcher: str) -> None:
    (project / "many").write_text("needle\n" * 5000)
    assert len(await FILES.find_text(str(project), "needle")) == search.MATCHES_MAX
    (project / "many").write_text("x" * 100_000 + "needle2\n")
    (match,) = await FILES.find_text(str(project), "needle2")
    assert len(match.lines.text) == 2000
    assert match.submatches[0].start == 100_000


async def test_a_regular_expression_that_explodes_is_stopped_and_its_process_is_dead(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "rg")
    monkeypatch.setattr(search, "SECONDS_MAX", 2.5)
    (project / "evil").write_text("a" * 40 + "!\n")
    with pytest.raises(Unavailable):
        await FILES.find_text(str(project), "(a+)+$")
    assert workers() == []


async def test_a_cancelled_search_leaves_no_process(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "rg")
    (project / "evil").write_text("a" * 40 + "!\n")
    searching = asyncio.create_task(FILES.find_text(str(project), "(a+)+$"))
    async with asyncio.timeout(60):
        while not workers():  # noqa: ASYNC110 - a process is nothing to subscribe to
            await asyncio.sleep(0.02)
    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching
    assert workers() == []


def workers() -> list[str]:
    """Search workers that this process started and that are alive."""
    listed = subprocess.run(
        ["ps", "-axww", "-o", "ppid=", "-o", "stat=", "-o", "args="], capture_output=True, text=True
    ).stdout
    found = [line.split(maxsplit=2) for line in listed.splitlines() if "search_worker" in line]
    return [args for parent, state, args in found if parent == str(os.getpid()) and not state.startswith("Z")]


# --- status -----------------------------------------------------------------------------------------------------


async def test_status_names_the_changed_files_below_the_directory(repository: Path) -> None:
    (repository / "README.md").write_text("changed\n")
    (repository / "src/deep/notes.md").unlink()
    (repository / "src/new.py").write_text("a\nb\n")
    found = await FILES.status(str(repository / "src"))
    assert [(change.path, change.added, change.removed, change.status) for change in found] == [
        ("deep/notes.md", 0, 2, "deleted"),
        ("new.py", 2, 0, "added"),
    ]


async def test_outside_of_git_nothing_has_a_status(project: Path) -> None:
    assert await FILES.status(str(project)) == ()
