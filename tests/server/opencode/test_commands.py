"""Commands: templates from files, the built-in ones, skills."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.providers.base import UserTurn
from holdfast.core.codec import type_of
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL
from holdfast.testing.scripted_provider import Stall, text
from tests.server.harness import Server, texts


def write(server: Server, name: str, content: str) -> Path:
    file = server.directory / ".opencode" / "command" / f"{name}.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


async def run(server: Server, session: str, command: str, arguments: str = "", **body: Any) -> Any:
    body = {"command": command, "arguments": arguments, **body}
    answer = await server.api.post(f"/session/{session}/command", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def executed(server: Server) -> list[dict[str, Any]]:
    records = await server.application.store.read(ALL, after=BEGINNING, limit=100_000)
    return [json.loads(r.data)["properties"] for r in records if type_of(r.tag) == "command.executed"]


def said(server: Server, number: int = 0) -> str:
    turn = server.provider.requests[number].conversation[-1]
    assert isinstance(turn, UserTurn)
    return turn.text


async def test_a_command_is_a_prompt_made_from_its_template(server: Server):
    (server.directory / "notes.txt").write_text("remember\n")
    (server.directory / "sub").mkdir()
    write(
        server,
        "hello",
        "---\nagent: plan\nmodel: scripted/other\n---\n"
        "Hello $1, see @notes.txt, @sub and @nowhere; ask @explore.\n!`echo $1 out`\n",
    )
    server.provider.add(text("Hi."))
    session = await server.session()
    answer = await run(server, session, "hello", "World", messageID="msg_mine")

    assert texts(answer) == "Hi."
    prompt, _ = await server.messages(session)
    assert prompt["info"]["id"] == "msg_mine"
    assert prompt["info"]["agent"] == "plan"
    assert prompt["info"]["model"] == {"providerID": "scripted", "modelID": "other"}
    assert prompt["parts"][0]["text"] == "Hello World, see @notes.txt, @sub and @nowhere; ask @explore.\nWorld out"
    kinds = [part.get("filename") or part.get("name") for part in prompt["parts"] if part["type"] in ("file", "agent")]
    assert kinds == ["notes.txt", "sub", "explore"]
    assert "1: remember" in said(server)
    assert await executed(server) == [
        {"sessionID": session, "name": "hello", "arguments": "World", "messageID": answer["info"]["id"]}
    ]


async def test_what_a_command_line_writes_refers_to_nothing(server: Server):
    (server.directory / "secret.txt").write_text("hidden\n")
    write(server, "look", "!`printf %s @; echo secret.txt`")
    server.provider.add(text("Hi."))
    session = await server.session()
    await run(server, session, "look")
    prompt, _ = await server.messages(session)
    assert [part["text"] for part in prompt["parts"]] == ["@secret.txt"]


async def test_files_of_the_request_join_those_of_the_template(server: Server):
    (server.directory / "a.txt").write_text("from the request\n")
    write(server, "look", "Look.")
    server.provider.add(text("Hi."))
    file = {"type": "file", "mime": "text/plain", "filename": "a.txt", "url": (server.directory / "a.txt").as_uri()}
    await run(server, await server.session(), "look", parts=[file])
    assert "1: from the request" in said(server)


async def test_a_command_that_fails_says_so_in_the_prompt(server: Server):
    write(server, "fail", "Before\n!`echo oops >&2; exit 3`\nafter")
    server.provider.add(text("Hi."))
    await run(server, await server.session(), "fail")
    assert said(server).startswith("Before\noops\n")
    assert "Exit code: 3" in said(server)
    assert said(server).endswith("after")


async def test_a_command_sent_again_does_not_run_again_and_has_the_same_answer(server: Server):
    write(server, "count", "Count: !`echo x >> ran; cat ran`")
    server.provider.add([stall := Stall(), *text("One.")])
    session = await server.session()
    first = asyncio.create_task(run(server, session, "count", messageID="msg_mine"))
    second = asyncio.create_task(run(server, session, "count", messageID="msg_mine"))
    await stall.reached.wait()
    third = asyncio.create_task(run(server, session, "count", messageID="msg_mine"))
    stall.release()

    assert await first == await second == await third == await run(server, session, "count", messageID="msg_mine")
    assert (server.directory / "ran").read_text() == "x\n"
    assert len(await server.messages(session)) == 2
    assert len(await executed(server)) == 1


async def test_the_id_of_a_command_leads_no_file_astray(server: Server, tmp_path: Path):
    """What its command lines write is kept in a file of that name when it is long."""
    write(server, "long", "!`seq 1 100000`")
    session = await server.session()
    body = {
        "command": "long",
        "arguments": "",
        "messageID": "msg_x/../../../../../../../../../.." + str(tmp_path / "away"),
    }
    before = {path for path in tmp_path.rglob("*") if "away" in path.name}

    assert (await server.api.post(f"/session/{session}/command", json=body)).status_code == 400
    assert {path for path in tmp_path.rglob("*") if "away" in path.name} == before == set()


async def test_a_command_sent_again_after_a_restart_has_the_same_answer(tmp_path: Path):
    (tmp_path / "work").mkdir()
    async with Server(tmp_path / "work", tmp_path / "data") as server:
        write(server, "count", "Count: !`echo x >> ran; cat ran`")
        server.provider.add(text("One."))
        session = await server.session()
        answer = await run(server, session, "count", messageID="msg_mine")
    async with Server(tmp_path / "work", tmp_path / "data") as server:
        assert await run(server, session, "count", messageID="msg_mine") == answer
        assert (server.directory / "ran").read_text() == "x\n"


async def test_a_command_may_be_a_task_of_another_agent(server: Server):
    write(server, "dig", "---\ndescription: digs\nagent: explore\n---\nDig for $ARGUMENTS")
    server.provider.add(text("Gold."))
    server.provider.add(text("There is gold."))
    session = await server.session()
    answer = await run(server, session, "dig", "gold")

    assert texts(answer) == "There is gold."
    prompt, step, _ = await server.messages(session)
    assert prompt["info"]["agent"] == "build"
    assert [(p["type"], p["agent"], p["prompt"], p["command"]) for p in prompt["parts"]] == [
        ("subtask", "explore", "Dig for gold", "dig")
    ]
    (task,) = [part for part in step["parts"] if part["type"] == "tool"]
    assert task["state"]["status"] == "completed"
    assert "Gold." in task["state"]["output"]


async def test_the_built_in_review_is_a_task_of_the_agent_that_was_chosen(server: Server):
    server.provider.add(text("All good."))
    server.provider.add(text("No defects."))
    session = await server.session()
    assert texts(await run(server, session, "review", "HEAD~1")) == "No defects."
    assert "HEAD~1" in said(server)


async def test_init_asks_for_the_instructions_of_the_project(server: Server):
    server.provider.add(text("Written."))
    session = await server.session()
    body = {"messageID": "msg_init", "providerID": "scripted", "modelID": "other"}
    answer = await server.api.post(f"/session/{session}/init", json=body)
    assert (answer.status_code, answer.json()) == (200, True)
    assert "AGENTS.md" in said(server)
    assert (await server.messages(session))[0]["info"]["model"]["modelID"] == "other"
    assert [event["name"] for event in await executed(server)] == ["init"]


async def test_a_skill_is_a_command(server: Server):
    skill = server.directory / ".opencode" / "skill" / "greet" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: greet\ndescription: how to greet\n---\nSay hi. It costs $1.\n")
    write(server, "plain", "Plain")
    listed = {command["name"]: command for command in (await server.api.get("/command")).json()}
    assert list(listed) == ["init", "review", "plain", "greet"]
    assert listed["greet"]["source"] == "skill"
    assert listed["plain"] == {"name": "plain", "source": "command", "template": "Plain", "hints": []}

    server.provider.add(text("Hi."))
    await run(server, await server.session(), "greet", "Bob")
    assert said(server).startswith("Say hi.")
    assert str(skill.parent) in said(server)


@pytest.mark.parametrize(
    "body",
    [
        {"command": "nothing", "arguments": ""},
        {"command": "", "arguments": ""},
        {"arguments": ""},
        {"command": "mark"},
        {"command": "mark", "arguments": "", "agent": "nobody"},
        {"command": "mark", "arguments": "", "model": "no-slash"},
        {"command": "mark", "arguments": "", "model": "scripted/nope"},
        {"command": "mark", "arguments": "", "messageID": "bad"},
        {"command": "mark", "arguments": 5},
        {"command": "lost", "arguments": ""},
        {"command": "mark", "arguments": "", "parts": [{"type": "text", "text": "x"}]},
    ],
)
async def test_a_command_that_is_wrong_is_refused_and_nothing_ran(server: Server, body: dict[str, Any]):
    write(server, "mark", "!`touch ran`")
    write(server, "lost", "---\nagent: gone\n---\n!`touch ran`")
    session = await server.session()
    before = await server.records()
    answer = await server.api.post(f"/session/{session}/command", json=body)

    assert answer.status_code == 400
    assert answer.json()["name"] == "BadRequest"
    assert await server.records() == before
    assert not (server.directory / "ran").exists()


async def test_a_command_in_no_session_is_not_found(server: Server):
    answer = await server.api.post("/session/ses_nothing/command", json={"command": "init", "arguments": ""})
    assert answer.status_code == 404
