"""How one server is kept connected, and what its tools are called."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.agent.mcp.base import ListedTool, ServerFailed
from holdfast.agent.mcp.servers import PAUSE_MS, PAUSE_MS_MAX, McpServer
from holdfast.agent.mcp.tools import NAME_LENGTH_MAX, tool_id, tools_of
from holdfast.agent.tools import Processes
from holdfast.core.config import McpConfig
from holdfast.core.mcp import McpConnected, McpDisabled, McpFailed
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.other_processes import read
from tests.agent.mcp.servers import raw


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    processes = Processes()
    yield processes
    await processes.close()


def server(processes: Processes, clock: ManualClock, directory: Path, command: list[str]) -> McpServer:
    return McpServer(
        "raw",
        McpConfig(type="local", command=tuple(command)),
        directory=str(directory),
        processes=processes,
        clock=clock,
        changed=lambda name: None,
    )


async def test_a_server_that_fails_is_tried_again_after_pauses_that_grow(processes: Processes, tmp_path: Path):
    clock = ManualClock()
    failing = server(processes, clock, tmp_path, ["/nonexistent/program"])
    failing.start()
    await failing.ready()
    assert failing.status == McpFailed(error="There is no program '/nonexistent/program'.")
    pauses: list[int] = []
    async with asyncio.timeout(60):
        for _ in range(11):
            deadline = await clock.until_sleeping()
            pauses.append(deadline - clock.now_ms())
            clock.advance_to(deadline)
            while clock.deadlines == [deadline]:  # noqa: ASYNC110 - the sleeper wakes, and tells nobody
                await asyncio.sleep(0)
    await failing.close()

    assert pauses[:4] == [PAUSE_MS, 2 * PAUSE_MS, 4 * PAUSE_MS, 8 * PAUSE_MS]
    assert pauses[-1] == PAUSE_MS_MAX
    assert failing.status == McpDisabled()


async def test_a_call_does_not_wait_for_the_pause_and_a_dead_server_keeps_its_tools(
    processes: Processes, tmp_path: Path
):
    log = tmp_path / "log"
    dying = server(processes, ManualClock(), tmp_path, raw(log))
    dying.start()
    await dying.ready()
    tools = dying.tools
    assert {"die", "count"} < {tool.name for tool in tools}
    with pytest.raises(ServerFailed, match="not known"):
        await dying.call("die", {})
    assert dying.tools == tools
    assert (await dying.call("count", {})).text == "count"  # no time has passed
    assert dying.status == McpConnected()
    await dying.close()

    assert read(log).count("start") == 2
    with pytest.raises(ServerFailed, match="cannot be reached: disabled"):
        await dying.call("count", {})


async def test_a_server_that_was_closed_can_be_started_again(processes: Processes, tmp_path: Path):
    again = server(processes, ManualClock(), tmp_path, raw(tmp_path / "log"))
    for _ in range(2):
        again.start()
        await again.ready()
        assert again.status == McpConnected()
        await again.close()
        assert (again.status, again.tools) == (McpDisabled(), ())


def test_names_are_what_providers_take_and_long_ones_stay_apart():
    assert tool_id("my server", "read.file") == "my_server_read_file"
    first, second = tool_id("s", "x" * 100 + "1"), tool_id("s", "x" * 100 + "2")
    assert first != second
    assert len(first) == len(second) == NAME_LENGTH_MAX


async def test_a_name_that_is_taken_is_not_given_again(processes: Processes, tmp_path: Path):
    one = server(processes, ManualClock(), tmp_path, ["true"])
    one.tools = (
        ListedTool(name="a", description="", parameters={}),
        ListedTool(name="b", description="", parameters={}),
    )

    assert [tool.id for tool in tools_of([one], {"raw_a", "bash"})] == ["raw_b"]


async def test_the_library_is_not_imported_before_a_server_is_connected():
    code = "import sys, holdfast.bootstrap; sys.exit('mcp' in sys.modules)"
    python = await asyncio.create_subprocess_exec(sys.executable, "-c", code)

    assert await python.wait() == 0
