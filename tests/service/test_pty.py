"""Terminals: a program in a pty that many can follow, and that never outlives the server."""

import asyncio
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from holdfast.agent.tools import Processes
from holdfast.agent.tools.pipes import OutputPipe
from holdfast.agent.tools.terminals import Terminal
from holdfast.core.errors import Denied, Invalid, NotFound, Unavailable
from holdfast.core.workspace import Pty, PtySize
from holdfast.service import pty as pty_module
from holdfast.service.pty import Connection, NewPty, PtyEvent, PtyExited, PtyPatch, PtyService
from holdfast.service.screens import UNITS_MAX, Screen
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.other_processes import is_alive, until


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def service(clock: ManualClock) -> AsyncIterator[PtyService]:
    processes = Processes()
    service = PtyService(processes, clock=clock, environ=os.environ)
    yield service
    await service.close()
    await processes.close()


@pytest.fixture
def home(tmp_path: Path) -> str:
    return str(tmp_path.resolve())


def sh(command: str) -> NewPty:
    return NewPty(command="/bin/sh", args=("-c", command))


async def read_to_end(connection: Connection) -> str:
    text = ""
    async with asyncio.timeout(60):
        while await connection.more():
            text += connection.take(1000)
    return text


async def read_until(connection: Connection, wanted: str) -> str:
    text = ""
    async with asyncio.timeout(60):
        while wanted not in text:
            assert await connection.more(), text
            text += connection.take(1000)
    return text


async def exited(service: PtyService, home: str, id: str) -> Pty:
    await read_to_end(service.connect(id))
    return service.get(home, id)


# --- programs ---------------------------------------------------------------------------------------------------


async def test_a_program_has_a_terminal_and_what_it_shows_can_be_read(service: PtyService, home: str) -> None:
    info = await service.create(home, sh("test -t 0 && test -t 1 && tty && pwd && echo $TERM && exit 3"))
    assert (info.status, info.cwd, info.command) == ("running", home, "/bin/sh")
    text = await read_to_end(service.connect(info.id))
    assert text.endswith(f"{home}\r\nxterm-256color\r\n")
    ended = service.get(home, info.id)
    assert (ended.status, ended.exit_code, ended.pid) == ("exited", 3, info.pid)


async def test_it_is_the_controlling_terminal_so_that_interrupts_work(service: PtyService, home: str) -> None:
    info = await service.create(
        home, sh("trap 'echo interrupted; exit 7' INT; echo ready; while :; do sleep 0.1; done")
    )
    connection = service.connect(info.id)
    await read_until(connection, "ready")
    connection.type("\x03")
    assert "interrupted" in await read_to_end(connection)
    assert service.get(home, info.id).exit_code == 7


async def test_interrupts_and_hang_ups_work_though_the_server_ignores_them(service: PtyService, home: str) -> None:
    """A server that a script, or `nohup`, put into the background."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        info = await service.create(
            home, sh("trap 'echo interrupted; kill -HUP $$' INT; echo ready; while :; do sleep 0.1; done")
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    connection = service.connect(info.id)
    await read_until(connection, "ready")
    connection.type("\x03")
    assert "interrupted" in await read_to_end(connection)
    assert service.get(home, info.id).status == "exited"


async def test_what_is_typed_arrives(service: PtyService, home: str) -> None:
    info = await service.create(home, sh('read line; echo "got $line"'))
    connection = service.connect(info.id)
    connection.type("héllo 😀\n")
    assert "got héllo 😀\r\n" in await read_to_end(connection)


async def test_a_lot_may_be_typed_at_once(service: PtyService, home: str) -> None:
    info = await service.create(home, sh("stty raw -echo; echo ready; head -c 300000 | wc -c"))
    connection = service.connect(info.id)
    await read_until(connection, "ready")
    connection.type("x" * 300_000)
    assert "300000" in await read_to_end(connection)


async def test_a_program_that_is_broken_by_a_pipe_ends_as_it_would_elsewhere(service: PtyService, home: str) -> None:
    info = await service.create(home, NewPty(command="/bin/bash", args=("-c", "yes | head -n1; echo ${PIPESTATUS[0]}")))
    assert await read_to_end(service.connect(info.id)) == "y\r\n141\r\n"


async def test_the_size_is_told_to_the_program(service: PtyService, home: str) -> None:
    info = await service.create(
        home, sh("stty size; trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done")
    )
    connection = service.connect(info.id)
    assert "24 80" in await read_until(connection, "ready")
    service.update(home, info.id, PtyPatch(size=PtySize(rows=10, cols=40)))
    assert "10 40" in await read_to_end(connection)
    for size in (PtySize(rows=0, cols=1), PtySize(rows=1, cols=1_000_000)):
        with pytest.raises(Invalid):
            service.update(home, info.id, PtyPatch(size=size))


async def test_the_environment_has_what_was_asked_for_and_no_secret_of_the_server(
    service: PtyService, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the user's own terminal: keys of LLMs stay in it, as in any other."""
    monkeypatch.setenv("OPENCODE_SERVER_PASSWORD", "hunter2")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of-the-user")
    request = NewPty(command="/bin/sh", args=("-c", "env"), env={"MINE": "yes", "HOLDFAST_GUARDIAN": "none"})
    info = await service.create(home, request)
    text = await read_to_end(service.connect(info.id))
    assert "MINE=yes\r\n" in text
    assert "ANTHROPIC_API_KEY=of-the-user" in text
    assert "hunter2" not in text
    assert "HOLDFAST_GUARDIAN=none" not in text


