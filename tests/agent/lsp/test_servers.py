"""A language server, and what becomes of an ask when it misbehaves. It is a real program, over real pipes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvloop
from structlog.testing import capture_logs

from holdfast.agent.lsp import servers
from holdfast.agent.lsp.answers import settings_asked, symbols_of
from holdfast.agent.lsp.servers import PAUSE_MS, LanguageServer
from holdfast.agent.tools import Processes, conversations
from holdfast.agent.tools.base import FileChange
from holdfast.agent.tools.conversations import LINES_LOGGED_MAX, LastWords
from holdfast.core.config import LanguageServerConfig
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.other_processes import is_alive, read, until

FAKE = Path(__file__).parent / "language_server.py"


class Asked:
    """A language server, and what was heard of it."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        self.processes = processes
        self.directory = directory
        self.log = directory / "log"
        self.clock = ManualClock()
        self.statuses: list[str | None] = []

    def server(self, *arguments: str, answer_seconds: float = 30, **config: Any) -> LanguageServer:
        command = (sys.executable, "-I", "-S", str(FAKE), str(self.log), *arguments)
        self.made = LanguageServer(
            "fake",
            LanguageServerConfig(**{"command": command, **config}),
            directory=str(self.directory),
            processes=self.processes,
            clock=self.clock,
            changed=lambda: self.statuses.append(self.made.status),
            answer_seconds=answer_seconds,
        )
        return self.made


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    processes = Processes()
    asked = Asked(processes, tmp_path)
    yield asked
    if hasattr(asked, "made"):
        await asked.made.close()
    await processes.close()


async def names(server: LanguageServer, query: str) -> list[str]:
    return [symbol.name for symbol in await server.symbols(query)]


