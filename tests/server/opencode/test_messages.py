import asyncio
import base64
import json
from pathlib import Path

import pytest

from holdfast.agent.providers.base import UserTurn
from holdfast.core.codec import type_of
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL
from holdfast.server.opencode import messages
from holdfast.testing.scripted_provider import Stall, call, reasoning, text
from tests.server.harness import Server, prompt, texts


@pytest.fixture(params=["memory", "sqlite"])
async def anywhere(request: pytest.FixtureRequest, tmp_path: Path):
    """On either backend."""
    work = tmp_path / "work"
    work.mkdir()
    async with Server(work, tmp_path / "data" if request.param == "sqlite" else None) as server:
        yield server


async def test_a_prompt_is_answered_with_the_last_message_of_its_turn(anywhere: Server):
    anywhere.provider.add([*text("Let me look. "), *call("read", {"filePath": "."})])
    anywhere.provider.add([*reasoning("Nothing there. "), *text("It is empty.")])
    id = await anywhere.session()
    answer = (await anywhere.prompt(id, "What is here?", messageID="msg_mine")).json()

    assert answer["info"]["role"] == "assistant"
    assert answer["info"]["parentID"] == "msg_mine"
    assert answer["info"]["finish"] == "stop"
    assert texts(answer) == "It is empty."
    assert [part["type"] for part in answer["parts"]] == ["step-start", "reasoning", "text", "step-finish"]
    assert [m["info"]["role"] for m in await anywhere.messages(id)] == ["user", "assistant", "assistant"]


async def test_a_prompt_without_reply_is_recorded_and_answered_with_itself(anywhere: Server):
    id = await anywhere.session()
    answer = (await anywhere.prompt(id, "Just so you know", noReply=True)).json()

    message = {
        "agent": "build",
        "model": {"providerID": "scripted", "modelID": "main"},
        "role": "user",
        "sessionID": id,
    }
    assert answer["info"] == {**message, "id": answer["info"]["id"], "time": answer["info"]["time"]}
    assert answer["parts"] == [
        {
            "type": "text",
            "text": "Just so you know",
            "id": answer["parts"][0]["id"],
            "messageID": answer["info"]["id"],
            "sessionID": id,
        }
    ]
    assert await anywhere.messages(id) == [answer]
    assert anywhere.provider.requests == []


async def test_what_a_prompt_records_is_one_append_in_the_order_clients_know(server: Server):
    server.provider.add(text("Hi."))
    id = await server.session()
    await server.prompt(id, parts=[{"type": "text", "text": "a"}, {"type": "agent", "name": "explore"}])
    records = await server.application.store.read(ALL, after=BEGINNING)

    assert [type_of(record.tag) for record in records[:8]] == [
        "session.created",
        "session.updated",
        "message.updated",
        "message.part.updated",
        "message.part.updated",
        "message.part.updated",
        "turn.requested",
        "turn.started",
    ]
    session = json.loads(records[1].data)["properties"]["info"]
    assert session["agent"] == "build"
    assert session["model"] == {"id": "main", "providerID": "scripted"}


async def test_every_kind_of_part_is_stored_as_it_was_sent(server: Server):
    parts = [
        {"type": "text", "text": "t", "synthetic": True, "metadata": {"k": [1]}, "time": {"start": 5}, "id": "prt_own"},
        {
            "type": "file",
            "mime": "image/png",
            "url": "https://example.org/x",
            "filename": "x",
            "source": {"type": "file", "path": "x", "text": {"value": "@x", "start": 0, "end": 2}},
        },
        {"type": "agent", "name": "explore", "source": {"value": "@explore", "start": 0, "end": 8}},
        {"type": "subtask", "prompt": "p", "description": "d", "agent": "general"},
    ]
    id = await server.session()
    stored = (await server.prompt(id, noReply=True, parts=parts)).json()["parts"]
    stored = [part for part in stored if not part.get("synthetic") or part["id"] == "prt_own"]

    assert (
        [{k: part[k] for k in sent} for part, sent in zip(stored, parts, strict=True)]
        == [
            {**parts[0], "time": {"start": 5, "end": 5}},  # a user's text is complete
            *parts[1:],
        ]
    )


