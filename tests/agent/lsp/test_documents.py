"""What a language server is told of files, and what is heard of the errors in them. It is a real program, over real pipes."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.lsp import documents
from holdfast.agent.lsp.answers import published
from holdfast.agent.lsp.documents import OPEN_MAX
from holdfast.agent.lsp.languages import language_of
from holdfast.agent.lsp.servers import PAUSE_MS, LanguageServer
from holdfast.agent.tools import Processes
from holdfast.agent.tools.base import FileChange
from holdfast.agent.tools.diagnostics import ERRORS_MAX, FileErrors
from holdfast.core.config import LanguageServerConfig
from holdfast.testing.manual_clock import ManualClock
from holdfast.testing.other_processes import is_alive, read, until
from tests.agent.lsp.test_servers import FAKE

LONG = 60.0
"""Seconds for a wait that ends by itself; it is not waited for."""


class Project:
    """A directory with a language server."""

    def __init__(self, processes: Processes, directory: Path) -> None:
        self.directory = directory / "project"
        self.directory.mkdir()
        self.log = directory / "log"
        self.clock = ManualClock()
        self._processes = processes
        self.made: list[LanguageServer] = []

    def server(self, *arguments: str, check_seconds: float = LONG, **config: Any) -> LanguageServer:
        server = LanguageServer(
            "fake",
            LanguageServerConfig(command=(sys.executable, "-I", "-S", str(FAKE), str(self.log), *arguments), **config),
            directory=str(self.directory),
            processes=self._processes,
            clock=self.clock,
            changed=lambda: None,
            check_seconds=check_seconds,
        )
        self.made.append(server)
        return server

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    async def errors(self, server: LanguageServer, name: str, text: str) -> list[str]:
        """In the file, after it was given this text."""
        return messages(await server.check([FileChange(self.write(name, text), "change")]), self.directory / name)

    def said(self, word: str) -> list[str]:
        return [line for line in read(self.log).split("\n") if line.startswith(word)]


def messages(found: Any, path: Path) -> list[str]:
    return [error.message for error in found.get(str(path), FileErrors()).errors]


@pytest.fixture
async def project(tmp_path: Path) -> AsyncIterator[Project]:
    processes = Processes()
    project = Project(processes, tmp_path)
    yield project
    for server in project.made:
        await server.close()
    await processes.close()


async def test_a_changed_file_is_opened_and_followed_and_its_errors_are_found(project: Project):
    server = project.server()

    assert await project.errors(server, "a.py", "good\nbad one\nodd two\n") == ["one"]
    assert await project.errors(server, "a.py", "good\n") == []
    assert await project.errors(server, "b.ts", "bad\n") == [""]
    assert await project.errors(server, "a.py", "bad again\n") == ["again"]
    assert project.said("opened") == ["opened a.py python 0", "opened b.ts typescript 0"]
    assert project.said("changed") == ["changed a.py 1", "changed a.py 2"]
    assert project.said("watched")[-1] == "watched a.py 2"


async def test_a_file_that_is_read_is_opened_by_a_server_that_nobody_waits_for(project: Project):
    server = project.server()
    server.show([project.write("a.py", "bad one\n")])
    assert not project.log.exists()

    await until(lambda: project.said("opened") != [])
    found = await server.check([FileChange(project.write("b.py", ""), "add")])
    assert messages(found, project.directory / "a.py") == ["one"]


async def test_what_other_programs_did_to_open_files_is_told_with_the_next_change(project: Project):
    server = project.server()
    await project.errors(server, "a.py", "bad\n")
    await project.errors(server, "b.py", "bad\n")
    project.write("a.py", "good\n")
    (project.directory / "b.py").unlink()

    found = await server.check([FileChange(project.write("c.py", "bad c\n"), "add")])
    assert list(found) == [str(project.directory / "c.py")]
    await until(lambda: project.said("changed") == ["changed a.py 1"])
    await until(lambda: project.said("closed") == ["closed b.py"])


async def test_a_file_that_is_removed_is_closed_and_has_no_errors(project: Project):
    server = project.server()
    await project.errors(server, "a.py", "bad\n")
    (project.directory / "a.py").unlink()

    assert await server.check([FileChange(str(project.directory / "a.py"), "unlink")]) == {}
    await until(lambda: project.said("closed") == ["closed a.py"])
    assert project.said("watched a.py")[-1] == "watched a.py 3"


async def test_so_many_files_are_open_and_the_oldest_is_closed(project: Project):
    server = project.server()
    for number in range(OPEN_MAX + 1):
        project.write(f"{number}.py", "")
    server.show([str(project.directory / f"{number}.py") for number in range(OPEN_MAX)])
    await until(lambda: len(project.said("opened")) == OPEN_MAX)

    server.show([str(project.directory / "0.py")])
    await project.errors(server, f"{OPEN_MAX}.py", "")
    assert project.said("closed") == ["closed 1.py"]


async def test_so_many_bytes_are_open_and_the_oldest_is_closed(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "OPEN_BYTES_MAX", 250)
    server = project.server()
    for name in ("a.py", "b.py", "c.py"):
        assert await project.errors(server, name, "bad one" + 100 * "\n") == ["one"]
    assert await project.errors(server, "b.py", "bad more" + 200 * "\n") == ["more"]

    await until(lambda: project.said("closed") == ["closed a.py", "closed c.py"])


async def test_what_is_no_text_or_too_large_is_not_opened_and_not_waited_for(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(documents, "FILE_BYTES_MAX", 100)
    server = project.server()
    os.mkfifo(project.directory / "pipe.py")

    assert await project.errors(server, "large.py", "bad" + 100 * "\n") == []
    assert await project.errors(server, "binary.py", "bad\0") == []
    assert await server.check([FileChange(str(project.directory / "pipe.py"), "change")]) == {}
    assert await server.check([FileChange(str(project.directory / "none.py"), "change")]) == {}
    assert project.said("opened") == []


async def test_what_it_says_in_two_steps_is_heard_to_the_end(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "QUIET_SECONDS", 1.5)  # so that a busy machine may hold it up between the two
    monkeypatch.setattr(documents, "LAST_SECONDS", 30)
    assert await project.errors(project.server(), "a.py", "say it in two steps\nbad one\n") == ["one"]


async def test_nonsense_is_left_out(project: Project):
    assert await project.errors(project.server(), "a.py", "nonsense\nbad one\n") == ["one"]


@pytest.mark.parametrize("way", ["die", "garbage", "huge"])
async def test_one_that_breaks_holds_nobody_up_and_is_told_of_the_files_again(project: Project, way: str):
    server = project.server()
    assert await project.errors(server, "b.py", "bad one\n") == ["one"]

    assert await project.errors(server, "a.py", f"{way}\n") == []
    assert await project.errors(server, "a.py", "bad two\n") == []
    assert project.said("start") == ["start"]
    await until(lambda: server.status == "error")
    project.clock.advance(PAUSE_MS)
    assert await project.errors(server, "a.py", "bad three\n") == ["three"]
    await until(lambda: project.said("opened b.py") == 2 * ["opened b.py python 0"])


@pytest.mark.parametrize("way", ["say nothing", "say it of an older text", "hang", "flood"])
async def test_one_that_does_not_say_it_in_time_is_not_waited_for_again(project: Project, way: str):
    server = project.server()
    assert await project.errors(server, "a.py", "bad one\n") == ["one"]
    server._check_seconds = 0.2  # the start may take its time

    assert await project.errors(server, "a.py", f"{way}\nbad two\n") == []
    server._check_seconds = LONG * 1000  # waiting for it would end this test
    assert await project.errors(server, "a.py", f"{way}\nbad three\n") == []
    if way == "hang":
        await until(lambda: project.said("child") != [])
    await server.close()
    assert not any(is_alive(int(line.split()[1])) for line in project.said("child"))


async def test_one_that_reads_nothing_more_is_ended(project: Project):
    server = project.server()
    await project.errors(server, "b.py", "")
    server._check_seconds = 0.2
    await project.errors(server, "a.py", "read nothing more\n")

    await until(lambda: project.said("closed its input") != [])
    assert await project.errors(server, "a.py", "bad one\n") == []
    await until(lambda: server.status == "error")
    server._check_seconds = LONG
    project.clock.advance(PAUSE_MS)
    assert await project.errors(server, "a.py", "bad two\n") == []  # not waited for, before it speaks
    await until(lambda: not server._is_silent)
    assert await project.errors(server, "a.py", "bad three\n") == ["three"]


async def test_one_that_was_late_is_waited_for_again_once_it_speaks(project: Project):
    server = project.server()
    await project.errors(server, "b.py", "")
    server._check_seconds = 0.2
    await project.errors(server, "a.py", "say nothing\n")
    server._check_seconds = LONG
    assert await project.errors(server, "a.py", "good\n") == []
    await until(lambda: not server._is_silent)

    assert await project.errors(server, "a.py", "bad one\n") == ["one"]


async def test_one_that_never_stops_speaking_of_a_file_is_heard_for_a_second(project: Project):
    assert await project.errors(project.server(), "a.py", "never stop\nbad one\n") == ["one"]


async def test_one_that_never_gets_ready_is_waited_for_once(project: Project):
    server = project.server("silent", check_seconds=0.2)

    assert await project.errors(server, "a.py", "bad one\n") == []
    server._check_seconds = LONG * 1000
    assert await project.errors(server, "a.py", "bad two\n") == []


@pytest.mark.parametrize("way", ["asked", "registering"])
async def test_one_that_only_answers_is_asked_of_what_changed(project: Project, way: str):
    server = project.server(way)
    assert await project.errors(server, "a.py", "good\nbad one\nodd two\n") == ["one"]
    assert await project.errors(server, "b.py", "bad two\n") == ["two"]
    assert await project.errors(server, "b.py", "good\n") == []
    assert project.said("asked b.py")[-1] == ("asked b.py as two" if way == "registering" else "asked b.py")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers about other files than the one that changed may come late, too."""
    monkeypatch.setattr(documents, "LAST_SECONDS", 60)