async def test_without_a_command_it_is_the_users_shell_as_a_login_shell(clock: ManualClock, home: str) -> None:
    processes = Processes()
    service = PtyService(processes, clock=clock, environ={"SHELL": "/bin/sh", "PATH": os.environ["PATH"]})
    info = await service.create(home, NewPty(title="Mine"))
    assert (info.command, info.args, info.title) == ("/bin/sh", ("-l",), "Mine")
    assert service.shells()[0].path == "/bin/sh"
    await service.close()
    await processes.close()


@pytest.mark.parametrize(
    "request_",
    [
        NewPty(command="/no/such/program"),
        NewPty(command="no-such-program"),
        NewPty(command="/"),
        NewPty(cwd="/no/such/directory"),
        NewPty(cwd="relative"),
        NewPty(command="/bin/sh", args=("a\0b",)),
        NewPty(env={"A=B": "x"}),
        NewPty(env={"": "x"}),
        NewPty(title="x" * 100_000),
        NewPty(command="/bin/sh", args=("\ud800",)),
    ],
)
async def test_what_cannot_be_run_is_refused_and_nothing_is_left(
    service: PtyService, home: str, request_: NewPty
) -> None:
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(Invalid):
        await service.create(home, request_)
    assert service.list(home) == ()
    assert len(os.listdir("/dev/fd")) == before


# --- readers ----------------------------------------------------------------------------------------------------


async def test_a_reader_that_comes_back_goes_on_where_it_was(service: PtyService, home: str) -> None:
    info = await service.create(home, sh("echo one 😀; read x; echo two; read x; echo three"))
    first = service.connect(info.id)
    seen = await read_until(first, "one 😀\r\n")
    assert first.cursor == len(seen.encode("utf-16-le")) // 2
    first.type("\n")
    await read_until(service.connect(info.id, first.cursor), "two")
    first.type("\n")
    rest = await read_to_end(service.connect(info.id, first.cursor))
    assert rest.endswith("three\r\n")
    assert seen + rest == await read_to_end(service.connect(info.id))
    assert await read_to_end(service.connect(info.id, None)) == ""
    assert await read_to_end(service.connect(info.id, 10**9)) == ""


async def test_a_slow_reader_does_not_hold_up_the_program_or_another_reader(service: PtyService, home: str) -> None:
    info = await service.create(home, sh("head -c 6000000 /dev/zero | tr '\\0' x; echo; echo done"))
    slow = service.connect(info.id)
    assert (await read_to_end(service.connect(info.id))).endswith("done\r\n")
    text = slow.take(10_000_000)
    assert text.endswith("done\r\n")
    assert len(text) == UNITS_MAX


# --- the list ---------------------------------------------------------------------------------------------------


async def test_a_terminal_belongs_to_its_directory(service: PtyService, home: str, tmp_path: Path) -> None:
    info = await service.create(home, sh("read x"))
    assert [pty.id for pty in service.list(home)] == [info.id]
    assert service.list("/elsewhere") == ()
    for call in (service.get, service.ticket):
        with pytest.raises(NotFound):
            call("/elsewhere", info.id)
    renamed = service.update(home, info.id, PtyPatch(title="New"))
    assert service.get(home, info.id) == renamed
    assert renamed.title == "New"


async def test_a_removed_terminal_is_gone_with_all_it_started(service: PtyService, home: str) -> None:
    info = await service.create(home, sh("trap '' HUP TERM; setsid sleep 1000 & echo $!; sleep 1000"))
    connection = service.connect(info.id)
    child = int((await read_until(connection, "\n")).strip())
    await service.remove(home, info.id)
    assert not is_alive(child)
    assert not is_alive(info.pid)
    assert await read_to_end(connection) == ""
    with pytest.raises(NotFound):
        service.get(home, info.id)
    with pytest.raises(NotFound):
        await service.remove(home, info.id)