async def test_a_file_that_a_prompt_names_is_shown_to_the_llm_which_may_then_edit_it(anywhere: Server):
    file = anywhere.directory / "notes.txt"
    file.write_text("colour\n")
    anywhere.provider.add(call("edit", {"filePath": str(file), "oldString": "colour", "newString": "color"}))
    anywhere.provider.add(text("Done."))
    id = await anywhere.session()
    parts = [
        {"type": "text", "text": "American, please"},
        {"type": "file", "mime": "text/plain", "filename": "notes.txt", "url": file.as_uri()},
    ]
    await anywhere.prompt(id, parts=parts)

    prompted = anywhere.provider.requests[0].conversation[-1]
    assert isinstance(prompted, UserTurn)
    assert prompted.text.startswith("American, please\n\n")
    assert "1: colour" in prompted.text
    assert "file://" not in prompted.text
    assert prompted.attachments == ()
    assert file.read_text() == "color\n"


async def test_a_prompt_with_a_file_that_is_sent_again_shows_the_file_as_it_was_the_first_time(anywhere: Server):
    file = anywhere.directory / "notes.txt"
    file.write_text("first\n")
    id = await anywhere.session()
    body = {
        "messageID": "msg_mine",
        "noReply": True,
        "parts": [{"type": "file", "mime": "text/plain", "url": file.as_uri()}],
    }
    first = (await anywhere.prompt(id, **body)).json()
    file.unlink()
    again = await anywhere.prompt(id, **body)

    assert again.status_code == 200
    assert again.json() == first
    assert "1: first" in first["parts"][1]["text"]
    assert await anywhere.messages(id) == [first]


async def test_an_answer_in_a_form_is_in_the_message_that_gives_it(anywhere: Server):
    schema = {"type": "object", "properties": {"city": {"$ref": "#/$defs/name"}}, "$defs": {"name": {"type": "string"}}}
    anywhere.provider.add(call("StructuredOutput", {"city": 5}, call_id="a"))
    anywhere.provider.add(call("StructuredOutput", {"city": "Ulm"}, call_id="b"))
    id = await anywhere.session()
    answer = (await anywhere.prompt(id, "Where?", format={"type": "json_schema", "schema": schema})).json()

    assert answer["info"]["structured"] == {"city": "Ulm"}
    assert "error" not in answer["info"]
    first, _, _ = await anywhere.messages(id)
    assert first["info"]["format"] == {"type": "json_schema", "schema": schema}
    assert "StructuredOutput" in anywhere.provider.requests[0].system[-1]
    assert "StructuredOutput" not in (await anywhere.api.get("/experimental/tool/ids")).json()


async def test_an_agent_with_a_limit_of_steps_is_told_to_finish_in_the_last_one(server: Server):
    (server.directory / "opencode.json").write_text(json.dumps({"agent": {"build": {"steps": 1}}}))
    server.provider.add([*text("Looking. "), *call("read", {"filePath": "."})])
    id = await server.session()
    answer = (await server.prompt(id)).json()

    assert answer["info"]["finish"] == "stop"
    (tool,) = [part for part in answer["parts"] if part["type"] == "tool"]
    assert tool["state"]["status"] == "error"
    assert server.provider.requests[0].tool_choice == "none"


async def test_the_llm_is_told_which_skills_there_are_unless_it_may_use_none(server: Server):
    skill = server.directory / ".opencode" / "skill" / "greet" / "SKILL.md"
    skill.parent.mkdir(parents=True)
    skill.write_text("---\nname: greet\ndescription: how to greet\n---\nSay hi.\n")
    server.provider.add(text("Hi."))
    server.provider.add(text("Hi."))
    await server.prompt(await server.session())
    await server.prompt(await server.session(), tools={"skill": False})

    told, untold = ("\n".join(request.system) for request in server.provider.requests)
    assert "- greet: how to greet" in told
    assert "Say hi." not in told
    assert "greet" not in untold


