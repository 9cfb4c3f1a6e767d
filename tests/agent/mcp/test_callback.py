"""The page that a browser comes back to after a login believes only who brings the login's `state`."""

import asyncio
from typing import Any

import pytest

from holdfast.agent.mcp.base import ServerFailed
from holdfast.agent.mcp.callback import listening
from holdfast.agent.mcp.logins import Attempt
from holdfast.testing.server_process import free_port


async def status(port: int, target: str) -> int:
    """0 if there is no answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(60):
            line = await reader.readline()
        return int(line.split()[1]) if line else 0
    finally:
        writer.close()


async def test_only_the_right_state_brings_the_code() -> None:
    attempt, port = Attempt(), free_port()
    async with listening(f"http://127.0.0.1:{port}/back", attempt):
        attempt.ask("https://login.example/authorize?state=right")
        for target, expected in {
            "/other?state=right&code=x": 404,
            "//[?state=right&code=x": 404,
            "/back?state=wrong&code=x": 400,
            "/back?code=x": 400,
        }.items():
            assert await status(port, target) == expected
            assert not attempt.code.done()
        assert await status(port, "/back?state=right&code=1") == 200
        assert await attempt.code == "1"


async def test_a_refusal_ends_the_login() -> None:
    attempt, port = Attempt(), free_port()
    async with listening(f"http://127.0.0.1:{port}/back", attempt):
        attempt.ask("https://login.example/authorize?state=right")
        assert await status(port, "/back?state=right&error=access_denied") == 400
        with pytest.raises(ServerFailed):
            await attempt.code


@pytest.mark.parametrize("moment", ["before the user is asked", "of a question without a state", "when it is over"])
async def test_who_comes_at_another_time_is_sent_away(moment: str) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    attempt, port = Attempt(), free_port()
    async with listening(f"http://127.0.0.1:{port}/back", attempt):
        if moment == "of a question without a state":
            attempt.ask("https://login.example/authorize")
        elif moment == "when it is over":
            attempt.finish()
        assert [await status(port, f"/back?{query}code=x") for query in ("", "state=&", "state=y&")] == [400] * 3
        assert not attempt.code.done() or attempt.code.cancelled()
    assert complaints == []
