"""File name patterns match what ripgrep and git match."""

import contextlib
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.agent.globs import Glob, literal_start


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("*.py", ["a.py", "x/y/a.py", ".py"], ["a.pyc", "a.py/b"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "x/src/a.py"]),
        ("/*.py", ["a.py"], ["x/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py"]),
        ("**/test_*", ["test_a", "x/test_a"], ["x/atest_a"]),
        ("src/**", ["src/a", "src/x/a"], ["a"]),
        ("*.{ts,tsx}", ["a.ts", "x/a.tsx"], ["a.tsy"]),
        ("{src,lib}/**/*.c", ["lib/x/a.c", "src/a.c"], ["a.c"]),
        ("[a-c]?.t", ["ax.t"], ["dx.t", "a/.t"]),
        ("[!a].t", ["b.t"], ["a.t"]),
        (r"a\*b", ["a*b"], ["axb"]),
        ("a+b(c)", ["a+b(c)"], ["aab(c)"]),
        ("ä*", ["äx"], ["ax"]),
        ("./a/b", ["a/b"], ["x/a/b"]),
    ],
)
def test_what_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    glob = Glob(pattern)

    assert [name for name in yes if not glob.matches(name.encode())] == []
    assert [name for name in no if glob.matches(name.encode())] == []


PART = st.just("**") | st.text("ab*?", min_size=1, max_size=4).filter(lambda part: "**" not in part)
"""`**` stands alone: beside other characters (`a**/?`) git 2.39 takes it for directories in spite of its manual, which says
that "other consecutive asterisks are considered regular asterisks" (gitignore, "Pattern format")."""


@given(st.lists(PART, min_size=1, max_size=4), st.booleans())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=60
)
def test_git_agrees(tmp_path: Path, parts: list[str], anchored: bool) -> None:
    """For any pattern, what it matches is what git ignores with it."""
    pattern = "/" * anchored + "/".join(parts)
    names = ["a", "b", "ab", "a/b", "a/a/b", "b/a", "aa/b", "ab/ab/a"]
    listed = subprocess.run(
        ["git", "check-ignore", "--no-index", "-z", "--stdin"],
        input="\0".join(names).encode() + b"\0",
        cwd=_repository(tmp_path, pattern),
        capture_output=True,
        check=False,
    )
    ignored = {name for name in listed.stdout.decode().split("\0") if name}
    glob = Glob(pattern)

    # git also ignores what is in a directory that matches
    def in_match(name: str) -> bool:
        parts = name.split("/")
        return any(glob.matches("/".join(parts[:n]).encode()) for n in range(1, len(parts) + 1))

    assert {name for name in names if in_match(name)} == ignored


def _repository(path: Path, pattern: str) -> Path:
    if not (path / ".git").exists():
        subprocess.run(["git", "init", "-q", path], check=True)
    (path / ".git" / "info").mkdir(exist_ok=True)
    (path / ".git" / "info" / "exclude").write_text(f"{pattern}\n")
    return path


@given(st.text("ab*?[]{},!\\/-^&|~", max_size=12), st.text("ab/-]", max_size=6))
def test_any_text_is_a_pattern_or_a_value_error(pattern: str, name: str) -> None:
    with contextlib.suppress(ValueError):
        Glob(pattern).matches(name.encode())


@pytest.mark.parametrize("pattern", ["*a" * 400 + "b", "**/" * 300 + "b", "{a,b}" * 100, "*" * 1000 + "b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    start = time.thread_time()  # what this thread computed, whatever else the machine does
    with contextlib.suppress(ValueError):
        assert not Glob(pattern).matches(b"a" * 255 + b"/a" * 1000)
    assert time.thread_time() - start < 5


def test_the_directories_a_pattern_begins_with() -> None:
    assert literal_start("*.py") == ("", "*.py")
    assert literal_start("src/a/*.py") == ("src/a", "/*.py")
    assert literal_start("src/**/x/*.py") == ("src", "/**/x/*.py")
    assert literal_start("/etc/*.conf") == ("/etc", "/*.conf")
    assert literal_start("/*") == ("/", "/*")
    assert literal_start("**/a") == ("", "/**/a")
    assert literal_start("../a") == ("..", "/a")