async def test_ended_terminals_are_not_listed_and_only_the_newest_are_kept(service: PtyService, home: str) -> None:
    ids: list[str] = []
    for _ in range(pty_module.EXITED_KEPT + 2):
        info = await service.create(home, sh("echo bye"))
        ids.append(info.id)
        await exited(service, home, info.id)
    assert service.list(home) == ()
    with pytest.raises(NotFound):
        service.get(home, ids[0])
    assert await read_to_end(service.connect(ids[-1])) == "bye\r\n"


async def test_there_is_a_limit_to_how_many(service: PtyService, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pty_module, "RUNNING_MAX", 1)
    await service.create(home, sh("read x"))
    with pytest.raises(Unavailable):
        await service.create(home, sh("read x"))


async def test_what_happens_is_announced(service: PtyService, home: str) -> None:
    told: list[tuple[str, PtyEvent]] = []
    service.announce = lambda directory, event: told.append((directory, event))
    info = await service.create(home, sh("read x; exit 4"))
    service.update(home, info.id, PtyPatch(title="T"))
    service.connect(info.id).type("\n")
    await exited(service, home, info.id)
    await service.remove(home, info.id)
    assert [type(event).__name__ for _, event in told] == ["PtyCreated", "PtyUpdated", "PtyExited", "PtyDeleted"]
    assert told[2] == (home, PtyExited(id=info.id, exit_code=4))


# --- tickets ----------------------------------------------------------------------------------------------------


async def test_a_ticket_opens_one_terminal_once_and_soon(service: PtyService, home: str, clock: ManualClock) -> None:
    one = (await service.create(home, sh("read x"))).id
    other = (await service.create(home, sh("read x"))).id
    ticket = service.ticket(home, one).ticket
    service.redeem(one, ticket)
    for id, text in ((one, ticket), (one, ""), (other, service.ticket(home, one).ticket)):
        with pytest.raises(Denied):
            service.redeem(id, text)
    late = service.ticket(home, one)
    clock.advance(late.expires_in * 1000)
    with pytest.raises(Denied):
        service.redeem(one, late.ticket)


# --- the server's end -------------------------------------------------------------------------------------------

SERVER = """
import asyncio, os
from holdfast.agent.tools import Processes
from holdfast.service.pty import NewPty, PtyService

class Clock:
    def now_ms(self): return 0
    async def sleep_until(self, deadline_ms): ...

async def main():
    service = PtyService(Processes(), clock=Clock(), environ=os.environ)
    command = "trap '' HUP TERM; (trap '' HUP; exec sleep 1000) & echo $$ $! end; sleep 1000"
    info = await service.create("/", NewPty(command="/bin/sh", args=("-c", command)))
    connection = service.connect(info.id)
    text = ""
    while "end" not in text:
        await connection.more()
        text += connection.take(100)
    print(text, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_kill_9_of_the_server_leaves_nothing_of_a_terminal_behind() -> None:
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", SERVER, stdout=subprocess.PIPE)
    assert server.stdout is not None
    pids = [int(word) for word in (await server.stdout.readline()).split()[:2]]
    assert all(is_alive(pid) for pid in pids)
    server.send_signal(signal.SIGKILL)
    await server.wait()
    await until(lambda: not any(is_alive(pid) for pid in pids))


async def test_a_terminal_that_cannot_be_read_any_more_is_over(
    service: PtyService, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stayed "running" for ever, its connections waited for ever, and it counted among those that can be had."""

    def broken(screen: Screen, data: bytes) -> None:
        raise OSError("broken")

    monkeypatch.setattr(Screen, "show", broken)
    info = await service.create(home, sh("echo hello; sleep 1000"))
    assert info.pid is not None

    assert await read_to_end(service.connect(info.id)) == ""
    assert service.get(home, info.id).status == "exited"
    assert service.list(home) == ()
    assert not is_alive(info.pid)


async def test_terminals_that_are_opened_at_the_same_moment_count_too(
    service: PtyService, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pty_module, "RUNNING_MAX", 2)
    opened = await asyncio.gather(*(service.create(home, sh("sleep 1000")) for _ in range(4)), return_exceptions=True)

    assert len(service.list(home)) == 2
    assert sum(isinstance(one, Unavailable) for one in opened) == 2


async def test_what_is_typed_at_a_terminal_that_nobody_has_open_is_dropped() -> None:
    """The server tried to write it again without a pause, for as long as the program ran."""
    screen, side_of_program = pty.openpty()
    keyboard = os.dup(screen)
    terminal = Terminal(cast(Any, SimpleNamespace(output=OutputPipe(screen))), keyboard)
    os.close(side_of_program)
    assert await terminal.read() == b""
    terminal.write(b"x" * 1_000_000)

    assert not asyncio.get_running_loop().remove_writer(keyboard)
    os.close(keyboard)
