"""`PATCH /project/{projectID}`: what users call their projects."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.bootstrap import open_application
from holdfast.core.errors import StorageError
from tests.server.harness import Server

DETAILS = {"name": "Mine", "icon": {"color": "red", "url": "data:,x"}, "commands": {"start": "make"}}


async def test_a_project_has_what_it_was_given_after_a_restart_too(tmp_path: Path):
    async with Server(tmp_path, data=tmp_path / "data") as server:
        await server.session()
        answered = (await server.api.patch("/project/global", json=DETAILS)).raise_for_status().json()
    async with Server(tmp_path, data=tmp_path / "data") as server:
        [listed] = (await server.api.get("/project")).json()

        assert listed == (await server.api.get("/project/current")).json()
    assert {key: listed[key] for key in DETAILS} == DETAILS
    assert listed == answered


async def test_what_is_left_out_stays_and_an_empty_text_takes_out(server: Server):
    await server.api.patch("/project/global", json=DETAILS)
    change = {"icon": {"color": ""}, "commands": {"start": ""}}
    changed = (await server.api.patch("/project/global", json=change)).json()

    assert changed["name"] == "Mine"
    assert changed["icon"] == {"url": "data:,x"}
    assert "commands" not in changed


async def test_those_who_follow_are_told(server: Server):
    await server.listen()
    async with server.events() as events:
        await events.next()
        changed = (await server.api.patch("/project/global", json={"name": "N"})).json()
        frame = await events.next()

    assert (frame.type, frame.json["properties"]) == ("project.updated", changed)


async def test_a_project_that_is_not_there_is_not_found(server: Server):
    for answer in (
        await server.api.patch("/project/none", json=DETAILS),
        await server.api.get("/project/none/directories"),
    ):
        assert (answer.status_code, answer.json()["_tag"]) == (404, "ProjectNotFoundError")
        assert answer.json()["projectID"] == "none"


@pytest.mark.parametrize(
    "body", [[], {"name": 5}, {"icon": "red"}, {"commands": {"start": []}}, {"name": "x" * 5000}, {"name": "a\0"}]
)
async def test_details_of_the_wrong_shape_are_refused(server: Server, body: Any):
    assert (await server.api.patch("/project/global", json=body)).status_code == 400
    assert "name" not in (await server.api.get("/project/current")).json()


async def test_a_change_that_cannot_be_written_is_refused_and_does_not_hold(tmp_path: Path):
    async with Server(tmp_path, data=tmp_path / "data") as server:
        (tmp_path / "data" / "projects.json").mkdir()
        answer = await server.api.patch("/project/global", json=DETAILS)

        assert answer.status_code == 409
        assert "name" not in (await server.api.get("/project/current")).json()


async def test_a_damaged_file_is_named_when_the_server_starts(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "projects.json").write_text("{")
    server = Server(tmp_path, data=tmp_path / "data")

    with pytest.raises(StorageError, match=r"projects\.json"):
        async with open_application(server.settings):
            pass


async def test_the_first_session_in_a_further_directory_is_told_as_a_change_of_the_projects_directories(tmp_path: Path):
    async with Server(tmp_path, data=tmp_path / "data") as server:
        known = await server.session()
        exported = (await server.api.get(f"/session/{known}/export")).content
    async with Server(tmp_path) as server:
        await server.listen()
        other = tmp_path / "other"
        other.mkdir()
        async with server.events("/global/event") as events:
            await events.next()
            await server.session()
            await server.session()
            await server.api.post("/session", params={"directory": str(other)})
            await server.api.post("/tui/open-help")
            frames = [frame.json for frame in await events.until("tui.command.execute")]

    told = [frame for frame in frames if frame["payload"]["type"] == "project.directories.updated"]
    assert [frame["directory"] for frame in told] == [str(other)]
    assert told[0]["payload"]["properties"] == {"projectID": "global"}
    async with Server(other) as server:
        await server.listen()
        await server.session()
        async with server.events("/global/event") as events:
            await events.next()
            (await server.api.post("/session/import", content=exported)).raise_for_status()
            [frame] = (await events.until("project.directories.updated"))[-1:]
    assert frame.json["directory"] == str(tmp_path)


async def test_what_was_known_before_a_restart_is_no_change(tmp_path: Path):
    async with Server(tmp_path, data=tmp_path / "data") as server:
        await server.session()
        await server.api.post("/session", params={"directory": str(tmp_path.parent)})
    async with Server(tmp_path, data=tmp_path / "data") as server:
        told: list[str] = []
        server.application.services.projects.announce = lambda directory, kind, properties: told.append(kind)
        await server.session()
        await server.api.post("/session", params={"directory": str(tmp_path.parent)})

    assert told == []


async def test_the_directories_of_a_project_are_those_that_are_there(server: Server):
    gone = server.directory / "gone"
    gone.mkdir()

    async def directories() -> list[str]:
        return [found["directory"] for found in (await server.api.get("/project/global/directories")).json()]

    assert await directories() == [str(server.directory)]
    await server.session()
    await server.api.post("/session", params={"directory": str(gone)})
    assert await directories() == [str(server.directory), str(gone)]
    gone.rmdir()
    assert await directories() == [str(server.directory)]
