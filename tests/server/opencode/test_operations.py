"""Commands, summaries, taking back, copying and editing, over the whole server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.providers.conversation import SUMMARISE
from holdfast.agent.snapshots import WorkTree
from holdfast.core.errors import NotFound
from holdfast.service import messages as message_service
from holdfast.service import operations as operation_service
from holdfast.service.turns import TurnService
from holdfast.testing.scripted_provider import Stall, call, text
from tests.server.harness import Server, prompt, texts


@pytest.fixture
async def server(tmp_path: Path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "notes.txt").write_text("first\n")
    async with Server(work, tmp_path / "data") as server:
        yield server


async def post(server: Server, path: str, body: Any = None) -> Any:
    """Without a body none is sent, as the stock SDK does it."""
    return (await server.api.post(path, json=body)).raise_for_status().json()


def only_tool(message: Any) -> Any:
    (part,) = [part for part in message["parts"] if part["type"] == "tool"]
    return part


async def test_a_command_of_the_user_runs_at_once_and_the_model_sees_it_later(server: Server):
    id = await server.session()
    message = await post(server, f"/session/{id}/shell", {"agent": "build", "command": "echo hello"})
    tool = only_tool(message)
    assert tool["tool"] == "bash"
    assert tool["state"]["output"] == "hello\n"
    assert server.provider.requests == []
    server.provider.add([*text("I see.")])
    await server.prompt(id, "What was that?")
    outputs = [item for item in server.provider.requests[0].conversation if type(item).__name__ == "ToolOutput"]
    assert [output.output for output in outputs] == ["hello\n"]  # type: ignore[union-attr]


async def test_a_command_while_a_turn_runs_is_refused_and_does_not_run(server: Server):
    stall = Stall()
    server.provider.add([stall])
    id = await server.session()
    await server.api.post(f"/session/{id}/prompt_async", json=prompt("Wait"))
    await stall.reached.wait()
    refused = await server.api.post(f"/session/{id}/shell", json={"agent": "build", "command": "touch ran"})
    assert refused.status_code == 409
    assert refused.json()["_tag"] == "SessionBusyError"
    assert not (server.directory / "ran").exists()
    stall.release()


async def test_a_summary_replaces_what_the_model_sees(server: Server):
    id = await server.session()
    server.provider.add([*text("One.")])
    await server.prompt(id, "Say one")
    server.provider.add([*text("One was said.")])
    model = {"providerID": "scripted", "modelID": "main"}
    assert await post(server, f"/session/{id}/summarize", model) is True
    assert server.provider.requests[1].conversation[-1].text == SUMMARISE  # type: ignore[union-attr]
    server.provider.add([*text("Two.")])
    await server.prompt(id, "Say two")
    said = [item.text for item in server.provider.requests[2].conversation]  # type: ignore[union-attr]
    assert said[1:] == ["One was said.", "Say two"]


async def edited(server: Server) -> tuple[str, str]:
    """A session whose second prompt changed a file: (session, that prompt)."""
    id = await server.session()
    server.provider.add([*text("Hello.")])
    await server.prompt(id, "Hello")
    server.provider.add(call("bash", {"command": "echo second >> notes.txt; echo new > new.txt"}))
    server.provider.add([*text("Done.")])
    await server.prompt(id, "Change it", messageID="msg_change")
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n"
    return id, "msg_change"


async def test_a_revert_brings_files_back_and_the_messages_stay_until_the_next_prompt(server: Server):
    id, change = await edited(server)
    session = await post(server, f"/session/{id}/revert", {"messageID": change})
    assert session["revert"]["messageID"] == change
    assert "-second" in session["revert"]["diff"], "what taking back did, not what it took back"
    assert (server.directory / "notes.txt").read_text() == "first\n"
    assert not (server.directory / "new.txt").exists()
    assert len(await server.messages(id)) == 5
    server.provider.add([*text("Again.")])
    await server.prompt(id, "Something else")
    assert [texts(message) for message in await server.messages(id)] == ["Hello", "Hello.", "Something else", "Again."]
    assert "revert" not in (await server.api.get(f"/session/{id}")).json()


async def test_an_unrevert_brings_everything_back(server: Server):
    id, change = await edited(server)
    await post(server, f"/session/{id}/revert", {"messageID": change})
    session = await post(server, f"/session/{id}/unrevert")
    assert "revert" not in session
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n"
    assert (server.directory / "new.txt").read_text() == "new\n"
    assert len(await server.messages(id)) == 5


async def test_a_revert_can_be_moved_further_back(server: Server):
    id, change = await edited(server)
    await post(server, f"/session/{id}/revert", {"messageID": change})
    first = (await server.messages(id))[0]["info"]["id"]
    await post(server, f"/session/{id}/revert", {"messageID": first})
    assert (server.directory / "notes.txt").read_text() == "first\n"
    await post(server, f"/session/{id}/unrevert")
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n"


async def test_a_revert_survives_a_restart(tmp_path: Path, server: Server):
    id, change = await edited(server)
    await post(server, f"/session/{id}/revert", {"messageID": change})
    await server.__aexit__(None, None, None)
    async with Server(server.directory, tmp_path / "data", [[*text("Again.")]]) as second:
        await second.prompt(id, "Something else")
        assert len(await second.messages(id)) == 4


async def test_a_place_far_back_is_found_page_by_page(server: Server, monkeypatch: pytest.MonkeyPatch):
    """Files, messages and parts after it are taken back, those before it stay; and so it is copied."""
    for module in (message_service, operation_service):
        monkeypatch.setattr(module, "PAGE_MESSAGES", 2)
    id, change = await edited(server)
    for number in range(5):
        await server.prompt(id, f"{number}", noReply=True)
    copied = await server.messages((await post(server, f"/session/{id}/fork", {}))["id"])
    assert [texts(message) for message in copied] == [texts(message) for message in await server.messages(id)]
    await post(server, f"/session/{id}/revert", {"messageID": change})
    assert (await server.api.get(f"/session/{id}")).json()["revert"]["messageID"] == change
    assert (server.directory / "notes.txt").read_text() == "first\n"
    await server.prompt(id, "Something else", noReply=True)
    assert [texts(message) for message in await server.messages(id)] == ["Hello", "Hello.", "Something else"]


async def test_from_a_part_on_only_the_rest_of_its_message_is_taken_back(server: Server):
    id = await server.session()
    parts = [{"type": "text", "text": word} for word in ("one ", "two ", "three")]
    message = (await server.api.post(f"/session/{id}/message", json={"noReply": True, "parts": parts})).json()
    await server.prompt(id, "later", noReply=True)
    for part, left in ((1, ["one ", "more"]), (0, ["more"])):
        place = {"messageID": message["info"]["id"], "partID": message["parts"][part]["id"]}
        marked = (await post(server, f"/session/{id}/revert", place))["revert"]
        assert ("partID" in marked) == (part > 0), "a message without its first part is gone"
        await server.prompt(id, "more", noReply=True)
        assert [texts(message) for message in await server.messages(id)] == left
    assert (await server.api.post(f"/session/{id}/revert", json={"messageID": "msg_none"})).status_code == 404


async def test_a_prompt_that_comes_during_a_revert_is_not_taken_back(server: Server, monkeypatch: pytest.MonkeyPatch):
    """The mark was set without looking again, and the prompt after that removed the turn that ran."""
    id, change = await edited(server)
    find = message_service.MessageService.place
    stall = Stall()
    server.provider.add([stall])

    async def slow(*arguments: Any) -> Any:
        found = await find(*arguments)
        await server.api.post(f"/session/{id}/prompt_async", json=prompt("Meanwhile"))
        await stall.reached.wait()
        return found

    monkeypatch.setattr(message_service.MessageService, "place", slow)
    refused = await server.api.post(f"/session/{id}/revert", json={"messageID": change})

    assert (refused.status_code, refused.json()["_tag"]) == (409, "SessionBusyError")
    assert "revert" not in (await server.api.get(f"/session/{id}")).json()
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n", "nor are the files changed under the turn"
    stall.release()


async def test_a_command_that_comes_right_after_a_revert_makes_it_final(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    """It had looked for a mark just before there was one."""
    id, change = await edited(server)
    watch = TurnService.watch

    @asynccontextmanager
    async def late(self: TurnService, session_id: str) -> AsyncGenerator[Any]:
        monkeypatch.undo()
        await post(server, f"/session/{id}/revert", {"messageID": change})
        async with watch(self, session_id) as watched:
            yield watched

    monkeypatch.setattr(TurnService, "watch", late)
    await post(server, f"/session/{id}/shell", {"agent": "build", "command": "echo hello"})

    messages = await server.messages(id)
    assert [texts(message) for message in messages[:2]] == ["Hello", "Hello."]
    assert (len(messages), only_tool(messages[3])["state"]["output"]) == (4, "hello\n")
    assert "revert" not in (await server.api.get(f"/session/{id}")).json()


@pytest.mark.parametrize("then", ["unrevert", "revert"])
async def test_a_revert_in_which_the_server_died_can_be_made_again_or_undone(
    server: Server, monkeypatch: pytest.MonkeyPatch, then: str
):
    """It died when it had taken back the files, before it could say so."""
    id, change = await edited(server)
    undo = WorkTree.undo

    async def dying(*arguments: Any, **options: Any) -> Any:
        await undo(*arguments, **options)
        raise RuntimeError("the server died")

    monkeypatch.setattr(WorkTree, "undo", dying)
    assert (await server.api.post(f"/session/{id}/revert", json={"messageID": change})).status_code == 500
    monkeypatch.undo()

    if then == "revert":
        await post(server, f"/session/{id}/revert", {"messageID": change})
        assert (server.directory / "notes.txt").read_text() == "first\n"
    await post(server, f"/session/{id}/unrevert")
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n"
    assert (server.directory / "new.txt").read_text() == "new\n"


async def test_a_revert_whose_files_cannot_be_had_leaves_no_mark(server: Server, monkeypatch: pytest.MonkeyPatch):
    id, change = await edited(server)

    async def lost(*_: Any, **__: Any) -> Any:
        raise NotFound("Snapshot", "abc")

    monkeypatch.setattr(WorkTree, "undo", lost)
    assert (await server.api.post(f"/session/{id}/revert", json={"messageID": change})).status_code == 404
    assert "revert" not in (await server.api.get(f"/session/{id}")).json()


async def test_a_prompt_that_comes_while_files_are_taken_back_makes_it_final(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    id, change = await edited(server)
    server.provider.add([*text("Again.")])
    undo = WorkTree.undo

    async def slow(*arguments: Any, **options: Any) -> Any:
        await server.prompt(id, "Something else")
        return await undo(*arguments, **options)

    monkeypatch.setattr(WorkTree, "undo", slow)
    session = await post(server, f"/session/{id}/revert", {"messageID": change})

    assert "revert" not in session
    assert (server.directory / "notes.txt").read_text() == "first\n"
    assert [texts(message) for message in await server.messages(id)] == ["Hello", "Hello.", "Something else", "Again."]


async def test_an_unrevert_leaves_alone_what_else_was_changed_since(server: Server):
    """By the user, or by another session: the whole directory went back to what it was before the revert."""
    id, change = await edited(server)
    (server.directory / "mine.txt").write_text("before")
    await post(server, f"/session/{id}/revert", {"messageID": change})
    (server.directory / "mine.txt").write_text("after")
    (server.directory / "more.txt").write_text("after")
    first = (await server.messages(id))[0]["info"]["id"]
    await post(server, f"/session/{id}/revert", {"messageID": first})
    await post(server, f"/session/{id}/unrevert")
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n"
    assert [(server.directory / name).read_text() for name in ("mine.txt", "more.txt")] == ["after", "after"]


async def test_a_revert_that_died_while_it_was_moved_forward_can_be_undone(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    """It was about to bring back files of the place further back, which the new place does not name."""
    id, change = await edited(server)
    server.provider.add(call("bash", {"command": "echo third > third.txt"}))
    server.provider.add([*text("Done.")])
    await server.prompt(id, "Once more", messageID="msg_later")
    await post(server, f"/session/{id}/revert", {"messageID": change})

    async def dying(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the server died")

    monkeypatch.setattr(WorkTree, "restore", dying)
    assert (await server.api.post(f"/session/{id}/revert", json={"messageID": "msg_later"})).status_code == 500
    monkeypatch.undo()
    await post(server, f"/session/{id}/unrevert")
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n"
    assert (server.directory / "third.txt").read_text() == "third\n"


async def test_an_unrevert_that_comes_during_a_revert_brings_the_files_back_after_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    """It had brought them back when the revert took them, and removed the mark by which they could be had again."""
    id, change = await edited(server)
    undo = WorkTree.undo
    waiting: list[asyncio.Task[Any]] = []

    async def slow(*arguments: Any, **options: Any) -> Any:
        waiting.append(asyncio.create_task(post(server, f"/session/{id}/unrevert")))
        await asyncio.wait(waiting, timeout=0.5)
        return await undo(*arguments, **options)

    monkeypatch.setattr(WorkTree, "undo", slow)
    await post(server, f"/session/{id}/revert", {"messageID": change})
    await waiting[0]
    assert "revert" not in (await server.api.get(f"/session/{id}")).json()
    assert (server.directory / "notes.txt").read_text() == "first\nsecond\n"


async def test_a_revert_does_not_remove_the_directory_of_its_session(tmp_path: Path):
    """All that was in it had been made by the session, in a directory below the root of the work tree."""
    work = tmp_path / "work" / "deep" / "er"
    work.mkdir(parents=True)
    (tmp_path / "work" / ".git").mkdir()
    for name in ("objects", "refs"):
        (tmp_path / "work" / ".git" / name).mkdir()
    (tmp_path / "work" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    async with Server(work, tmp_path / "data") as server:
        id = await server.session()
        server.provider.add(call("bash", {"command": "mkdir new; echo 1 > new/file; echo 2 > file"}))
        server.provider.add([*text("Done.")])
        await server.prompt(id, "Make it", messageID="msg_make")
        assert (work / "new" / "file").exists()
        await post(server, f"/session/{id}/revert", {"messageID": "msg_make"})
        assert list(work.iterdir()) == []


async def test_a_diff_of_the_session_and_of_a_prompt_says_what_changed(server: Server):
    id, change = await edited(server)
    diff = (await server.api.get(f"/session/{id}/diff", params={"messageID": change})).json()
    assert sorted((d["file"], d["status"]) for d in diff) == [("new.txt", "added"), ("notes.txt", "modified")]
    session = (await server.api.get(f"/session/{id}")).json()
    assert session["summary"] == {"additions": 2, "deletions": 0, "files": 2}


async def test_a_fork_copies_what_stands_before_a_message_with_ids_of_its_own(server: Server):
    id, change = await edited(server)
    fork = await post(server, f"/session/{id}/fork", {"messageID": change})
    assert fork["title"] == "A session (fork #1)"
    copied = await server.messages(fork["id"])
    assert [texts(message) for message in copied] == ["Hello", "Hello."]
    assert copied[1]["info"]["parentID"] == copied[0]["info"]["id"]
    assert not {m["info"]["id"] for m in copied} & {m["info"]["id"] for m in await server.messages(id)}
    again = await post(server, f"/session/{fork['id']}/fork")
    assert again["title"] == "A session (fork #2)"
    server.provider.add([*text("Hi.")])
    assert texts((await server.prompt(fork["id"], "And you?")).json()) == "Hi."


async def test_messages_and_parts_can_be_removed_and_edited(server: Server):
    id, _ = await edited(server)
    messages = await server.messages(id)
    first, part = messages[0]["info"]["id"], messages[0]["parts"][0]
    path = f"/session/{id}/message/{first}/part/{part['id']}"
    changed = await server.api.patch(path, json={**part, "text": "Edited"})
    assert changed.json()["text"] == "Edited"
    assert texts((await server.messages(id))[0]) == "Edited"
    assert (await server.api.delete(path)).json() is True
    assert (await server.api.delete(path)).status_code == 404
    assert (await server.api.delete(f"/session/{id}/message/{first}")).json() is True
    assert (await server.api.get(f"/session/{id}/message/{first}")).status_code == 404


async def test_a_part_that_is_being_written_cannot_be_removed(server: Server):
    """Its next word would have no place, and the turn would fail."""
    stall = Stall()
    server.provider.add([*text("Half "), stall, *text("done.")])
    id = await server.session()
    await server.api.post(f"/session/{id}/prompt_async", json=prompt("Go"))
    await stall.reached.wait()
    last: Any = None
    written: list[Any] = []
    while not written:
        last = (await server.messages(id))[-1]
        written = [part for part in last["parts"] if part.get("text") == "Half "]
    path = f"/session/{id}/message/{last['info']['id']}/part/{written[0]['id']}"
    assert (await server.api.delete(path)).status_code == 409
    stall.release()
    await server.recorded("turn.ended")
    assert texts((await server.messages(id))[-1]) == "Half done."


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/session/{id}/shell", {"agent": "nobody", "command": "ls"}, 400),
        ("POST", "/session/{id}/shell", {"agent": "build", "command": "  "}, 400),
        ("POST", "/session/{id}/shell", {"agent": "build", "command": "a\0b"}, 400),
        ("POST", "/session/{id}/summarize", {"providerID": "scripted", "modelID": "none"}, 400),
        ("POST", "/session/{id}/revert", {"messageID": "msg_none"}, 404),
        ("POST", "/session/{id}/revert", {"messageID": "bad"}, 400),
        ("POST", "/session/{id}/fork", {"messageID": "msg_none"}, 404),
        ("POST", "/session/ses_none/fork", {}, 404),
        ("POST", "/session/{id}/share", None, 503),
        ("DELETE", "/session/{id}/message/msg_none", None, 404),
        ("DELETE", "/session/{id}/message/msg_none/part/prt_1", None, 404),
        ("PATCH", "/session/{id}/message/msg_1/part/prt_1", {"type": "text"}, 400),
    ],
)
async def test_what_cannot_be_done_is_refused_with_a_reason_and_nothing_changes(
    server: Server, method: str, path: str, body: Any, status: int
):
    id = await server.session()
    refused = await server.api.request(method, path.format(id=id), json=body)
    assert refused.status_code == status, refused.text
    assert refused.json()
    assert await server.messages(id) == []


async def test_a_command_that_is_asked_for_again_runs_once_also_while_it_runs(server: Server):
    """A client whose connection broke asks again, and was told that the session is busy: with its own command."""
    id = await server.session()
    body = {
        "messageID": "msg_again",
        "agent": "build",
        "command": "while ! test -e go; do sleep 0.05; done; echo x >>ran",
    }
    first = asyncio.create_task(post(server, f"/session/{id}/shell", body))
    await server.recorded("turn.started")
    again = asyncio.create_task(post(server, f"/session/{id}/shell", body))
    other = await server.api.post(f"/session/{id}/shell", json={**body, "messageID": "msg_other"})
    (server.directory / "go").touch()

    assert other.status_code == 409
    assert await first == await again == await post(server, f"/session/{id}/shell", body)
    assert (server.directory / "ran").read_text() == "x\n"


async def test_a_command_under_the_id_of_an_answer_is_refused(server: Server):
    id = await server.session()
    server.provider.add([*text("One.")])
    answer = (await server.prompt(id)).json()["info"]["id"]
    body = {"messageID": answer, "agent": "build", "command": "touch ran"}

    assert (await server.api.post(f"/session/{id}/shell", json=body)).status_code == 409


async def test_a_part_that_was_removed_does_not_come_back_by_being_replaced(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    id = await server.session()
    server.provider.add([*text("One.")])
    message = (await server.prompt(id)).json()
    [part] = [part for part in message["parts"] if part["type"] == "text"]
    path = f"/session/{id}/message/{message['info']['id']}/part/{part['id']}"
    append = server.application.store.append

    async def removed_before(session_id: str, events: Any, **options: Any) -> Any:
        monkeypatch.undo()
        assert (await server.api.delete(path)).status_code == 200
        return await append(session_id, events, **options)

    monkeypatch.setattr(server.application.store, "append", removed_before)
    assert (await server.api.patch(path, json={**part, "text": "Two."})).status_code == 404
    parts = (await server.messages(id))[-1]["parts"]
    assert part["id"] not in [part["id"] for part in parts]