async def test_all_open_files_are_asked_of_if_one_may_make_another_wrong(project: Project, patient: None):
    server = project.server("asked")
    await project.errors(server, "a.py", "good\n")

    found = await server.check([FileChange(project.write("b.py", "all wrong\n"), "add")])
    assert [messages(found, project.directory / name) for name in ("a.py", "b.py")] == [["all wrong"], ["all wrong"]]
    found = await server.check([FileChange(project.write("b.py", "good\n"), "change")])
    assert found == {}


async def test_one_that_is_not_ready_to_answer_is_asked_again(project: Project):
    assert await project.errors(project.server("asked"), "a.py", "not now\nbad one\n") == ["one"]
    assert project.said("asked") == 2 * ["asked a.py"]


async def test_one_that_thinks_again_is_asked_again(project: Project, patient: None):
    server = project.server("asked")
    assert await project.errors(server, "a.py", "think again\nbad one\n") == []
    await until(lambda: len(project.said("asked a.py")) == 2)

    found = await server.check([FileChange(project.write("b.py", ""), "add")])
    assert messages(found, project.directory / "a.py") == ["one"]


async def test_one_that_wants_to_be_asked_without_end_is_asked_some_times(project: Project):
    server = project.server("asked")
    assert await project.errors(server, "a.py", "never stop\nbad one\n") == ["one"]
    await until(lambda: len(project.said("asked a.py")) == 3)

    assert project.said("answer") != []
    assert await project.errors(server, "a.py", "bad two\n") == ["two"]
    assert len(project.said("asked a.py")) < 100


