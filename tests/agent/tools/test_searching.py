"""The tools `glob`, `grep` and `list` on real directories, without ripgrep and with a git work tree or none."""

import asyncio
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent import search, search_worker
from holdfast.agent.tools import Tool, ToolFailure
from holdfast.agent.tools.glob import Glob
from holdfast.agent.tools.grep import Grep
from holdfast.agent.tools.list import List
from tests.agent.tools.hosts import Session


@pytest.fixture(autouse=True)
def no_ripgrep(monkeypatch: pytest.MonkeyPatch) -> None:
    """On machines that have it, too. `tests/service/test_files.py` compares the two."""
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, *rest: None if name == "rg" else which(name, *rest))


@pytest.fixture(params=["git", "plain"])
def project(session: Session, request: pytest.FixtureRequest) -> Path:
    directory = session.context.directory
    if request.param == "git":
        subprocess.run(["git", "init", "-q", directory], check=True)
    return directory


def make(directory: Path, **files: str) -> None:
    for number, (name, content) in enumerate(files.items()):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        os.utime(path, (number, number))


# --- glob -------------------------------------------------------------------------------------------------------


async def test_glob_finds_files_changed_last_first(session: Session, project: Path) -> None:
    make(project, **{"a.py": "", "src/b.py": "", "src/c.txt": "", "src/x/d.py": ""})

    result = await session.call(Glob(), pattern="*.py")

    assert result.output.split("\n") == [str(project / name) for name in ("src/x/d.py", "src/b.py", "a.py")]
    assert result.metadata == {"count": 3, "truncated": False}
    assert result.title == "."
    assert (await session.call(Glob(), pattern="src/*.py")).output == str(project / "src/b.py")
    assert (await session.call(Glob(), pattern="*.py", path="src/x")).output == str(project / "src/x/d.py")
    assert (await session.call(Glob(), pattern=f"{project}/*.py")).output == str(project / "a.py")
    assert (await session.call(Glob(), pattern="src/c.txt")).output == str(project / "src/c.txt")
    assert (await session.call(Glob(), pattern="*.rs")).output == "No files found."


async def test_glob_says_when_there_are_more(session: Session, project: Path) -> None:
    make(project, **{f"{n}.txt": "" for n in range(130)})

    result = await session.call(Glob(), pattern="*.txt")

    assert result.metadata == {"count": 100, "truncated": True}
    assert result.output.startswith(str(project / "129.txt"))
    assert "(130 files match; these are the 100 changed last." in result.output


async def test_a_place_outside_of_the_project_is_asked_for_even_in_a_pattern(session: Session, tmp_path: Path) -> None:
    make(tmp_path, **{"other/a.txt": ""})
    for tool, input in (
        (Glob(), {"pattern": "../other/*.txt"}),
        (Glob(), {"pattern": "*.txt", "path": str(tmp_path / "other")}),
        (Grep(), {"pattern": "x", "path": "../other"}),
        (List(), {"path": "../other"}),
    ):
        external, ask = await tool.asks(input, session.next_context())
        assert (external.permission, external.patterns) == ("external_directory", (f"{tmp_path}/other/*",))
        assert (ask.permission, ask.always) == (tool.id, ("*",))


@pytest.mark.parametrize(
    ("tool", "input", "complaint"),
    [
        (Glob(), {"pattern": "["}, "without ]"),
        (Glob(), {"pattern": "*", "path": "none"}, "does not exist"),
        (Glob(), {"pattern": "none/*"}, "does not exist"),
        (Grep(), {"pattern": "x", "path": "file"}, "is a file, not a directory"),
        (Grep(), {"pattern": "("}, "Not a regular expression"),
        (Grep(), {"pattern": "x", "include": "{a"}, "without }"),
        (List(), {"path": "none"}, "does not exist"),
        (List(), {"ignore": ["["]}, "without ]"),
    ],
)
async def test_what_cannot_be_is_said(session: Session, tool: Tool, input: dict[str, Any], complaint: str) -> None:
    make(session.context.directory, file="")

    with pytest.raises(ToolFailure, match=complaint):
        await session.call(tool, **input)