async def test_the_tools_of_a_prompt_become_the_rules_of_its_session(server: Server):
    """So they hold in later turns too, until a prompt brings others; as with the stock server."""
    for words in ("One.", "Two.", "Three."):
        server.provider.add(text(words))
    asks = {"permission": "edit", "pattern": "*", "action": "ask"}
    id = await server.session(permission=[asks])
    await server.prompt(id, noReply=True, tools={})
    assert (await server.api.get(f"/session/{id}")).json()["permission"] == [asks]

    await server.prompt(id, tools={"bash": False, "read": True})
    await server.prompt(id)
    rules = [
        {"permission": "bash", "pattern": "*", "action": "deny"},
        {"permission": "read", "pattern": "*", "action": "allow"},
    ]
    assert (await server.api.get(f"/session/{id}")).json()["permission"] == rules
    await server.prompt(id, tools={"bash": True})
    assert (await server.api.get(f"/session/{id}")).json()["permission"] == [{**rules[0], "action": "allow"}]

    offered = [{tool.name for tool in request.tools} for request in server.provider.requests]
    assert ["bash" in names for names in offered] == [False, False, True]


async def test_the_agent_and_model_of_a_prompt_stay_those_of_the_session(server: Server):
    id = await server.session()
    chosen = {"providerID": "scripted", "modelID": "other"}
    await server.prompt(id, noReply=True, agent="plan", model=chosen, variant="high")
    second = (await server.prompt(id, noReply=True)).json()["info"]

    assert second["agent"] == "plan"
    assert second["model"] == {**chosen, "variant": "high"}
    assert (await server.api.get(f"/session/{id}")).json()["model"] == {
        "providerID": "scripted",
        "id": "other",
        "variant": "high",
    }


async def test_a_session_whose_agent_is_gone_goes_on_with_the_default(server: Server):
    config = server.directory / "opencode.json"
    config.write_text('{"agent": {"mine": {"prompt": "Be mine."}}}')
    id = await server.session()
    first = await server.prompt(id, noReply=True, agent="mine")
    config.write_text("{}")
    await server.api.post("/instance/dispose")
    second = await server.prompt(id, noReply=True)

    assert first.json()["info"]["agent"] == "mine"
    assert second.json()["info"]["agent"] == "build"
    assert (await server.prompt(id, noReply=True, agent="mine")).status_code == 400


async def test_a_repeated_prompt_adds_nothing_and_answers_what_the_first_was_answered(anywhere: Server):
    anywhere.provider.add(text("Once."))
    id = await anywhere.session()
    first = await anywhere.prompt(id, "Hello", messageID="msg_a")
    records = await anywhere.records()
    again = [await anywhere.prompt(id, "Hello", messageID="msg_a") for _ in range(3)]

    assert [answer.content for answer in again] == [first.content] * 3
    assert await anywhere.records() == records
    assert len(anywhere.provider.requests) == 1


async def test_a_repeated_prompt_answers_the_same_even_when_others_came_after_it(anywhere: Server):
    for n in range(12):
        anywhere.provider.add(text(f"Answer {n}."))
    id = await anywhere.session()
    answers = [await anywhere.prompt(id, messageID=f"msg_{n}") for n in range(12)]

    for n in (0, 5, 11):
        assert (await anywhere.prompt(id, messageID=f"msg_{n}")).json() == answers[n].json()


async def test_a_repeated_prompt_waits_while_the_first_is_being_answered(anywhere: Server):
    stall = Stall()
    anywhere.provider.add([*text("Slow "), stall, *text("answer.")])
    id = await anywhere.session()
    first = asyncio.create_task(anywhere.prompt(id, messageID="msg_a"))
    await stall.reached.wait()
    second = asyncio.create_task(anywhere.prompt(id, messageID="msg_a"))
    await anywhere.api.get(f"/session/{id}")
    assert not second.done()
    stall.release()

    assert (await first).content == (await second).content
    assert texts((await first).json()) == "Slow answer."
    assert len(await anywhere.messages(id)) == 2


