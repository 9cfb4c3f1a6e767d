"""The AI SDK's chat and the stock transport on Holdfast sessions: nothing of an answer is lost, or there twice."""

import contextlib
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.providers.base import ProviderError
from holdfast.testing.model_server import ModelServer
from holdfast.testing.scripted_provider import Stall, call, cut, reasoning, text
from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command
from tests.kill.arena import opencode_json
from tests.kill.scenarios import tokens
from tests.server.aisdk.page import ChatPage, plain
from tests.server.harness import CONFIG, Server

ASK = [{"permission": "bash", "pattern": "*", "action": "ask"}]


def basic(password: str) -> dict[str, str]:
    return {"authorization": "Basic " + b64encode(f"opencode:{password}".encode()).decode()}


async def opened(server: Server, page: ChatPage) -> None:
    """The page of chat `tides`, whose session is there already (so that the LLM is not asked for a title)."""
    await server.session(id="ses_tides")
    await page.done("open", id="tides")


async def history(server: Server, id: str) -> list[dict[str, Any]]:
    return (await server.api.get(f"/v1/chat/{id}/messages")).raise_for_status().json()


async def test_a_turn_streams_and_shows_what_the_history_has(tmp_path: Path) -> None:
    scripts = [[*reasoning("Hm. "), *text("Look. "), *call("bash", {"command": "echo found"})], text("It is there.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server, ChatPage(await server.listen()) as page:
        await opened(server, page)
        await page.done("send", text="Where is it?")
        stored = await history(server, "tides")

        assert page.status == "ready"
        assert page.text(0) == "Where is it?"
        assert page.text() == "Look. It is there."
        assert [part["type"] for part in page.messages[1]["parts"]] == [
            *("step-start", "reasoning", "text", "dynamic-tool", "step-start", "text")
        ]
        tool = page.messages[1]["parts"][3]
        assert (tool["state"], tool["output"]["output"].strip()) == ("output-available", "found")
        assert plain(page.messages[1]) == stored[1]

        await page.done("open", id="tides")
        assert page.found("opened")[-1] == stored
        assert page.found("error") == []


@pytest.mark.parametrize("again", ["same page", "new page"])
async def test_a_chat_that_was_cut_off_goes_on_where_it_was(tmp_path: Path, again: str) -> None:
    stall = Stall()
    script = [*text("The tide "), stall, *text("comes back.")]
    async with Server(tmp_path, tmp_path / "data", [script]) as server, ChatPage(await server.listen()) as page:
        await opened(server, page)
        page.do("send", text="What does the tide do?")
        await page.until(lambda page: page.text() == "The tide ")
        await page.done("leave")
        if again == "new page":
            page.do("open", id="tides")
            await page.until(lambda page: len(page.found("opened")) == 2)
            assert [len(message["parts"]) for message in page.found("opened")[1]] == [1, 2]
        else:
            page.do("resume")
        await page.until(lambda page: page.status == "streaming")
        stall.release()
        await page.until(lambda page: page.status == "ready")

        assert [page.text(0), page.text(1)] == ["What does the tide do?", "The tide comes back."]
        assert [plain(message) for message in page.messages][1] == (await history(server, "tides"))[1]


@contextlib.asynccontextmanager
async def answering(
    tmp_path: Path, password: str = "", **options: Any
) -> AsyncIterator[tuple[ServerProcess, ChatPage]]:
    """A page in the middle of an answer of `tokens(20)`, from a server that can be killed."""
    async with ModelServer() as model:
        (tmp_path / "opencode.json").write_text(json.dumps(opencode_json(model.url)))
        command = holdfast_command("serve", "--port", str(free_port()), "--data", str(tmp_path / "data"))
        environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config"), "OPENCODE_SERVER_PASSWORD": password}
        with ServerProcess(command, cwd=tmp_path, log=tmp_path / "log", env=environ) as server:
            async with ChatPage(server.url) as page:
                await page.done("open", id="tides", headers=basic(password) if password else {}, **options)
                page.do("send", text="[[tokens=20]] [[stall=8]] [[times=1]]")
                await page.until(lambda page: page.text().endswith("tok7 "))
                yield server, page


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"browser": True, "replay": True}, {"password": "pw"}])
async def test_the_server_is_killed_in_the_middle_of_an_answer(tmp_path: Path, options: dict[str, Any]) -> None:
    async with answering(tmp_path, **options) as (server, page):
        server.kill()
        server.start()
        await page.until(lambda page: page.count(done="send"))
        if page.status == "error":  # nearly always; not if the death fell between two requests, for then it asks again
            await page.done("resume")

        assert page.status == "ready"
        assert [message["role"] for message in page.messages] == ["user", "assistant"]
        assert page.text() == tokens(20)


@pytest.mark.slow
@pytest.mark.parametrize("password", ["", "pw"])
async def test_a_restart_in_good_order_is_not_noticed_by_the_page(tmp_path: Path, password: str) -> None:
    async with answering(tmp_path, password) as (server, page):
        assert server.stop() == 0
        server.start()
        await page.until(lambda page: page.count(done="send"))

        assert page.found("error") == []
        assert page.status == "ready"
        assert page.text() == tokens(20)


