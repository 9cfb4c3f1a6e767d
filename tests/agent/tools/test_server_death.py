"""Promise 5: what tools started dies with the server, however it dies. A real process runs real commands and is killed; a
witness pipe tells when the last process that held it is gone."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.tools import Processes, guardian
from holdfast.agent.tools.bash import Bash
from holdfast.agent.tools.processes import environment
from holdfast.core.messages import ToolPart, ToolRunning, ToolTimeStart
from holdfast.testing.other_processes import is_alive
from tests.agent.tools.world import Fifo

MakeFifo = Callable[[str], Fifo]

ROOT = Path(__file__).resolve().parents[3]
LINUX = sys.platform == "linux"

TREE = "sleep 1000 & (sleep 1000 & sleep 1000) & (trap '' TERM; sleep 1000) &" + (
    " setsid sleep 1000 & setsid setsid sleep 1000 &" if LINUX else ""
)
UNMARKED = "env -i sleep 1000 &"


class Server:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def facts(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, "the server ended"
        return json.loads(line)

    async def run(self, part: str, command: str) -> dict[str, Any]:
        """The first update: it was recorded, and nothing has run yet."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{part} {command}\n".encode())
        return await self.facts()

    async def run_to_the_end(self, part: str, command: str) -> dict[str, Any]:
        first = await self.run(part, command)
        while "result" not in await self.facts():
            pass
        return first

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A PATH on which everything is that these tests need, but not what sets the parent-death signal."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in ("bash", "env", "setsid", "sleep", "touch"):
        if (path := shutil.which(name)) is not None:
            (directory / name).symlink_to(path)
    return str(directory)


@pytest.fixture(params=["with the parent-death signal", "without the parent-death signal"])
async def server(
    request: pytest.FixtureRequest, tmp_path: Path, programs: str
) -> AsyncIterator[Callable[[], Awaitable[Server]]]:
    path = os.environ["PATH"]
    if request.param.startswith("without"):
        path = programs
    elif not LINUX or shutil.which("setpriv") is None:
        pytest.skip("there is no setpriv here, so there is no parent-death signal")
    (tmp_path / "project").mkdir()
    started: list[Server] = []

    async def start() -> Server:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("one_command_server.py")),
            str(tmp_path / "project"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PATH": path, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
        )
        started.append(Server(process))
        return started[-1]

    yield start
    for one in started:
        if one.process.returncode is None:
            await one.kill()


Start = Callable[[], Awaitable[Server]]


async def ended(pid: int) -> None:
    """Until a process that is not our child is dead."""
    if not LINUX:
        while guardian.started(pid) is not None:  # noqa: ASYNC110 - nothing to subscribe to
            await asyncio.sleep(0.01)
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    dead = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, dead.set)
    await dead.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)


def running(part: str, metadata: dict[str, Any] | None) -> ToolPart:
    state = ToolRunning(input={}, metadata=metadata, time=ToolTimeStart(start=0))
    return ToolPart(id=part, session_id="ses_1", message_id="msg_1", call_id="call_1", tool="bash", state=state)


async def test_a_server_killed_between_the_record_and_the_gate_has_not_run_the_command(
    server: Start, tmp_path: Path
) -> None:
    victim = await server()
    recorded = await victim.run("prt_gate!", "touch ran")
    group = recorded["metadata"]["process"]["group"]
    assert guardian.exists(group)

    await victim.kill()
    await ended(group)
    await ended(recorded["guardian"])

    assert not (tmp_path / "project" / "ran").exists()


async def test_kill_9_of_the_server_ends_the_whole_tree(server: Start, fifo: MakeFifo) -> None:
    witness = fifo("witness")
    victim = await server()
    recorded = await victim.run("prt_tree", f"{witness.hold} {TREE} {UNMARKED} echo ready; wait; touch ran")
    assert (await victim.facts())["metadata"]["output"] == "ready\n"
    assert await witness.line() == "up"

    await victim.kill()

    await witness.ended()
    await ended(recorded["guardian"])


