import asyncio
from pathlib import Path

import pytest

from holdfast.core.events import QuestionAsked
from holdfast.core.questions import Question, QuestionOption
from holdfast.testing.scripted_provider import call, text
from tests.server.harness import Server, texts

ASK = [{"permission": "bash", "pattern": "*", "action": "ask"}]


async def asking(server: Server) -> tuple[str, asyncio.Task[object], dict[str, object]]:
    """A session whose turn waits for permission, the prompt that waits for the turn, and the request."""
    server.provider.add(call("bash", {"command": "echo permitted"}))
    server.provider.add(text("Done."))
    session = await server.session(permission=ASK)
    waiting = asyncio.create_task(server.prompt(session, messageID="msg_ask"))
    await server.recorded("permission.asked")
    [request] = (await server.api.get("/permission")).json()
    return session, waiting, request


@pytest.mark.parametrize("form", ["new", "old"])
async def test_a_permission_is_asked_for_shown_and_granted(server: Server, form: str):
    session, waiting, request = await asking(server)
    path = f"/permission/{request['id']}/reply" if form == "new" else f"/session/{session}/permissions/{request['id']}"
    reply = await server.api.post(path, json={"reply": "once"} if form == "new" else {"response": "once"})
    await waiting

    assert request["sessionID"] == session
    assert request["permission"] == "bash"
    assert reply.json() is True
    assert (await server.api.get("/permission")).json() == []
    tool = next(
        part for message in await server.messages(session) for part in message["parts"] if part["type"] == "tool"
    )
    assert tool["state"]["output"].strip() == "permitted"


async def test_a_permission_that_is_refused_stops_the_tool(server: Server):
    session, waiting, request = await asking(server)
    await server.api.post(f"/permission/{request['id']}/reply", json={"reply": "reject"})
    await waiting

    tool = next(
        part for message in await server.messages(session) for part in message["parts"] if part["type"] == "tool"
    )
    assert tool["state"]["status"] == "error"


async def test_the_same_reply_again_is_fine_and_changes_nothing(server: Server):
    """A client whose connection broke before the answer came replies again."""
    server.provider.add(
        [*call("bash", {"command": "echo a"}, call_id="a"), *call("bash", {"command": "echo b"}, call_id="b")]
    )
    server.provider.add(text("Done."))
    session = await server.session(permission=ASK)
    waiting = asyncio.create_task(server.prompt(session))
    await server.recorded("permission.asked", 2)
    first, second = (await server.api.get("/permission")).json()
    replies = [
        await server.api.post(f"/permission/{first['id']}/reply", json={"reply": reply}) for reply in ("once", "reject")
    ]

    assert [reply.status_code for reply in replies] == [200, 200]
    await server.api.post(f"/permission/{second['id']}/reply", json={"reply": "once"})
    await waiting
    tools = [part for message in await server.messages(session) for part in message["parts"] if part["type"] == "tool"]
    assert [tool["state"]["status"] for tool in tools] == ["completed", "completed"]


async def test_a_reply_after_the_turn_is_too_late(server: Server):
    _, waiting, request = await asking(server)
    await server.api.post(f"/permission/{request['id']}/reply", json={"reply": "once"})
    await waiting
    late = await server.api.post(f"/permission/{request['id']}/reply", json={"reply": "once"})

    assert late.status_code == 404
    assert late.json() == {
        "_tag": "PermissionNotFoundError",
        "requestID": request["id"],
        "message": f"Permission request not found: {request['id']}",
    }


async def test_a_reply_through_the_wrong_session_is_refused(server: Server):
    session, waiting, request = await asking(server)
    other = await server.session()
    wrong = await server.api.post(f"/session/{other}/permissions/{request['id']}", json={"response": "once"})

    assert wrong.status_code == 404
    assert len((await server.api.get("/permission")).json()) == 1
    await server.api.post(f"/session/{session}/abort")
    await waiting


async def test_what_waits_is_listed_in_its_directory_only(server: Server, tmp_path: Path):
    (tmp_path / "other").mkdir()
    session, waiting, _ = await asking(server)

    assert (await server.api.get("/permission", params={"directory": str(tmp_path / "other")})).json() == []
    await server.api.post(f"/session/{session}/abort")
    await waiting


async def test_a_pending_permission_survives_a_restart_and_the_reply_goes_to_the_new_server(tmp_path: Path):
    work, data = tmp_path / "work", tmp_path / "data"
    work.mkdir()
    async with Server(work, data) as server:
        session, waiting, request = await asking(server)
        await server.application.stop()
        await waiting
    async with Server(work, data, [text("Went on.")]) as server:
        await server.recorded("turn.started", 2)
        [again] = (await server.api.get("/permission")).json()
        assert (await server.api.post(f"/permission/{again['id']}/reply", json={"reply": "once"})).json() is True
        assert texts((await server.prompt(session, messageID="msg_ask")).json()) == "Went on."
    assert again == request


async def question(server: Server) -> str:
    session = await server.session()
    asked = Question(question="Which?", header="Pick", options=(QuestionOption(label="A", description="a"),))
    await server.application.store.append(session, [QuestionAsked(session_id=session, id="que_1", questions=(asked,))])
    return session


async def test_a_question_is_shown_and_answered(server: Server):
    session = await question(server)
    [shown] = (await server.api.get("/question")).json()
    wrong = await server.api.post("/question/que_1/reply", json={"answers": []})
    right = await server.api.post("/question/que_1/reply", json={"answers": [["A", "my own"]]})

    assert (shown["id"], shown["sessionID"], shown["questions"][0]["header"]) == ("que_1", session, "Pick")
    assert wrong.status_code == 400
    assert right.json() is True
    assert (await server.api.get("/question")).json() == []


async def test_a_question_can_be_dismissed_once(server: Server):
    await question(server)

    assert (await server.api.post("/question/que_1/reject")).json() is True
    assert (await server.api.get("/question")).json() == []
    assert (await server.api.post("/question/que_1/reject")).json()["_tag"] == "QuestionNotFoundError"
