"""The routes of chats, as the transport calls them and as nobody should."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.scripted_provider import Stall, text
from tests.server.harness import Server


def message(words: str = "Hello", id: str = "u1", **more: Any) -> dict[str, Any]:
    return {"id": id, "role": "user", "parts": [{"type": "text", "text": words}], **more}


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "tides", "messages": messages or [message()], "trigger": "submit-message", **more}


async def settled(server: Server, url: str) -> list[dict[str, Any]]:
    """The chunks of an answer, once it is over."""
    offset, chunks = "-1", []
    while True:
        page = (await server.api.get(url, params={"live": "long-poll", "offset": offset})).raise_for_status()
        chunks += page.json() if page.content else []
        offset = page.headers["stream-next-offset"]
        if page.headers.get("stream-closed"):
            return chunks


async def test_an_answer_points_at_its_stream(server: Server) -> None:
    server.provider.add(text("Hi."))
    await server.session(id="ses_tides")
    answer = await server.api.post("/v1/chat", json=chat())

    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/stream/session/ses_tides/chat/msg_u1"
    assert answer.json() == {"streamUrl": answer.headers["location"]}
    assert (await settled(server, answer.headers["location"]))[-1]["type"] == "finish"


async def test_a_chat_begins_with_its_first_message(server: Server) -> None:
    server.provider.add(text("A title"))
    server.provider.add(text("Hi."))
    assert (await server.api.get("/v1/chat/tides/messages")).json() == []
    assert (await server.api.get("/v1/chat/tides/stream")).status_code == 204
    await server.api.post("/v1/chat", json=chat())

    assert (await server.api.get("/session/ses_tides")).json()["id"] == "ses_tides"


async def test_the_same_message_again_is_answered_once(server: Server) -> None:
    server.provider.add(text("Hi."))
    await server.session(id="ses_tides")
    answers = await asyncio.gather(*(server.api.post("/v1/chat", json=chat()) for _ in range(3)))
    chunks = await settled(server, answers[0].headers["location"])
    again = await server.api.post("/v1/chat", json=chat())

    assert {answer.headers["location"] for answer in [*answers, again]} == {answers[0].headers["location"]}
    assert await settled(server, again.headers["location"]) == chunks
    assert len(server.provider.requests) == 1


async def test_the_answer_under_way_is_found_until_it_is_over(server: Server) -> None:
    stall = Stall()
    server.provider.add([*text("One "), stall, *text("two.")])
    await server.session(id="ses_tides")
    posted = await server.api.post("/v1/chat", json=chat())
    await stall.reached.wait()
    found = await server.api.get("/v1/chat/tides/stream")
    assert (found.status_code, found.headers["location"]) == (200, posted.headers["location"])
    stall.release()
    await settled(server, found.headers["location"])

    assert (await server.api.get("/v1/chat/tides/stream")).status_code == 204


async def test_to_ask_again_may_be_repeated(server: Server) -> None:
    for words in ("One.", "Two."):
        server.provider.add(text(words))
    await server.session(id="ses_tides")
    await settled(server, (await server.api.post("/v1/chat", json=chat())).headers["location"])
    again = chat(trigger="regenerate-message", messageId="ans_u1")
    first = await server.api.post("/v1/chat", json=again)
    await settled(server, first.headers["location"])
    second = await server.api.post("/v1/chat", json=again)

    assert first.status_code == second.status_code == 201
    assert first.headers["location"] == second.headers["location"] != "/v1/stream/session/ses_tides/chat/msg_u1"
    assert len(server.provider.requests) == 2
    [_, answer] = (await server.api.get("/v1/chat/tides/messages")).json()
    assert answer["parts"][-1]["text"] == "Two."


async def test_what_a_turn_says_is_not_asked_again_while_it_runs(server: Server) -> None:
    stall = Stall()
    server.provider.add([stall, *text("One.")])
    await server.session(id="ses_tides")
    posted = await server.api.post("/v1/chat", json=chat())
    await stall.reached.wait()
    same = await server.api.post("/v1/chat", json=chat(trigger="regenerate-message"))
    other = await server.api.post("/v1/chat", json=chat(message("Changed"), messageId="u1"))
    stall.release()

    assert same.headers["location"] == posted.headers["location"]
    assert other.status_code == 409


async def test_files_agent_and_model_go_to_the_model(server: Server) -> None:
    server.provider.add(text("Nice."))
    await server.session(id="ses_tides")
    picture = {
        "type": "file",
        "mediaType": "image/png",
        "url": "data:image/png;base64,iVBORw0KGgo=",
        "filename": "a.png",
    }
    parts = [{"type": "text", "text": "Look"}, picture, {"type": "data-mood", "data": "calm"}]
    body = chat(message(parts=parts), agent="plan", model={"providerID": "scripted", "modelID": "other"})
    await settled(server, (await server.api.post("/v1/chat", json=body)).headers["location"])

    [prompt, _] = await server.messages("ses_tides")
    assert (prompt["info"]["agent"], prompt["info"]["model"]["modelID"]) == ("plan", "other")
    assert [part["type"] for part in prompt["parts"] if not part.get("synthetic")] == ["text", "file"]
    [shown, _] = (await server.api.get("/v1/chat/tides/messages")).json()
    assert shown["parts"] == [{"type": "text", "text": "Look"}, picture]


async def test_of_a_long_conversation_only_the_last_message_is_looked_at(server: Server) -> None:
    server.provider.add(text("Yes."))
    await server.session(id="ses_tides")
    old = {"id": "x", "role": "assistant", "parts": [{"type": "tool-x", "output": {"any": ["thing"]}, "state": "odd"}]}
    answer = await server.api.post("/v1/chat", json=chat(*[old] * 20, message(id="u2")))
    await settled(server, answer.headers["location"])

    [prompt, _] = await server.messages("ses_tides")
    assert prompt["info"]["id"] == "msg_u2"


BAD: list[tuple[Any, str]] = [
    ([], "not an object"),
    ({}, "no fields"),
    (chat(id=5), "an id that is no text"),
    (chat(id=""), "an empty id"),
    (chat(id="a/../b"), "an id with slashes"),
    (chat(id="x" * 101), "a long id"),
    (chat(message(id="two words")), "a message id with a space"),
    ({"id": "tides", "messages": []}, "no messages"),
    (chat({"id": "a", "role": "assistant", "parts": []}), "the last message is not the user's"),
    (chat(message(role="robot")), "an unknown role"),
    (chat(message(parts=[])), "no parts"),
    (chat(message(parts=[{"type": "data-x", "data": 1}])), "nothing for the model"),
    (chat(message(parts=[{"type": "text"}])), "text without text"),
    (chat(message(parts=[{"type": "file", "url": "data:,x"}])), "a file without a type"),
    (chat(message(parts=[{"type": "reasoning", "text": "x"}])), "a part that users do not have"),
    (chat(message("\0")), "NUL"),
    (chat(trigger="resume-stream"), "an unknown trigger"),
    (chat(messageId="two words"), "a replaced id with a space"),
    (chat(agent="nobody"), "an unknown agent"),
    (chat(model={"providerID": "scripted", "modelID": "none"}), "an unknown model"),
    (chat(model="scripted/main"), "a model that is no object"),
]


@pytest.mark.parametrize("body", [body for body, _ in BAD], ids=[reason for _, reason in BAD])
async def test_bad_requests_are_refused_with_a_reason_and_leave_nothing(server: Server, body: Any) -> None:
    before = await server.records()
    answer = await server.api.post("/v1/chat", json=body)

    assert answer.status_code == 400
    assert answer.json()["data"]["message"]
    assert await server.records() == before
    assert server.provider.requests == []


@pytest.mark.parametrize("id", ["two%20words", "%22", "x" * 101, "%E2%82%AC"])
async def test_what_is_no_id_is_refused(server: Server, id: str) -> None:
    answers = [
        await server.api.get(f"/v1/chat/{id}/stream"),
        await server.api.get(f"/v1/chat/{id}/messages"),
        await server.api.post(f"/v1/chat/{id}/stop"),
    ]

    assert {answer.status_code for answer in answers} <= {400, 404}


async def test_a_chat_that_was_deleted_is_not_begun_again(server: Server) -> None:
    await server.session(id="ses_tides")
    await server.api.delete("/session/ses_tides")

    assert (await server.api.post("/v1/chat", json=chat())).status_code == 409
    assert (await server.api.get("/v1/chat/tides/messages")).json() == []
    assert (await server.api.get("/v1/chat/tides/stream")).status_code == 204
    assert (await server.api.post("/v1/chat/tides/stop")).status_code == 404


async def test_a_prompt_of_any_other_client_has_its_answer_there_too(server: Server) -> None:
    server.provider.add(text("Hi."))
    session = await server.session()
    await server.prompt(session, messageID="msg_tui")
    chunks = await settled(server, f"/v1/stream/session/{session}/chat/msg_tui")

    assert "".join(chunk.get("delta", "") for chunk in chunks) == "Hi."


async def test_a_page_of_an_admitted_origin_may_read_where_its_answer_is(tmp_path: Path) -> None:
    async with Server(tmp_path, scripts=[text("Hi.")], cors=("https://app.example",)) as server:
        await server.session(id="ses_tides")
        friend, stranger = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
        asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
        preflight = await server.api.options("/v1/chat", headers={**friend, **asks})
        answer = await server.api.post("/v1/chat", json=chat(), headers=friend)
        refused = await server.api.post("/v1/chat", json=chat(message(id="u2")), headers=stranger)

        assert preflight.headers["access-control-allow-headers"] == "content-type"
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert "Location" in answer.headers["access-control-expose-headers"]
        assert refused.status_code == 403
        assert len(await server.messages("ses_tides")) <= 2


async def test_a_password_guards_chats_and_their_streams(tmp_path: Path) -> None:
    async with Server(tmp_path, scripts=[text("Hi.")], password="pw") as server:
        known = ("opencode", "pw")
        await server.api.post("/session", json={"id": "ses_tides", "title": "t"}, auth=known)
        assert (await server.api.post("/v1/chat", json=chat())).status_code == 401
        url = (await server.api.post("/v1/chat", json=chat(), auth=known)).headers["location"]
        bare = url.partition("?")[0]
        assert (await server.api.get(bare)).status_code == 401
        assert (await server.api.get("/v1/chat/tides/messages")).status_code == 401
        assert (await server.api.get(bare, auth=known)).status_code == 200
        assert (await server.api.get(url)).status_code == 200, "the answer brought a link to read it by"
