"""What waits for the user, files and running sessions in the second API: the same things as in the first one."""

import asyncio
from pathlib import Path

import pytest

from holdfast.core.events import QuestionAsked
from holdfast.core.questions import Question, QuestionOption
from holdfast.testing.scripted_provider import Stall, text
from tests.server.harness import Server
from tests.server.opencode.test_requests import asking


async def test_a_permission_is_shown_and_granted(server: Server):
    session, waiting, request = await asking(server)
    everywhere = (await server.api.get("/api/permission/request")).json()
    own = (await server.api.get(f"/api/session/{session}/permission")).json()
    one = (await server.api.get(f"/api/session/{session}/permission/{request['id']}")).json()

    tool = request["tool"]
    assert isinstance(tool, dict)
    assert everywhere["location"]["directory"] == str(server.directory)
    assert everywhere["data"] == own["data"] == [one["data"]]
    assert one["data"] == {
        "id": request["id"],
        "sessionID": session,
        "action": "bash",
        "resources": request["patterns"],
        "save": request["always"],
        "metadata": request["metadata"],
        "source": {"type": "tool", **tool},
    }
    other = await server.session()
    for path in (f"/api/session/{other}/permission/{request['id']}", f"/api/session/{session}/permission/per_none"):
        assert (await server.api.get(path)).status_code == 404
        assert (await server.api.post(f"{path}/reply", json={"reply": "once"})).status_code == 404
    reply = await server.api.post(f"/api/session/{session}/permission/{request['id']}/reply", json={"reply": "once"})
    await waiting

    assert (reply.status_code, reply.content) == (204, b"")
    assert (await server.api.get("/api/permission/request")).json()["data"] == []


@pytest.mark.parametrize("way", ["reply", "reject"])
async def test_a_question_is_shown_and_answered(server: Server, way: str):
    session, other = await server.session(), await server.session()
    stall = Stall()
    server.provider.add([*text("wait"), stall])
    await server.api.post(f"/session/{session}/prompt_async", json={"parts": [{"type": "text", "text": "go"}]})
    await server.recorded("message.part.delta")
    option = QuestionOption(label="A", description="first")
    asked = QuestionAsked(
        id="que_1", session_id=session, questions=(Question(question="Which?", header="Pick", options=(option,)),)
    )
    await server.application.store.append(session, [asked])
    own = (await server.api.get(f"/api/session/{session}/question")).json()["data"]

    assert (
        own
        == (await server.api.get("/api/question/request")).json()["data"]
        == (await server.api.get("/question")).json()
    )
    body = {"answers": [["A"]]} if way == "reply" else None
    for owner, expected in ((other, 404), (session, 204)):
        answer = await server.api.post(f"/api/session/{owner}/question/que_1/{way}", json=body)
        assert answer.status_code == expected, answer.text
    assert (await server.api.get(f"/api/session/{session}/question")).json() == {"data": []}
    await server.api.post(f"/session/{session}/abort")


async def test_a_running_session_is_active_until_it_is_interrupted(server: Server):
    session = await server.session()
    stall = Stall()
    server.provider.add([*text("working"), stall])
    waiting = asyncio.create_task(server.prompt(session))
    await server.recorded("message.part.delta")

    assert (await server.api.get("/api/session/active")).json() == {"data": {session: {"type": "running"}}}
    assert (await server.api.post(f"/api/session/{session}/interrupt")).status_code == 204
    await waiting
    assert (await server.api.get("/api/session/active")).json() == {"data": {}}
    assert (await server.api.post("/api/session/ses_none/interrupt")).status_code == 404
    assert (await server.api.post("/api/session/none/interrupt")).status_code == 400


async def test_files_are_listed_and_found(server: Server, tmp_path: Path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").touch()
    (tmp_path / "readme").touch()

    async def entries(route: str, **query: str) -> list[dict[str, str]]:
        return (await server.api.get(route, params=query)).raise_for_status().json()["data"]

    assert await entries("/api/fs/list") == [{"path": "src/", "type": "directory"}, {"path": "readme", "type": "file"}]
    assert await entries("/api/fs/list", path="src") == [{"path": "src/main.py", "type": "file"}]
    assert {"path": "src/main.py", "type": "file"} in await entries("/api/fs/find", query="main")
    assert await entries("/api/fs/find", query="src", type="directory") == [{"path": "src/", "type": "directory"}]
    for query in ("", "?query=a&limit=0", "?query=a&type=link"):
        assert (await server.api.get(f"/api/fs/find{query}")).status_code == 400
    for path in ("..", "/etc", "../../etc/passwd"):
        assert (await server.api.get("/api/fs/list", params={"path": path})).status_code == 400
    assert (await server.api.get("/api/fs/list", params={"path": "none"})).status_code == 404