async def test_identical_prompts_at_the_same_moment_are_one(anywhere: Server):
    anywhere.provider.add(text("One answer."))
    id = await anywhere.session()
    answers = await asyncio.gather(*(anywhere.prompt(id, messageID="msg_a") for _ in range(10)))

    assert len({answer.content for answer in answers}) == 1
    assert len(await anywhere.messages(id)) == 2
    assert len((await anywhere.messages(id))[0]["parts"]) == 1


async def test_a_repeated_prompt_without_reply_answers_the_message(anywhere: Server):
    id = await anywhere.session()
    first = await anywhere.prompt(id, "a", messageID="msg_a", noReply=True)

    assert (await anywhere.prompt(id, "a", messageID="msg_a", noReply=True)).json() == first.json()
    assert (await anywhere.prompt(id, "a", messageID="msg_a")).json() == first.json()
    assert len(await anywhere.messages(id)) == 1


async def test_a_prompt_cannot_take_the_id_of_an_answer(anywhere: Server):
    anywhere.provider.add(text("Answer."))
    id = await anywhere.session()
    answer = (await anywhere.prompt(id)).json()
    refused = await anywhere.prompt(id, messageID=answer["info"]["id"])

    assert refused.status_code == 409
    assert await anywhere.messages(id) == [(await anywhere.messages(id))[0], answer]


async def test_a_prompt_cannot_take_the_part_of_another_message(anywhere: Server):
    id = await anywhere.session()
    await anywhere.prompt(id, noReply=True, parts=[{"type": "text", "text": "mine", "id": "prt_a"}])
    refused = await anywhere.prompt(id, noReply=True, parts=[{"type": "text", "text": "stolen", "id": "prt_a"}])

    assert refused.status_code == 409
    assert [texts(m) for m in await anywhere.messages(id)] == ["mine"]


async def test_a_prompt_sent_while_busy_is_answered_next(server: Server):
    stall = Stall()
    server.provider.add([stall, *text("first")])
    server.provider.add(text("second"))
    id = await server.session()
    first = asyncio.create_task(server.prompt(id, "one"))
    await stall.reached.wait()
    queued = await server.api.post(f"/session/{id}/prompt_async", json=prompt("two", messageID="msg_two"))
    stall.release()

    assert queued.status_code == 204
    assert queued.content == b""
    assert texts((await first).json()) == "first"
    assert texts((await server.prompt(id, messageID="msg_two")).json()) == "second"


async def test_a_client_that_goes_away_does_not_stop_the_turn(server: Server):
    stall = Stall()
    server.provider.add([*text("half "), stall, *text("whole")])
    id = await server.session()
    url = await server.listen()
    async with server.client(transport=None, base_url=url) as client:
        waiting = asyncio.create_task(client.post(f"/session/{id}/message", json=prompt(messageID="msg_a")))
        await stall.reached.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    stall.release()

    assert texts((await server.prompt(id, messageID="msg_a")).json()) == "half whole"


async def test_a_prompt_survives_a_stop_of_the_server_and_is_answered_by_the_next(tmp_path: Path):
    work, data = tmp_path / "work", tmp_path / "data"
    work.mkdir()
    stall = Stall()
    async with Server(work, data, [[*text("Half a "), stall]]) as server:
        id = await server.session()
        waiting = asyncio.create_task(server.prompt(id, messageID="msg_a"))
        await stall.reached.wait()
        await server.application.stop()
        stopped = await waiting
    assert stopped.status_code == 503
    assert stopped.json()["name"] == "UnavailableError"

    async with Server(work, data, [text("sentence.")]) as server:
        answer = (await server.prompt(id, messageID="msg_a")).json()
        assert texts(answer) == "Half a sentence."
        assert len(await server.messages(id)) == 2


