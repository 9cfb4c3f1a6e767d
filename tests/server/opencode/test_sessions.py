import asyncio
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from holdfast.testing.scripted_provider import Stall, text
from tests.server.harness import Server, prompt, texts


async def test_a_new_session_has_the_shape_that_clients_expect(server: Server):
    session = (await server.api.post("/session")).json()

    assert re.fullmatch(r"ses_[0-9a-f]{12}[0-9A-Za-z]{14}", session.pop("id"))
    assert re.fullmatch(r"[a-z]+-[a-z]+", session.pop("slug"))
    assert re.fullmatch(r"New session - \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", session.pop("title"))
    time = session.pop("time")
    assert time["created"] == time["updated"]
    assert session == {
        "version": "0.1.0",
        "projectID": "global",
        "directory": str(server.directory),
        "path": str(server.directory).lstrip("/"),
        "cost": 0,
        "tokens": {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}},
    }


async def test_a_child_session_is_named_so_and_lives_where_its_parent_does(server: Server, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    parent = (await server.api.post("/session", params={"directory": str(elsewhere)}, json={})).json()
    child = (await server.api.post("/session", json={"parentID": parent["id"]})).json()

    assert child["title"].startswith("Child session - ")
    assert child["parentID"] == parent["id"]
    assert child["directory"] == str(elsewhere)
    assert [c["id"] for c in (await server.api.get(f"/session/{parent['id']}/children")).json()] == [child["id"]]


async def test_creating_a_session_twice_with_one_id_creates_one(server: Server):
    first = await server.api.post("/session", json={"id": "ses_mine", "title": "first"})
    second = await server.api.post("/session", json={"id": "ses_mine", "title": "second"})

    assert second.json() == first.json()
    assert len((await server.api.get("/session")).json()) == 1


async def test_the_id_of_a_deleted_session_is_not_used_again(server: Server):
    await server.session(id="ses_mine")
    await server.api.delete("/session/ses_mine")

    assert (await server.api.post("/session", json={"id": "ses_mine"})).status_code == 409


@pytest.mark.parametrize(
    "body",
    [
        {"agent": "nobody"},
        {"model": {"providerID": "scripted", "id": "nope"}},
        {"model": {"providerID": "nope", "id": "main"}},
        {"id": "msg_wrong"},
        {"title": "x" * 10_001},
    ],
)
async def test_a_session_that_could_not_work_is_refused(server: Server, body: dict[str, object]):
    answer = await server.api.post("/session", json=body)

    assert answer.status_code == 400
    assert answer.json()["name"] == "BadRequest"
    assert await server.records() == 0


async def test_a_session_of_an_unknown_parent_is_refused(server: Server):
    assert (await server.api.post("/session", json={"parentID": "ses_none"})).status_code == 404


async def test_the_list_is_of_the_directory_newest_update_first(server: Server, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    first, second = await server.session(title="first"), await server.session(title="second")
    await server.api.post("/session", params={"directory": str(other)}, json={"title": "third"})
    await asyncio.sleep(0.002)  # `updated` is in milliseconds
    await server.prompt(first, noReply=True)

    assert [s["id"] for s in (await server.api.get("/session")).json()] == [first, second]
    assert [s["title"] for s in (await server.api.get("/session", params={"directory": str(other)})).json()] == [
        "third"
    ]


async def test_the_list_can_be_narrowed(server: Server, tmp_path: Path):
    below = tmp_path / "below"
    below.mkdir()
    parent = await server.session(title="The Parent")
    child = await server.session(parentID=parent, title="the child")
    await server.api.post("/session", params={"directory": str(below)}, json={"title": "deep"})

    async def titles(**query: str | int) -> set[str]:
        return {s["title"] for s in (await server.api.get("/session", params=query)).raise_for_status().json()}

    assert await titles(roots="true") == {"The Parent"}
    assert await titles(search="PARENT") == {"The Parent"}
    assert await titles(search="nothing") == set()
    assert len(await titles(limit=1)) == 1
    assert await titles(start=9_000_000_000_000_000) == set()
    assert await titles(scope="project") == {"The Parent", "the child", "deep"}
    assert await titles(path=str(below).lstrip("/")) == {"deep"}
    assert (await server.api.get(f"/session/{child}")).json()["parentID"] == parent


async def test_sessions_are_found_by_what_was_said_in_them(server: Server):
    first, second = await server.session(title="The first"), await server.session(title="The second")
    await server.prompt(first, "Where is the anchor?", noReply=True)
    await server.prompt(second, "日本語で 👍", noReply=True)

    async def found(route: str, search: str) -> list[str]:
        answer = await server.api.get(route, params={"search": search})
        return [s["id"] for s in answer.raise_for_status().json()]

    for route in ("/session", "/experimental/session"):
        assert await found(route, "ANCHOR") == [first]
        assert await found(route, "anch where") == [first]
        assert await found(route, "second") == [second]
        assert await found(route, "本語") == await found(route, "👍") == [second]
        assert await found(route, "") == await found(route, " ") == [second, first]
        for nothing in ('"', "anchor OR nothing", "(", "*", "x" * 10_000, "zz " * 5_000, "👎"):
            assert await found(route, nothing) == []


async def test_sessions_of_all_directories_are_listed_with_their_project(server: Server, tmp_path: Path):
    other, elsewhere = tmp_path / "other", tmp_path / "elsewhere"
    for directory in (other, elsewhere):
        directory.mkdir()
    (other / ".git").mkdir()
    first = await server.session(title="first")
    second = (await server.api.post("/session", params={"directory": str(other)}, json={"title": "second"})).json()
    child = await server.session(title="child", parentID=first)
    archived = (await server.api.post("/session", params={"directory": str(elsewhere)}, json={})).json()["id"]
    await server.api.patch(f"/session/{archived}", json={"time": {"archived": 1}})
    elsewhere.rmdir()

    async def listed(**query: str | int) -> list[str]:
        answer = await server.api.get("/experimental/session", params=query)
        return [s["id"] for s in answer.raise_for_status().json()]

    assert sorted(await listed()) == sorted([child, second["id"], first])
    assert sorted(await listed(roots="true")) == sorted([second["id"], first])
    assert await listed(directory=str(other)) == [second["id"]]
    assert await listed(directory=str(elsewhere), archived="true") == [archived]
    assert await listed(directory=str(elsewhere), archived="false") == []
    assert len(await listed(archived="true")) == 4
    assert await listed(start=9_000_000_000_000_000) == []
    (whole,) = (await server.api.get("/experimental/session", params={"search": "second"})).json()
    assert whole.pop("project") == {"id": "global", "worktree": "/"}
    assert whole == (await server.api.get(f"/session/{second['id']}")).json()


@pytest.mark.parametrize("route", ["/session", "/experimental/session"])
async def test_pages_of_sessions_lose_none_and_repeat_none(server: Server, route: str):
    made = [await server.session(title=f"{n}") for n in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        answer = await server.api.get(route, params={"limit": "2", **cursor})
        seen += [s["id"] for s in answer.json()]
        if "x-next-cursor" not in answer.headers:
            break
        cursor = {"cursor": answer.headers["x-next-cursor"]}

    assert sorted(seen) == sorted(made)
    assert (await server.api.get(route, params={"limit": 7})).headers.get("x-next-cursor") is None


async def test_the_directory_of_a_request_comes_from_the_query_or_the_header(server: Server, tmp_path: Path):
    named = tmp_path / "ein Täg"
    named.mkdir()
    by_header = await server.api.post("/session", headers={"x-opencode-directory": quote(str(named), safe="")})
    by_query = await server.api.post("/session", params={"directory": str(named)})

    assert by_header.json()["directory"] == by_query.json()["directory"] == str(named)


async def test_a_directory_is_the_same_however_it_is_spelled(server: Server, tmp_path: Path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    spellings = [str(real), f"{real}/", f"{tmp_path}/./real/../real", str(tmp_path / "link")]
    made = [(await server.api.post("/session", params={"directory": spelling})).json() for spelling in spellings]

    assert {session["directory"] for session in made} == {str(real)}


async def test_a_patch_changes_what_it_names_and_nothing_else(server: Server):
    id = await server.session(title="before", metadata={"a": 1})
    before = (await server.api.get(f"/session/{id}")).json()

    async def patch(**body: object) -> dict[str, object]:
        return (await server.api.patch(f"/session/{id}", json=body)).raise_for_status().json()

    assert await patch() == before
    assert await patch(title="after") == {**before, "title": "after"}
    assert (await patch(time={"archived": 17}))["time"] == {**before["time"], "archived": 17}
    assert (await patch(time={}))["time"] == {**before["time"], "archived": 17}
    assert (await patch(time={"archived": None}))["time"] == before["time"]
    assert (await patch(metadata={"b": [1, None]}))["metadata"] == {"b": [1, None]}
    rule = {"permission": "bash", "pattern": "*", "action": "ask"}
    assert (await patch(permission=[rule]))["permission"] == [rule]
    other, allowed = {**rule, "pattern": "ls"}, {**rule, "action": "allow"}
    assert (await patch(permission=[other]))["permission"] == [rule, other]
    assert (await patch(permission=[allowed]))["permission"] == [other, allowed]
    assert (await server.api.get(f"/session/{id}")).json()["title"] == "after"


async def test_a_patch_that_changes_nothing_records_nothing(server: Server):
    id = await server.session(title="same")
    before = await server.records()
    await server.api.patch(f"/session/{id}", json={"title": "same"})

    assert await server.records() == before


async def test_a_session_is_deleted_with_its_children_once(server: Server):
    parent = await server.session()
    child = await server.session(parentID=parent)
    grandchild = await server.session(parentID=child)

    assert (await server.api.delete(f"/session/{parent}")).json() is True
    for id in (parent, child, grandchild):
        gone = await server.api.get(f"/session/{id}")
        assert gone.status_code == 404
        assert gone.json() == {"name": "NotFoundError", "data": {"message": f"Session not found: {id}"}}
    assert (await server.api.delete(f"/session/{parent}")).status_code == 404


async def test_a_child_that_is_made_while_its_parent_is_deleted_goes_with_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    parent = await server.session()
    append = server.application.store.append
    made: list[int] = []

    async def made_before(session_id: str, events: Any, **options: Any) -> Any:
        if session_id == parent and len(made) < 2:  # first, its turn is ended; then it is deleted
            made.append(0)
            if len(made) == 2:
                made[1] = (await server.api.post("/session", json={"parentID": parent})).status_code
        return await append(session_id, events, **options)

    monkeypatch.setattr(server.application.store, "append", made_before)
    assert (await server.api.delete(f"/session/{parent}")).status_code == 200
    assert made == [0, 200]
    assert (await server.api.get("/session")).json() == []


async def test_a_child_of_a_parent_that_is_deleted_meanwhile_is_not_made(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    parent = await server.session()
    append = server.application.store.append

    async def deleted_before(session_id: str, events: Any, **options: Any) -> Any:
        monkeypatch.undo()
        assert (await server.api.delete(f"/session/{parent}")).status_code == 200
        return await append(session_id, events, **options)

    monkeypatch.setattr(server.application.store, "append", deleted_before)
    assert (await server.api.post("/session", json={"parentID": parent})).status_code == 404
    assert (await server.api.get("/session")).json() == []


async def test_deleting_a_session_in_a_turn_ends_the_turn_first(server: Server):
    stall = Stall()
    server.provider.add([*text("begun "), stall])
    id = await server.session()
    waiting = asyncio.create_task(server.prompt(id))
    await stall.reached.wait()
    await server.api.post(f"/session/{id}/prompt_async", json=prompt("queued"))

    assert (await server.api.delete(f"/session/{id}")).json() is True
    assert (await waiting).status_code in (200, 404)  # the aborted message, unless it is gone already
    assert server.provider.closed == 1
    assert len(server.provider.requests) == 1
    assert (await server.api.get("/session/status")).json() == {}


async def test_status_names_the_sessions_that_are_busy(server: Server):
    stall = Stall()
    server.provider.add([stall, *text("done")])
    idle, busy = await server.session(), await server.session()
    waiting = asyncio.create_task(server.prompt(busy))
    await stall.reached.wait()

    assert (await server.api.get("/session/status")).json() == {busy: {"type": "busy"}}
    stall.release()
    await waiting
    assert (await server.api.get("/session/status")).json() == {}
    assert (await server.api.get(f"/session/{idle}")).status_code == 200


async def test_todo_and_diff_of_a_fresh_session_are_empty(server: Server):
    id = await server.session()

    assert (await server.api.get(f"/session/{id}/todo")).json() == []
    assert (await server.api.get(f"/session/{id}/diff")).json() == []


async def test_a_diff_can_be_asked_for_by_prompt(server: Server):
    id = await server.session()
    message = (await server.prompt(id, noReply=True)).json()["info"]["id"]

    assert (await server.api.get(f"/session/{id}/diff", params={"messageID": message})).json() == []
    assert (await server.api.get(f"/session/{id}/diff", params={"messageID": "msg_none"})).status_code == 404


async def test_abort_keeps_what_was_said_and_answers_the_waiting_prompt(server: Server):
    stall = Stall()
    server.provider.add([*text("half a "), stall])
    id = await server.session()
    waiting = asyncio.create_task(server.prompt(id))
    await stall.reached.wait()

    assert (await server.api.post(f"/session/{id}/abort")).json() is True
    answer = (await waiting).json()
    assert answer["info"]["error"] == {"name": "MessageAbortedError", "data": {"message": "Aborted"}}
    assert [p["text"] for p in answer["parts"] if p["type"] == "text"] == ["half a "]


async def test_abort_stops_the_running_turn_and_not_the_queue(server: Server):
    stall = Stall()
    server.provider.add([stall])
    server.provider.add(text("second answer"))
    id = await server.session()
    first = asyncio.create_task(server.prompt(id, "first"))
    await stall.reached.wait()
    await server.api.post(f"/session/{id}/prompt_async", json=prompt("second", messageID="msg_second"))
    await server.api.post(f"/session/{id}/abort")

    assert (await first).json()["info"]["error"]["name"] == "MessageAbortedError"
    assert texts((await server.prompt(id, messageID="msg_second")).json()) == "second answer"


async def test_abort_of_an_idle_session_does_nothing(server: Server):
    id = await server.session()
    before = await server.records()

    assert (await server.api.post(f"/session/{id}/abort")).json() is True
    assert await server.records() == before


async def test_abort_right_after_a_prompt_catches_it(server: Server):
    stall = Stall()
    server.provider.add([stall])
    id = await server.session()
    await server.api.post(f"/session/{id}/prompt_async", json=prompt())
    await server.api.post(f"/session/{id}/abort")
    await server.application.engine.idle()

    assert (await server.messages(id))[-1]["info"]["error"]["name"] == "MessageAbortedError"