async def test_one_that_publishes_as_well_as_it_refuses_to_answer_is_heard(project: Project):
    assert await project.errors(project.server("asked"), "a.py", "refuse and publish\nbad one\n") == ["one"]


@pytest.mark.parametrize("way", ["say nothing", "refuse", "nonsense"])
async def test_one_that_does_not_answer_is_not_waited_for_again(project: Project, way: str):
    server = project.server("asked")
    assert await project.errors(server, "a.py", "bad one\n") == ["one"]
    server._check_seconds = 0.2

    assert await project.errors(server, "a.py", f"{way}\nbad two\n") == []
    server._check_seconds = LONG * 1000  # waiting for it would end this test
    assert await project.errors(server, "a.py", f"{way}\nbad three\n") == []


async def test_one_that_dies_of_a_question_holds_nobody_up(project: Project):
    server = project.server("asked")
    assert await project.errors(server, "a.py", "die\n") == []
    assert await project.errors(server, "a.py", "bad one\n") == []
    await until(lambda: server.status == "error")
    project.clock.advance(PAUSE_MS)

    assert await project.errors(server, "a.py", "bad two\n") == ["two"]


async def test_what_it_was_given_as_a_secret_is_not_told(project: Project):
    server = project.server(env={"TOKEN": "s3cr3t-token"})

    assert await project.errors(server, "a.py", "bad s3cr3t-token is wrong\n") == ["*** is wrong"]


async def test_its_memory_of_files_it_makes_up_is_bounded(project: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "_FILES_WITH_ERRORS_MAX", 3)
    found = await project.server().check([FileChange(project.write("a.py", "other files\n"), "add")])

    assert [Path(path).name for path in found] == ["f.py", "g.py", "h.py"]


def test_many_errors_of_a_file_are_counted_and_each_is_told_once():
    place = '{"line":1,"character":2}'
    items = [
        f'{{"range":{{"start":{place},"end":{place}}},"severity":1,"message":"{n}","data":7}}'
        for n in (*range(50), *range(50))
    ]
    said = published(f'{{"uri":"file:///a%20b.py","version":3,"diagnostics":[{",".join(items)}]}}'.encode())

    assert said is not None
    assert (said.path, said.version, said.found.more) == ("/a b.py", 3, 50 - ERRORS_MAX)
    assert [error.message for error in said.found.errors] == [str(n) for n in range(ERRORS_MAX)]


@pytest.mark.parametrize("nonsense", [b"7", b"{", b"\xff", b"[" * 100_000, b'{"uri":"file://[","diagnostics":[]}'])
def test_nonsense_is_of_no_file(nonsense: bytes):
    assert published(nonsense) is None


def test_languages_are_told_by_names():
    names = ("/a/b.TSX", "/a/Makefile", "/a/b.py", "/a/b.unknown", "/a/b", "/a/Dockerfile", "/a/b.c++")
    assert [language_of(name) for name in names] == [
        *("typescriptreact", "makefile", "python", "plaintext", "plaintext", "dockerfile", "cpp")
    ]