async def test_a_removed_prompt_is_not_waited_for(server: Server):
    stall = Stall()
    server.provider.add([stall])
    id = await server.session()
    first = asyncio.create_task(server.prompt(id))
    await stall.reached.wait()
    queued = asyncio.create_task(server.prompt(id, messageID="msg_queued"))
    await server.recorded("turn.requested", 2)
    await server.api.delete(f"/session/{id}")

    assert (await queued).status_code == 404
    assert (await first).status_code in (200, 404)


# --- reading ----------------------------------------------------------------------------------------------------


async def test_one_message_can_be_read(server: Server):
    id = await server.session()
    message = (await server.prompt(id, noReply=True)).json()

    assert (await server.api.get(f"/session/{id}/message/{message['info']['id']}")).json() == message


async def test_a_message_of_another_session_is_not_found(server: Server):
    mine, other = await server.session(), await server.session()
    message = (await server.prompt(mine, noReply=True)).json()["info"]["id"]

    assert (await server.api.get(f"/session/{other}/message/{message}")).status_code == 404


async def test_an_open_part_is_read_with_the_text_streamed_so_far(anywhere: Server):
    stall = Stall()
    anywhere.provider.add([*text("so far "), stall, *text("so good")])
    id = await anywhere.session()
    waiting = asyncio.create_task(anywhere.prompt(id))
    await anywhere.recorded("message.part.delta", 2)
    now = (await anywhere.messages(id))[-1]

    assert texts(now) == "so far "
    assert (await anywhere.api.get(f"/session/{id}/message/{now['info']['id']}")).json() == now
    stall.release()
    await waiting


async def test_pages_give_every_message_once(anywhere: Server):
    id = await anywhere.session()
    sent = [(await anywhere.prompt(id, f"{n}", noReply=True)).json() for n in range(7)]
    found: list[object] = []
    url = f"/session/{id}/message?limit=3"
    pages = 0
    while url:
        page = await anywhere.api.get(url)
        found = [*page.json(), *found]
        pages += 1
        assert ("x-next-cursor" in page.headers) == ("link" in page.headers)
        link = page.headers.get("link", "")
        if link:
            assert page.headers["access-control-expose-headers"] == "Link, X-Next-Cursor"
            assert link.endswith('>; rel="next"')
            cursor = page.headers["x-next-cursor"]
            decoded = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            assert decoded["id"] == page.json()[0]["info"]["id"]
            assert decoded["time"] == page.json()[0]["info"]["time"]["created"]
        url = link.partition(">")[0].lstrip("<")

    assert found == sent
    assert pages == 3


async def test_the_next_page_keeps_the_query_but_not_the_credential(server: Server):
    id = await server.session()
    for _ in range(2):
        await server.prompt(id, noReply=True)
    page = await server.api.get(f"/session/{id}/message?limit=1&directory={server.directory}&auth_token=abc")

    assert "directory=" in page.headers["link"]
    assert "auth_token" not in page.headers["link"]


async def test_without_a_limit_all_messages_come(server: Server):
    id = await server.session()
    for _ in range(150):
        await server.prompt(id, noReply=True)
    page = await server.api.get(f"/session/{id}/message")

    assert len(page.json()) == 150
    assert "link" not in page.headers


async def test_many_messages_come_in_pieces_and_are_the_same(server: Server, monkeypatch: pytest.MonkeyPatch):
    """All of a long session in one piece would be tens of megabytes, and others would wait while it is made."""
    id = await server.session()
    for number in range(9):
        await server.prompt(id, f"{number}", noReply=True)
    whole = [await server.api.get(f"/session/{id}/message{query}") for query in ("", "?limit=5")]
    monkeypatch.setattr(messages, "_PIECE_BYTES", 300)
    pieces = [await server.api.get(f"/session/{id}/message{query}") for query in ("", "?limit=5")]

    assert [answer.content for answer in whole] == [answer.content for answer in pieces]
    assert [answer.headers.get("link") for answer in whole] == [answer.headers.get("link") for answer in pieces]
    assert ["content-length" in answer.headers for answer in (*whole, *pieces)] == [True, True, False, False]
    assert (await server.api.head(f"/session/{id}/message")).content == b""
