"""Events that were lost while a client was away.

OpenCode's event streams have no `id:`, and ignore `Last-Event-ID`: a client whose connection broke for a second lost
what was said in it, and the web page stayed as it was, for ever. (anomalyco/opencode 25657, 29544, 19584, 13947)
"""

from pathlib import Path

import pytest

from holdfast.testing.scripted_provider import text
from tests.server.harness import Server


@pytest.mark.parametrize("path", ["/event", "/global/event"])
async def test_a_client_that_comes_back_gets_what_it_missed(tmp_path: Path, path: str) -> None:
    async with Server(tmp_path, tmp_path / "data", [text("Said while you were away.")]) as server:
        await server.listen()
        session = await server.session()
        async with server.events(path) as before:
            await server.prompt(session, "first", noReply=True)
            last = (await before.until("message.part.updated"))[-1]
        await server.prompt(session)
        async with server.events(path, headers={"Last-Event-ID": last.id or ""}) as after:
            missed = await after.until("session.idle")

        deltas = [frame.json.get("payload", frame.json) for frame in missed if frame.type == "message.part.delta"]
        assert "".join(delta["properties"]["delta"] for delta in deltas) == "Said while you were away."


async def test_a_client_that_never_says_where_it_was_is_shown_how_things_are(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data", [text("Said while you were away.")]) as server:
        await server.listen()
        session = await server.session()
        async with server.events() as before:
            await before.next()
        await server.prompt(session)
        async with server.events() as after:
            shown = await after.until("session.status")

        parts = [frame.json["properties"]["part"] for frame in shown if frame.type == "message.part.updated"]
        assert "Said while you were away." in [part.get("text") for part in parts]
