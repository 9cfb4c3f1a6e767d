"""Prompts that were dropped, and prompts that were answered twice.

An interrupt of OpenCode's running turn silently dropped the messages that waited behind it (anomalyco/opencode 40955,
5333, 15853). And as it ordered messages by ids that clients make from their clocks, a clock that was wrong had
prompts answered again and again, or never (29478, 27928, 21335). A double click created several sessions (40224).
"""

import asyncio
from pathlib import Path

import pytest

from holdfast.testing.scripted_provider import Stall, text
from tests.server.harness import Server, prompt, texts


async def test_an_interrupt_leaves_the_prompts_that_wait(tmp_path: Path) -> None:
    scripts = [[*text("First "), Stall()], text("Second."), text("Third.")]
    async with Server(tmp_path, tmp_path / "data", scripts) as server, asyncio.timeout(90):
        session = await server.session()
        for number in range(3):
            body = prompt(str(number), messageID=f"msg_{number}")
            await server.api.post(f"/session/{session}/prompt_async", json=body)
        await server.recorded("message.part.delta")
        await server.api.post(f"/session/{session}/abort")
        await server.recorded("turn.ended", 3)

        answers = [m for m in await server.messages(session) if m["info"]["role"] == "assistant"]
        assert [texts(answer).strip() for answer in answers] == ["First", "Second.", "Third."]


@pytest.mark.parametrize("ids", [["msg_zzz", "msg_000"], ["msg_000", "msg_zzz"]])
async def test_each_prompt_is_answered_once_whatever_the_clients_clock_says(tmp_path: Path, ids: list[str]) -> None:
    async with Server(tmp_path, tmp_path / "data", [text("One."), text("Two.")]) as server, asyncio.timeout(90):
        session = await server.session()
        answers = [await server.prompt(session, messageID=id) for id in ids]
        again = [await server.prompt(session, messageID=id) for id in ids]

        assert [texts(answer.json()) for answer in answers] == ["One.", "Two."]
        assert [answer.json() for answer in again] == [answer.json() for answer in answers]
        assert len(server.provider.requests) == 2
        order = [m["info"].get("parentID", m["info"]["id"]) for m in await server.messages(session)]
        assert order == [ids[0], ids[0], ids[1], ids[1]]


async def test_a_double_click_creates_one_session(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data") as server:
        created = await asyncio.gather(*(server.api.post("/session", json={"id": "ses_click"}) for _ in range(5)))

        assert len({answer.json()["slug"] for answer in created}) == 1
        assert len((await server.api.get("/session")).json()) == 1
