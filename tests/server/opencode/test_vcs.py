"""`/vcs` and `/project/git/init` over HTTP."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.server.harness import Server


def git(directory: Path, *arguments: str) -> None:
    identity = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=directory, env=os.environ | identity, check=True, capture_output=True)


@pytest.fixture
def work(server: Server) -> Path:
    """The server's directory as a work tree: a commit, a change, a new file."""
    directory = server.directory
    git(directory, "init", "-q", "-b", "main")
    (directory / "a.txt").write_text("one\n")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "first")
    (directory / "a.txt").write_text("two\n")
    (directory / "new.txt").write_text("new\n")
    return directory


async def test_branch_status_and_diff(server: Server, work: Path) -> None:
    assert (await server.api.get("/vcs")).json() == {"branch": "main", "default_branch": "main"}
    assert (await server.api.get("/vcs/status")).json() == [
        {"file": "a.txt", "additions": 1, "deletions": 1, "status": "modified"},
        {"file": "new.txt", "additions": 1, "deletions": 0, "status": "added"},
    ]
    changed, new = (await server.api.get("/vcs/diff", params={"mode": "git"})).json()
    assert changed["patch"].startswith("diff --git a/a.txt b/a.txt\n")
    assert changed["patch"].endswith("@@ -1 +1 @@\n-one\n+two\n")
    assert (new["file"], new["status"], new["additions"], new["deletions"]) == ("new.txt", "added", 1, 0)
    assert (await server.api.get("/vcs/diff", params={"mode": "branch"})).json() == []


async def test_a_raw_diff_can_be_applied(server: Server, work: Path) -> None:
    raw = await server.api.get("/vcs/diff/raw")
    assert raw.headers["content-type"] == "text/x-diff; charset=utf-8"
    git(work, "checkout", "-q", "a.txt")
    (work / "new.txt").unlink()
    applied = await server.api.post("/vcs/apply", json={"patch": raw.text})
    assert (applied.status_code, applied.json()) == (200, {"applied": True})
    assert (work / "a.txt").read_text() == "two\n"
    assert (work / "new.txt").read_text() == "new\n"


async def test_a_patch_that_does_not_fit_is_refused_with_a_reason(server: Server, work: Path) -> None:
    for patch in ("garbage", "", "--- a/a.txt\n+++ b/a.txt\n@@ -1 +1 @@\n-none\n+x\n"):
        answer = await server.api.post("/vcs/apply", json={"patch": patch})
        assert answer.status_code == 400
        assert answer.json()["name"] == "VcsApplyError"
        assert answer.json()["data"]["reason"] == "not-clean"
    assert (work / "a.txt").read_text() == "two\n"


async def test_outside_of_git_there_is_nothing_to_report(server: Server) -> None:
    assert (await server.api.get("/vcs")).json() == {}
    assert (await server.api.get("/vcs/status")).json() == []
    assert (await server.api.get("/vcs/diff/raw")).text == ""
    answer = await server.api.post("/vcs/apply", json={"patch": "x"})
    assert (answer.status_code, answer.json()["data"]["reason"]) == (400, "non-git")


async def test_a_directory_becomes_a_repository_and_its_project_says_so(server: Server) -> None:
    assert (await server.api.get("/project/current")).json().get("vcs") is None
    for _ in range(2):
        project = (await server.api.post("/project/git/init")).json()
        assert (project["vcs"], project["worktree"]) == ("git", str(server.directory.resolve()))
        current = (await server.api.get("/project/current")).json()
        assert current | {"time": project["time"]} == project


async def test_what_is_wrong_is_answered_with_a_reason(server: Server, work: Path) -> None:
    for query in ({}, {"mode": "x"}, {"mode": "git", "context": "-1"}, {"mode": "git", "context": "x"}):
        answer = await server.api.get("/vcs/diff", params=query)
        assert answer.status_code == 400
        assert answer.json()["data"]["message"]
    for body in ({}, {"patch": 1}, []):
        assert (await server.api.post("/vcs/apply", json=body)).status_code == 400