async def test_what_survives_server_and_guardian_is_ended_after_the_restart(
    server: Start, fifo: MakeFifo, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    has_signal = "[with the" in request.node.name
    witness = fifo("witness")
    victim = await server()
    # With the signal the leader dies at once, and with it the proof that the group is ours: then the markers are left.
    tree = TREE if has_signal else f"{TREE} {UNMARKED}"
    recorded = await victim.run("prt_restart", f"{witness.hold} {tree} echo ready; sleep 1000; touch ran")
    newest = await victim.facts()
    assert await witness.line() == "up"

    os.kill(recorded["guardian"], signal.SIGKILL)
    await ended(recorded["guardian"])
    await victim.kill()
    if has_signal:
        await ended(newest["metadata"]["process"]["group"])
    assert not witness.has_ended()

    await Bash(Processes()).clean_up(running("prt_restart", newest["metadata"]))

    await witness.ended()
    assert not (tmp_path / "project" / "ran").exists()


async def test_background_processes_end_with_the_server_too(server: Start, fifo: MakeFifo) -> None:
    witness = fifo("witness")
    victim = await server()
    await victim.run_to_the_end("prt_background", f"{witness.hold} {TREE} true")
    assert await witness.line() == "up"

    await victim.kill()

    await witness.ended()


async def test_they_end_as_well_when_the_server_exits_and_forgets_to_close(server: Start, fifo: MakeFifo) -> None:
    witness = fifo("witness")
    victim = await server()
    await victim.run_to_the_end("prt_exit", f"{witness.hold} {TREE} true")
    assert await witness.line() == "up"

    await victim.stop()

    await witness.ended()


async def test_a_guardian_that_was_killed_is_replaced_and_its_successor_knows_what_lives(
    server: Start, fifo: MakeFifo
) -> None:
    old, new = fifo("old"), fifo("new")
    victim = await server()
    first = await victim.run_to_the_end("prt_old", f"{old.hold} {UNMARKED} true")
    os.kill(first["guardian"], signal.SIGKILL)
    await ended(first["guardian"])
    second = await victim.run_to_the_end("prt_new", f"{new.hold} {UNMARKED} true")
    assert await old.line() == await new.line() == "up"
    assert second["guardian"] != first["guardian"]

    await victim.kill()

    await old.ended()
    await new.ended()


async def test_the_guardian_outlives_signals_that_are_meant_for_the_server(server: Start, fifo: MakeFifo) -> None:
    witness = fifo("witness")
    victim = await server()
    recorded = await victim.run_to_the_end("prt_signals", f"{witness.hold} {TREE} true")
    assert await witness.line() == "up"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(recorded["guardian"], number)

    await victim.kill()

    await witness.ended()


# --- clean_up -----------------------------------------------------------------------------------------------------


async def test_clean_up_leaves_a_group_alone_that_only_has_the_same_number() -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "1000", start_new_session=True)
    try:
        recorded = {"output": "", "process": {"group": stranger.pid, "started": "1@another boot"}}

        await Bash(Processes()).clean_up(running("prt_stranger", recorded))

        assert guardian.is_alive(stranger.pid)
    finally:
        stranger.kill()
        await stranger.wait()


@pytest.mark.parametrize("group", [-1, 0, 1])
async def test_clean_up_never_takes_a_number_for_a_group_that_is_none(
    group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -1` would end everything that the user has: a damaged or foreign record must not lead there."""
    asked: list[Any] = []
    monkeypatch.setattr(guardian, "end", lambda groups, marker: asked.append((groups, marker)))
    monkeypatch.setattr(guardian, "started", lambda pid: "now")

    await Bash(Processes()).clean_up(running("prt_damaged", {"process": {"group": group, "started": "now"}}))

    assert asked == [(set(), "HOLDFAST_PART=prt_damaged")]


@pytest.mark.parametrize("metadata", [None, {}, {"process": 7}, {"process": {"group": "7", "started": 1}}])
async def test_clean_up_of_a_call_that_had_not_begun_does_nothing(metadata: dict[str, Any] | None) -> None:
    await Bash(Processes()).clean_up(running("prt_not_begun", metadata))


def test_a_server_that_a_tool_started_does_not_pass_on_the_markers_of_that_tool() -> None:
    assert environment({"HOLDFAST_PART": "prt_1", "HOLDFAST_GUARDIAN": "x", "HOME": "/"}) == {"HOME": "/"}


@pytest.mark.skipif(not LINUX, reason="markers are read from /proc")
def test_one_who_carried_the_marker_is_not_gone_before_it_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel takes a dying process's environment away first, and what it holds after that: for a moment it looked as if
    nothing was left, and a port or a lock was not free yet."""
    name, value = "HOLDFAST_PART", "prt_dying"
    command = ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done"]
    with subprocess.Popen(command, env={**os.environ, name: value}, stdout=subprocess.PIPE) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == b"up\n"
        environment_of, looks = guardian._environment, 0

        def gone_after_the_first_look(pid: str, user: int) -> list[bytes]:
            nonlocal looks
            looks += pid == str(dying.pid)
            return environment_of(pid, user) if looks < 2 else []

        monkeypatch.setattr(guardian, "_environment", gone_after_the_first_look)
        guardian.end(set(), f"{name}={value}")
        was_alive = is_alive(dying.pid)
        dying.kill()

    assert not was_alive


def test_the_start_of_a_process_tells_it_from_others() -> None:
    other = subprocess.Popen(["sleep", "1000"])
    try:
        assert guardian.started(os.getpid()) == guardian.started(os.getpid())
        assert guardian.started(other.pid) not in (None, guardian.started(os.getpid()))
    finally:
        other.kill()
        other.wait()
    assert guardian.started(other.pid) is None