async def test_it_is_started_by_the_first_ask_and_told_to_end_when_it_is_closed(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(servers, "_FAREWELL_SECONDS", 60)  # it may be slow, on a busy machine
    monkeypatch.setattr(conversations, "_END_SECONDS", 60)
    server = asked.server()
    assert not asked.log.exists()
    assert server.status is None

    assert await names(server, "main") == ["main"]
    assert await asyncio.gather(names(server, "a"), names(server, "b")) == [["a"], ["b"]]
    assert asked.statuses == ["connected"]
    await server.close()
    told = [line for line in read(asked.log).split("\n") if not line.startswith("find")]

    assert told == [
        *("start", "initialize", "initialized", *["workspace/symbol"] * 3, "shutdown", "exit", "end"),
        "",
    ]
    assert await names(server, "main") == []
    assert read(asked.log).count("start") == 1


async def test_only_what_has_a_kind_that_is_shown_and_a_place_is_found(asked: Asked):
    server = asked.server()

    assert await names(server, "odd") == ["the one"]
    assert await names(server, "many") == [f"name {number}" for number in range(10)]
    assert await names(server, "nothing") == []


async def test_its_questions_are_answered(asked: Asked):
    settings = {"a": {"b": [1]}}
    answers = [json.loads(name) for name in await names(asked.server(initialization=settings), "ask")]
    folder = {"uri": asked.directory.as_uri(), "name": asked.directory.name}

    assert answers == [[[1], None, settings], [folder], None, {"applied": False}, -32601, settings]
    assert "workspace/didChangeConfiguration" in read(asked.log)


async def test_it_sees_no_secrets_of_the_server_but_what_it_is_given(asked: Asked, monkeypatch: pytest.MonkeyPatch):
    for name in ("OPENCODE_SERVER_PASSWORD", "ANTHROPIC_API_KEY", "HOLDFAST_AUTH_KEY"):
        monkeypatch.setenv(name, "a secret")

    assert await names(asked.server(env={"GIVEN": "this"}), "environment") == ["GIVEN=this"]


async def test_a_refusal_finds_nothing_and_is_no_failure(asked: Asked):
    server = asked.server()

    assert await names(server, "refuse") == []
    assert server.status == "connected"
    assert await names(server, "main") == ["main"]


@pytest.mark.parametrize("query", ["die", "garbage", "no JSON", "huge", "demanding"])
async def test_one_that_breaks_finds_nothing_is_dead_and_is_started_again_after_a_pause(asked: Asked, query: str):
    server = asked.server()

    assert await names(server, query) == []
    await until(lambda: server.status == "error")
    assert await names(server, "main") == []
    assert read(asked.log).count("start\n") == 1
    asked.clock.advance(PAUSE_MS)
    assert await names(server, "main") == ["main"]
    assert asked.statuses == ["connected", "error", "connected"]


async def test_why_it_ended_is_logged_without_what_it_was_given_as_a_secret(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(conversations, "_END_SECONDS", 60)  # it may be slow, on a busy machine
    server = asked.server(env={"TOKEN": "s3cr3t-token"})
    with capture_logs() as logs:
        await names(server, "die")
        await until(lambda: server.status == "error")

    assert [line["reason"] for line in logs if line["event"] == "lsp.failed"] == [
        "It ended (exit status 7): I die of it, my token is ***"
    ]
    assert "s3cr3t" not in str(logs)


@pytest.mark.parametrize("query", ["hang", "flood"])
async def test_one_that_does_not_answer_in_time_finds_nothing_and_lives_on(asked: Asked, query: str):
    server = asked.server()
    await names(server, "main")
    server._answer_seconds = 0.2  # the start may take its time

    assert await names(server, query) == []
    assert server.status == "error"
    if query == "hang":
        await until(lambda: "$/cancelRequest" in read(asked.log))
        server._answer_seconds = 30
        assert await names(server, "main") == ["main"]
        assert asked.statuses == ["connected", "error", "connected"]
    await server.close()


async def test_one_that_never_gets_ready_holds_nobody_up_for_longer_than_an_ask(asked: Asked):
    server = asked.server("silent", answer_seconds=0.2)

    assert await names(server, "main") == []
    assert asked.statuses == ["error"]


async def test_one_that_starts_slower_than_it_may_is_ended(asked: Asked, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(servers, "START_SECONDS", 0.2)

    assert await names(asked.server("silent"), "main") == []
    assert asked.statuses == ["error"]


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        (("refusing",), {}),
        ((), {"command": ("/nonexistent/program",)}),
        ((), {"command": ("",)}),
        ((), {"command": ("true",)}),
        ((), {"command": ("sh", "a\0b")}),
        ((), {"env": {"A": "a\0b"}}),
    ],
)
async def test_one_that_does_not_start_finds_nothing_and_says_so(
    asked: Asked, arguments: tuple[str, ...], config: dict[str, Any]
):
    server = asked.server(*arguments, **config)

    assert await names(server, "main") == []
    await until(lambda: server.status == "error")
    assert asked.statuses == ["error"]


async def test_what_it_started_dies_with_it(asked: Asked):
    server = asked.server()
    [pids] = await names(server, "child")
    await server.close()

    assert not any(is_alive(int(pid)) for pid in pids.split())


def test_nonsense_is_no_settings_and_no_symbols():
    for nonsense in (b"7", b"{", b'{"items": 7}', b"[" * 100_000, b"\xff"):
        assert settings_asked(nonsense, {"a": 1}) == []
        assert symbols_of(nonsense) == ()


def test_one_that_just_ended_is_told_of_a_change_without_harm(tmp_path: Path):
    """In the event loop that the server runs in, a pipe to a program that ended refuses to be written to."""

    async def main() -> None:
        processes = Processes()
        asked = Asked(processes, tmp_path)
        server = asked.server()
        await names(server, "main")
        connection = server._connection
        assert connection is not None
        asking = asyncio.create_task(names(server, "die and leave a child"))
        await until(connection._talk.stdin.is_closing)
        assert connection.is_open
        file = tmp_path / "a.py"
        file.write_text("")

        assert await server.check([FileChange(str(file), "change")]) == {}
        assert await asking == []
        await server.close()
        await processes.close()

    uvloop.run(main())


async def test_one_that_complains_without_end_is_heard_and_held_back(asked: Asked):
    with capture_logs() as logs:
        server = asked.server()
        assert await names(server, "complain without end") == ["complain without end"]
        await until(lambda: len([entry for entry in logs if entry["event"] == "lsp.stderr"]) > LINES_LOGGED_MAX)
        assert await names(server, "main") == ["main"]

    said = [entry["line"] for entry in logs if entry["event"] == "lsp.stderr"]
    assert said == [*("y" for _ in range(LINES_LOGGED_MAX)), "(what it writes from now on is not logged)"]


def test_of_many_lines_the_last_ones_are_not_looked_at_but_for_the_newest():
    logged: list[str] = []
    words = LastWords(logged.append)
    words.add([b"first"] * LINES_LOGGED_MAX)
    for _ in range(3):
        words.add([b"not looked at", b"newest"])

    assert words.last == "newest"
    assert len(logged) == LINES_LOGGED_MAX + 1
