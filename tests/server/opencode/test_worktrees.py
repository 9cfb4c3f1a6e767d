"""`/experimental/worktree`: real ones, made by git."""

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.testing.scripted_provider import Stall, text
from tests.server.harness import Server

ROUTE = "/experimental/worktree"


def git(directory: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
async def repository(tmp_path: Path) -> AsyncIterator[Server]:
    """A server in a work tree with one commit, on branch `main`."""
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "--quiet", "--initial-branch=main")
    (project / "file").write_text("one\n")
    git(project, "add", "file")
    git(project, "commit", "--quiet", "-m", "first")
    async with Server(project, data=tmp_path / "data", home=tmp_path) as server:
        yield server


async def create(server: Server, **body: Any) -> dict[str, Any]:
    return (await server.api.post(ROUTE, json=body)).raise_for_status().json()


async def remove(server: Server, directory: str) -> httpx.Response:
    return await server.api.request("DELETE", ROUTE, json={"directory": directory})


async def test_a_work_tree_is_made_on_a_branch_of_its_own_and_sessions_work_in_it(repository: Server, tmp_path: Path):
    made = await create(repository, name="Feature: X!")
    place = Path(made["directory"])

    assert (made["name"], made["branch"]) == ("feature-x", "opencode/feature-x")
    assert place.is_relative_to(tmp_path / "data")
    assert (place / "file").read_text() == "one\n"
    assert git(place, "branch", "--show-current") == "opencode/feature-x"
    assert (await repository.api.get(ROUTE)).json() == [made["directory"]]
    project = (await repository.api.get("/project/current", params={"directory": made["directory"]})).json()
    assert project["id"] == (await repository.api.get("/project/current")).json()["id"]
    assert (await repository.api.get(ROUTE, params={"directory": made["directory"]})).json() == [made["directory"]]


async def test_names_are_made_up_and_made_different(repository: Server):
    one, two = await create(repository, name="same"), await create(repository, name="same")
    three = (await repository.api.post(ROUTE)).json()

    assert one["name"] == "same"
    assert two["name"].startswith("same-")
    assert len({one["directory"], two["directory"], three["directory"]}) == 3


async def test_what_is_removed_is_gone_and_may_be_removed_again(repository: Server):
    made = await create(repository, name="x")
    (Path(made["directory"]) / "new").write_text("not committed")

    for _ in range(2):
        assert (await remove(repository, made["directory"])).json() is True
    assert not os.path.exists(made["directory"])
    assert (await repository.api.get(ROUTE)).json() == []
    assert git(repository.directory, "branch", "--format=%(refname:short)") == "main"


async def test_a_branch_with_commits_that_are_nowhere_else_outlives_its_work_tree(repository: Server):
    made = await create(repository, name="x")
    git(Path(made["directory"]), "commit", "--quiet", "--allow-empty", "-m", "work")
    await remove(repository, made["directory"])

    assert "opencode/x" in git(repository.directory, "branch", "--format=%(refname:short)")


async def test_a_work_tree_is_set_back_to_the_default_branch(repository: Server):
    made = await create(repository, name="x")
    place = Path(made["directory"])
    (place / "file").write_text("changed")
    (place / "new").write_text("new")
    git(repository.directory, "commit", "--quiet", "--allow-empty", "-m", "second")
    answer = await repository.api.post(f"{ROUTE}/reset", json={"directory": made["directory"]})

    assert answer.json() is True
    assert sorted(os.listdir(place)) == [".git", "file"]
    assert (place / "file").read_text() == "one\n"
    assert git(place, "rev-parse", "HEAD") == git(repository.directory, "rev-parse", "main")


async def test_what_is_none_of_ours_is_left_alone(repository: Server, tmp_path: Path):
    made = await create(repository, name="x")
    (tmp_path / "link").symlink_to(repository.directory)
    inside = Path(made["directory"]).parent
    git(repository.directory, "worktree", "add", "--quiet", str(tmp_path / "theirs"))
    for directory in (
        str(repository.directory),
        str(tmp_path / "theirs"),
        str(tmp_path / "link"),
        str(inside),
        f"{made['directory']}/..",
        f"{made['directory']}/../../..",
        "relative",
        "/",
        "",
    ):
        for answer in (
            await remove(repository, directory),
            await repository.api.post(f"{ROUTE}/reset", json={"directory": directory}),
        ):
            assert answer.status_code == 400, directory
            assert answer.json()["name"] in ("WorktreeRemoveFailedError", "WorktreeResetFailedError")
    assert (await repository.api.post(f"{ROUTE}/reset", json={"directory": str(inside / "none")})).status_code == 400
    assert (repository.directory / "file").exists()
    assert (tmp_path / "theirs" / "file").exists()
    assert os.path.exists(made["directory"])


async def test_a_work_tree_in_which_a_turn_works_is_left_alone(repository: Server):
    made = await create(repository, name="x")
    stall = Stall()
    repository.provider.add([*text("working"), stall])
    session = (
        await repository.api.post("/session", params={"directory": made["directory"]}, json={"title": "t"})
    ).json()
    body = {"parts": [{"type": "text", "text": "go"}]}
    await repository.api.post(f"/session/{session['id']}/prompt_async", json=body)
    await repository.recorded("message.part.delta")

    assert (await remove(repository, made["directory"])).status_code == 409
    assert (await repository.api.post(f"{ROUTE}/reset", json={"directory": made["directory"]})).status_code == 409
    assert os.path.exists(made["directory"])
    await repository.api.post(f"/session/{session['id']}/abort")


async def test_a_start_command_runs_in_the_work_tree_and_its_end_is_told(repository: Server):
    await repository.listen()
    async with repository.events() as events:
        await events.next()
        made = await create(repository, name="good", startCommand="echo started > here")
        ready = (await events.until("worktree.ready"))[-1].json["properties"]
        await create(repository, name="bad", startCommand="exit 3")
        failed = (await events.until("worktree.failed"))[-1].json["properties"]

    assert ready == {"name": "good", "branch": "opencode/good"}
    assert (Path(made["directory"]) / "here").read_text() == "started\n"
    assert "status 3" in failed["message"]


async def test_outside_of_git_there_are_none(server: Server):
    assert (await server.api.get(ROUTE)).json() == []
    for answer in (await server.api.post(ROUTE), await remove(server, str(server.directory))):
        assert (answer.status_code, answer.json()["name"]) == (400, "WorktreeNotGitError")


@pytest.mark.parametrize("body", [[], {"name": 5}, {"startCommand": ["x"]}, {"name": "x" * 20_000}, {"name": "a\0b"}])
async def test_a_body_of_the_wrong_shape_is_refused(repository: Server, body: Any):
    assert (await repository.api.post(ROUTE, json=body)).status_code == 400
    assert (await repository.api.request("DELETE", ROUTE, json={})).status_code == 400
    assert (await repository.api.get(ROUTE)).json() == []


async def test_the_instance_of_a_removed_work_tree_is_gone_however_it_is_spelled(repository: Server):
    """Its MCP and language servers ran on."""
    made = await create(repository, name="same")
    await repository.api.get("/path", params={"directory": made["directory"]})
    instances = repository.application.services.instances
    told: list[str] = []
    repository.application.services.projects.announce = lambda directory, kind, properties: told.append(kind)
    assert instances.opened(made["directory"]) is not None
    assert (await remove(repository, made["directory"] + "/.")).status_code == 200

    assert instances.opened(made["directory"]) is None
    assert told == ["project.directories.updated"]
