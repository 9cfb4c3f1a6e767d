"""`PATCH /config` and `/global/config`: settings change, everything else in the files stays."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import Server

SECRET = "sk-very-secret-value"
FILE = """\
{
  // who answers
  "model": "demo/demo-1",
  "provider": {
    "p": { "options": { "apiKey": "sk-very-secret-value", "baseURL": "http://127.0.0.1:1" }, "models": { "m": {} } },
  },
}
"""


@pytest.fixture
async def plain(tmp_path: Path) -> AsyncIterator[Server]:
    """A server whose configuration is in files only: the user's in `home`, the project's in `project`."""
    project = tmp_path / "project"
    project.mkdir()
    async with Server(project, home=tmp_path / "home", environ={}) as server:
        yield server


def own(server: Server, name: str = "opencode.jsonc") -> Path:
    return server.settings.home / ".config" / "opencode" / name


async def patch(server: Server, body: Any, path: str = "/config") -> dict[str, Any]:
    return (await server.api.patch(path, json=body)).raise_for_status().json()


async def test_a_setting_goes_into_the_file_of_the_directory_and_holds_at_once(plain: Server):
    answered = await patch(plain, {"username": "somebody", "agent": {"build": {"steps": 3}}})

    assert answered["username"] == "somebody"
    assert answered == (await plain.api.get("/config")).json()
    assert json.loads((plain.directory / "opencode.json").read_text()) == {
        "$schema": "https://opencode.ai/config.json",
        "username": "somebody",
        "agent": {"build": {"steps": 3}},
    }
    agents = (await plain.api.get("/agent")).json()
    assert next(agent for agent in agents if agent["name"] == "build")["steps"] == 3


async def test_comments_and_what_is_not_named_stay(plain: Server):
    file = plain.directory / "opencode.jsonc"
    file.write_text(FILE)
    file.chmod(0o600)
    await patch(plain, {"provider": {"p": {"name": "P"}}, "share": "manual"})

    assert file.read_text() == FILE.replace('"m": {} } },', '"m": {} }, "name": "P" },').replace(
        "  },\n}", '  },\n  "share": "manual",\n}'
    )
    assert file.stat().st_mode & 0o777 == 0o600
    assert os.listdir(plain.directory) == ["opencode.jsonc"]


async def test_null_takes_a_setting_out(plain: Server):
    await patch(plain, {"username": "somebody", "share": "manual"})
    await patch(plain, {"username": None, "layout": None})

    assert json.loads((plain.directory / "opencode.json").read_text()).keys() == {"$schema", "share"}


async def test_the_whole_configuration_may_be_sent_back_and_changes_nothing(plain: Server):
    file = plain.directory / "opencode.jsonc"
    file.write_text(FILE)
    answered = (await plain.api.get("/config")).json()
    again = await patch(plain, {**answered, "username": "somebody"})

    assert SECRET not in json.dumps(again)
    assert file.read_text() == FILE.replace("  },\n}", '  },\n  "username": "somebody",\n}')


async def test_the_file_that_counts_most_is_the_one_that_changes(plain: Server):
    for name in ("opencode.json", "opencode.jsonc", ".opencode/opencode.json"):
        (plain.directory / name).parent.mkdir(exist_ok=True)
        (plain.directory / name).write_text('{"username": "x"}')
    answered = await patch(plain, {"username": "y"})

    assert answered["username"] == "y"
    assert (plain.directory / ".opencode/opencode.json").read_text() == '{"username": "y"}'
    assert (plain.directory / "opencode.jsonc").read_text() == '{"username": "x"}'


async def test_a_link_to_a_file_stays_one(plain: Server, tmp_path: Path):
    real = tmp_path / "real.json"
    real.write_text("{}")
    (plain.directory / "opencode.json").symlink_to(real)
    await patch(plain, {"username": "y"})

    assert (plain.directory / "opencode.json").is_symlink()
    assert json.loads(real.read_text()) == {"username": "y"}


async def test_the_users_own_settings_hold_everywhere(plain: Server, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    assert "username" not in (await plain.api.get("/global/config")).json()
    answered = await patch(plain, {"username": "everywhere"}, "/global/config")

    assert answered["username"] == "everywhere"
    assert answered == (await plain.api.get("/global/config")).json()
    assert json.loads(own(plain).read_text())["username"] == "everywhere"
    assert (await plain.api.get("/config", params={"directory": str(other)})).json()["username"] == "everywhere"


async def test_who_follows_the_directory_is_told_when_something_changed_and_only_then(plain: Server):
    await plain.listen()
    async with plain.events() as events:
        await events.next()
        await patch(plain, {"username": "a"})
        await patch(plain, {"username": "a"})
        await patch(plain, {"username": "b"}, "/global/config")
        told = [await events.next(), await events.next()]

    assert [frame.type for frame in told] == ["server.instance.disposed", "global.disposed"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": 5}, "username"),
        ({"agent": {"build": {"steps": "many"}}}, "agent.build.steps"),
        ({"provider": {"p": {"models": {"m": {"limit": {}}}}}}, "provider.p.models.m.limit"),
        ({"share": "sometimes"}, "share"),
        ({"permission": {"bash": {"*": "perhaps"}}}, "permission"),
        ({"model": {}}, "model"),
        ({"agent": {"build": {"model": "no slash"}}}, "agent.build.model"),
        ({"agent": {name: {"disable": True} for name in ("build", "plan")}}, "agent"),
        ({"provider": {"p": {"options": {"baseURL": 5}}}}, "provider.p.options.baseURL"),
        ({"command": {"c": {"template": "{file:./none}"}}}, "command.c.template"),
        ([], None),
        ("text", None),
        (None, None),
    ],
)
@pytest.mark.parametrize("path", ["/config", "/global/config"])
async def test_a_patch_that_would_not_do_is_refused_and_nothing_is_written(
    plain: Server, path: str, body: Any, field: str | None
):
    answer = await plain.api.patch(path, json=body)

    assert answer.status_code == 400, answer.text
    data = answer.json()["data"]
    assert data["message"]
    if field is not None:
        assert data["field"].startswith(field)
    assert list(plain.directory.iterdir()) == []
    assert not own(plain).exists()


async def test_a_file_that_is_broken_already_is_left_alone(plain: Server):
    own(plain).parent.mkdir(parents=True)
    own(plain).write_text('{"username": \n')
    answer = await plain.api.patch("/global/config", json={"username": "x"})

    assert answer.status_code == 400
    assert f"{own(plain)}:2:1" in answer.json()["data"]["message"]
    assert own(plain).read_text() == '{"username": \n'


async def test_a_file_that_cannot_be_written_is_a_conflict(plain: Server):
    own(plain).parent.parent.mkdir(parents=True)
    own(plain).parent.write_text("not a directory")
    answer = await plain.api.patch("/global/config", json={"username": "x"})

    assert answer.status_code == 409
    assert "cannot be written" in answer.json()["message"]


async def test_settings_that_nobody_knows_are_left_out(plain: Server):
    await patch(plain, {"future": {"a": 1}})

    assert not (plain.directory / "opencode.json").exists()


async def test_a_project_whose_files_do_not_count_is_not_written_to(tmp_path: Path):
    async with Server(tmp_path, environ={"OPENCODE_DISABLE_PROJECT_CONFIG": "1"}) as server:
        answer = await server.api.patch("/config", json={"username": "x"})

    assert answer.status_code == 409
    assert not (tmp_path / "opencode.json").exists()


async def test_a_secret_that_is_set_is_not_answered(plain: Server):
    body = {"provider": {"p": {"options": {"apiKey": SECRET}, "models": {"m": {}}}}}
    for path in ("/config", "/global/config"):
        answer = await plain.api.patch(path, json=body)
        assert answer.status_code == 200
        assert SECRET not in answer.text
    assert SECRET in (plain.directory / "opencode.json").read_text()