async def test_a_server_with_a_password_is_used_with_the_headers_of_the_transport(tmp_path: Path) -> None:
    """The transport sends them with its questions only. It reads by the link that it is answered."""
    stall = Stall()
    scripts = [[*text("The tide "), stall, *text("comes back.")]]
    async with (
        Server(tmp_path, tmp_path / "data", scripts, password="pw") as server,
        ChatPage(await server.listen()) as page,
    ):
        server.api.headers.update(basic("pw"))
        await server.session(id="ses_tides")
        await page.done("open", id="tides", headers=basic("pw"))
        page.do("send", text="What does the tide do?")
        await page.until(lambda page: page.text() == "The tide ")
        place = (await server.api.get("/v1/chat/tides/stream")).headers["location"]
        await page.done("leave")
        page.do("resume")
        await page.until(lambda page: page.status == "streaming")
        stall.release()
        await page.until(lambda page: page.count(done="resume"))

        assert page.found("error") == []
        assert page.text() == "The tide comes back."
        async with server.client() as stranger:
            assert (await stranger.get(place)).json()[-1] == {"type": "finish", "finishReason": "stop"}
            assert (await stranger.get(place.partition("?")[0])).status_code == 401
            assert (await stranger.get(place.replace("ses_tides", "ses_other"))).status_code == 403
            assert (await stranger.get("/v1/chat/tides/messages")).status_code == 401


async def test_without_a_key_to_make_links_with_a_proxy_has_to_add_the_password(tmp_path: Path) -> None:
    environ = {"OPENCODE_CONFIG_CONTENT": json.dumps(CONFIG), "HOLDFAST_AUTH_KEY": "nonsense"}
    async with Server(tmp_path, scripts=[text("Yes.")], password="pw", environ=environ) as server:
        server.api.headers.update(basic("pw"))
        message = {"id": "one", "role": "user", "parts": [{"type": "text", "text": "Go"}]}
        answer = await server.api.post("/v1/chat", json={"id": "tides", "messages": [message]})
        assert (answer.status_code, answer.json()) == (201, {"streamUrl": "/v1/stream/session/ses_tides/chat/msg_one"})


async def test_a_model_that_fails_is_an_error_and_the_history_says_so(tmp_path: Path) -> None:
    scripts = [[*text("Half a"), ProviderError("Out of credit")]]
    async with Server(tmp_path, tmp_path / "data", scripts) as server, ChatPage(await server.listen()) as page:
        await opened(server, page)
        await page.done("send", text="Go")

        assert page.status == "error"
        assert page.found("error") == ["Out of credit"]
        assert page.text() == "Half a"
        [_, answer] = await history(server, "tides")
        assert answer["metadata"]["outcome"] == "failed"
        assert plain(page.messages[1]) == answer


async def test_a_model_whose_answer_breaks_off_is_asked_to_go_on(tmp_path: Path) -> None:
    scripts = [[*text("Half a sent"), cut()], text("ence.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server, ChatPage(await server.listen()) as page:
        await opened(server, page)
        await page.done("send", text="Go")

        assert page.text() == "Half a sentence."
        assert [data["type"] for data in page.found("data") if data.get("transient")] == ["data-status", "data-status"]


async def test_a_permission_is_asked_for_at_its_call(tmp_path: Path) -> None:
    scripts = [call("bash", {"command": "echo permitted"}), text("Done.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server, ChatPage(await server.listen()) as page:
        session = await server.session(permission=ASK)
        await page.done("open", id=session)
        page.do("send", text="Run it")
        await page.until(lambda page: _tool(page).get("state") == "approval-requested")
        assert (await history(server, session))[1]["parts"][1]["state"] == "approval-requested"
        approval = _tool(page)["approval"]["id"]
        await server.api.post(f"/permission/{approval}/reply", json={"reply": "once"})
        await page.until(lambda page: page.count(done="send"))

        assert _tool(page)["output"]["output"].strip() == "permitted"
        assert page.text() == "Done."


async def test_an_answer_is_stopped_and_what_was_said_stays(tmp_path: Path) -> None:
    async with (
        Server(tmp_path, tmp_path / "data", [[*text("On and "), Stall()], text("Yes?")]) as server,
        ChatPage(await server.listen()) as page,
    ):
        await opened(server, page)
        page.do("send", text="Go")
        await page.until(lambda page: page.text() == "On and ")
        await page.done("stop")
        await page.until(lambda page: page.count(done="send"))
        assert page.found("stopped") == [204]
        assert page.messages[1]["metadata"]["outcome"] == "aborted"

        await page.done("send", text="Are you there?")
        assert [page.text(at) for at in range(4)] == ["Go", "On and ", "Are you there?", "Yes?"]


async def test_an_answer_is_asked_for_again_and_a_question_is_changed(tmp_path: Path) -> None:
    scripts = [text("One."), text("Two."), text("Three."), text("Four.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server, ChatPage(await server.listen()) as page:
        await opened(server, page)
        await page.done("send", text="Count")
        first = page.messages[1]["id"]
        await page.done("regenerate", messageId=first)
        assert [page.text(at) for at in range(len(page.messages))] == ["Count", "Two."]
        await page.done("regenerate")
        assert page.text() == "Three."
        await page.done("send", text="Count on", message={"messageId": page.messages[0]["id"]})
        assert [page.text(at) for at in range(len(page.messages))] == ["Count on", "Four."]

        stored = await history(server, "tides")
        assert [message["parts"][-1]["text"] for message in stored] == ["Count on", "Four."]


def _tool(page: ChatPage) -> dict[str, Any]:
    parts = [part for message in page.messages for part in message["parts"]]
    return next((part for part in parts if part["type"] == "dynamic-tool"), {})