async def test_a_directory_that_git_ignores_is_searched_when_it_is_named(session: Session, project: Path) -> None:
    make(project, **{".gitignore": "node_modules\n", "node_modules/lib/a.js": "needle\n", "b.js": "needle\n"})
    outer = project.parent
    assert outer.exists()

    inside = await session.call(Grep(), pattern="needle", path="node_modules/lib")

    assert f"{project}/node_modules/lib/a.js:\n  1: needle" in inside.output
    assert (await session.call(Glob(), pattern="*.js", path="node_modules")).metadata["count"] == 1


# --- grep -------------------------------------------------------------------------------------------------------


async def test_grep_shows_lines_by_file(session: Session, project: Path) -> None:
    make(project, **{"b.py": "x\ndef b():\n", "a/a.py": "def a():\n\n\ndef c():\n", "c.txt": "def no\n"})

    result = await session.call(Grep(), pattern=r"def \w", include="*.py")

    assert result.output == (
        f"Found 3 matching lines.\n\n{project}/a/a.py:\n  1: def a():\n  4: def c():\n\n{project}/b.py:\n  2: def b():"
    )
    assert result.title == r"def \w"
    assert result.metadata == {"matches": 3, "truncated": False}
    assert (await session.call(Grep(), pattern="nowhere")).output == "Nothing found."


async def test_grep_says_when_there_are_more(session: Session, project: Path) -> None:
    make(project, **{"a.txt": "needle\n" * 101})

    result = await session.call(Grep(), pattern="needle")

    assert result.metadata == {"matches": 100, "truncated": True}
    assert "There are more than 100" in result.output


async def test_grep_cuts_long_lines_and_keeps_to_the_limit(session: Session, project: Path) -> None:
    make(project, **{f"{n}.txt": "needle" + "€" * 1000 + "\n" for n in range(90)})

    result = await session.call(Grep(), pattern="needle")

    assert len(result.output.encode()) < 60_000
    assert result.metadata["truncated"] is True
    assert Path(result.metadata["outputPath"]).read_text().startswith("Found 90 matching lines.")


async def test_grep_does_not_tell_secrets(session: Session, project: Path) -> None:
    make(
        project,
        **{
            ".env": "KEY=1\n",
            "x/prod.env": "KEY=2\n",
            ".env.local": "KEY=3\n",
            ".env.example": "KEY=\n",
            "env.py": "KEY\n",
        },
    )

    result = await session.call(Grep(), pattern="KEY")

    assert result.metadata["matches"] == 2
    assert ".env.example:" in result.output
    assert "env.py:" in result.output


async def test_a_search_that_takes_too_long_is_told(
    session: Session, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(project, **{"a.txt": "a" * 40 + "!\n"})
    monkeypatch.setattr(search, "SECONDS_MAX", 2.5)

    with pytest.raises(ToolFailure, match=r"took longer .* Search in a smaller directory"):
        await session.call(Grep(), pattern="(a+)+$")


async def test_a_cancelled_search_leaves_no_process(
    session: Session, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(project, **{"a.txt": "a" * 40 + "!\n"})
    started: asyncio.Future[asyncio.subprocess.Process] = asyncio.get_running_loop().create_future()
    start = asyncio.create_subprocess_exec

    async def starting(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*argv, **options)
        if search_worker.__file__ in argv:
            started.set_result(process)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starting)
    searching = asyncio.create_task(session.call(Grep(), pattern="(a+)+$"))
    process = await started

    searching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await searching

    assert await process.wait() == -signal.SIGKILL


# --- list -------------------------------------------------------------------------------------------------------


async def test_list_shows_a_tree(session: Session, project: Path) -> None:
    make(project, **{"z.txt": "", "src/a/b.py": "", "src/a.py": "", "docs/x.md": "", "src/a/c/d.py": ""})

    result = await session.call(List(), ignore=["docs"])

    assert result.output == "\n".join(
        (f"{project}/", "  src/", "    a/", "      c/", "        d.py", "      b.py", "    a.py", "  z.txt")
    )
    assert result.metadata == {"count": 4, "truncated": False}
    assert result.title == "."
    assert "(There are no files.)" in (await session.call(List(), ignore=["*"])).output


async def test_list_shows_what_is_near_the_top_when_there_is_too_much(session: Session, project: Path) -> None:
    make(project, **{f"deep/{n}/file": "" for n in range(150)}, top="")

    result = await session.call(List())

    assert result.metadata == {"count": 100, "truncated": True}
    assert "\n  top\n" in result.output
    assert "(51 more files are not shown." in result.output
