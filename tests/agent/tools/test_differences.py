"""Diffs are right: git applies them, and they are short where the change is."""

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.agent.tools.differences import PATCH_BYTES_MAX, difference

texts = st.lists(st.sampled_from(["a\n", "b\n", "c\r\n", "\n", "d"]), max_size=30).map(
    lambda lines: "".join(lines).encode()
)


@given(texts.filter(bool), texts.filter(bool))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=60
)
def test_git_applies_the_diff(tmp_path: Path, before: bytes, after: bytes) -> None:
    """Whatever the two contents are, the diff turns the one into the other."""
    found = difference("f", before, after)
    if before == after:
        assert (found.patch, found.additions, found.deletions) == ("", 0, 0)
        return
    (tmp_path / "f").write_bytes(before)

    applied = subprocess.run(
        ["git", "apply", "-p0", "--unidiff-zero", "--whitespace=nowarn", "-"],
        input=found.patch.encode(),
        cwd=tmp_path,
        capture_output=True,
        env={"PATH": "/usr/bin:/bin", "GIT_DIR": str(tmp_path / "none")},
        check=False,
    )

    assert applied.stderr == b""
    assert (tmp_path / "f").read_bytes() == after
    body = found.patch.split("+++ f\n", 1)[1].splitlines()
    assert found.additions == sum(line.startswith("+") for line in body)
    assert found.deletions == sum(line.startswith("-") for line in body)


def test_the_form_is_the_one_clients_know() -> None:
    assert difference("/p/note.txt", b"line one\n", b"line 1!\n").patch == (
        "Index: /p/note.txt\n"
        "===================================================================\n"
        "--- /p/note.txt\n+++ /p/note.txt\n@@ -1,1 +1,1 @@\n-line one\n+line 1!\n"
    )
    assert "@@ -0,0 +1,1 @@\n+x\n\\ No newline at end of file\n" in difference("f", None, b"x").patch
    assert "@@ -1,1 +0,0 @@\n-x\n" in difference("f", b"x\n", None).patch


def test_only_lines_near_a_change_are_shown() -> None:
    before = [f"{n}\n" for n in range(100)]
    after = [*before[:20], "new\n", *before[20:80], *before[81:]]

    patch = difference("f", "".join(before).encode(), "".join(after).encode()).patch

    assert [line for line in patch.splitlines() if line.startswith("@@")] == ["@@ -18,6 +18,7 @@", "@@ -78,7 +79,6 @@"]


@pytest.mark.parametrize("kind", ["different", "alike"])
def test_two_long_texts_are_compared_in_bounded_time_and_space(kind: str) -> None:
    before = "".join(f"{n if kind == 'different' else n % 3}\n" for n in range(200_000)).encode()
    after = "".join(f"{n + 0.5 if kind == 'different' else (n * 2) % 5}\n" for n in range(200_000)).encode()

    start = time.thread_time()
    found = difference("f", before, after)

    assert time.thread_time() - start < 10
    assert found.patch == ""
    assert found.additions > 100_000
    assert len(before) > PATCH_BYTES_MAX
