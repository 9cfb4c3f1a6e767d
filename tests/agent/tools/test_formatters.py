"""What formatters make of files that tools changed. They are real programs."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from holdfast.agent.tools import Processes, ToolResult
from holdfast.agent.tools.apply_patch import ApplyPatch
from holdfast.agent.tools.edit import Edit
from holdfast.agent.tools.file_edits import FileEdits
from holdfast.agent.tools.formatters import Formatters, is_there
from holdfast.agent.tools.write import Write
from holdfast.core.config import FormatterConfig
from holdfast.testing.other_processes import is_alive, read, until
from tests.agent.tools.hosts import Session


def python(code: str, *arguments: str, **more: Any) -> FormatterConfig:
    command = (sys.executable, "-I", "-S", "-c", f"import os, pathlib, sys; {code}", *arguments)
    return FormatterConfig(**{"command": command, "extensions": (".txt",), **more})


UPPER = python("p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text().upper())", "$FILE")


def edits(processes: Processes, seconds_max: float = 30, **formatters: FormatterConfig) -> FileEdits:
    return FileEdits(Formatters(processes, lambda directory: formatters, seconds_max=seconds_max))


async def written(session: Session, changes: FileEdits, path: str = "a.txt") -> tuple[ToolResult, str]:
    result = await session.call(Write(changes), filePath=path, content="text\n")
    return result, (session.context.directory / path).read_text()


async def test_what_a_formatter_made_of_a_file_may_be_edited_without_reading_it_again(
    session: Session, processes: Processes
):
    changes = edits(processes, upper=UPPER)
    path = session.context.directory / "a.txt"

    result, text = await written(session, changes)
    assert text == "TEXT\n"
    assert result.output == f"Made {path}.\nA formatter changed the text afterwards: {path}"
    assert result.metadata["formatted"] == [str(path)]
    assert "formatting" not in result.metadata
    await session.call(Edit(changes), filePath="a.txt", oldString="TEXT", newString="Other")
    assert path.read_text() == "OTHER\n"
    patch = "\n".join(
        ("*** Begin Patch", f"*** Update File: {path}", "-OTHER", "+x", "*** Add File: b.txt", "+b", "*** End Patch")
    )
    result = await session.call(ApplyPatch(changes), patchText=patch)
    assert (path.read_text(), path.with_name("b.txt").read_text()) == ("X\n", "B\n")
    assert "A formatter changed the text afterwards" in result.output
    await session.call(ApplyPatch(changes), patchText=f"*** Begin Patch\n*** Delete File: {path}\n*** End Patch")
    assert not path.exists()


@pytest.mark.parametrize(
    "config",
    [
        python("sys.exit(1)"),
        FormatterConfig(command=("/nonexistent/program", "$FILE"), extensions=(".txt",)),
        FormatterConfig(command=("sh", "a\0b"), extensions=(".txt",)),
        python("", environment={"A": "\ud800"}),
    ],
)
async def test_one_that_fails_is_only_logged(session: Session, processes: Processes, config: FormatterConfig):
    with capture_logs() as logs:
        result, text = await written(session, edits(processes, fails=config, upper=UPPER))

    assert text == "TEXT\n"  # the next one has its turn
    assert "formatted" in result.metadata
    assert [line["formatter"] for line in logs if line["event"] == "formatter.failed"] == ["fails"]


@pytest.mark.parametrize(
    "config",
    [
        python("pathlib.Path(sys.argv[1]).write_text('no')", "$FILE", extensions=(".md",)),
        python("pathlib.Path(sys.argv[1]).write_text('no')", "$FILE", extensions=None),
        python("pathlib.Path(sys.argv[1]).write_text('no')", "$FILE", disabled=True),
        FormatterConfig(extensions=(".txt",)),
        FormatterConfig(command=(), extensions=(".txt",)),
        FormatterConfig(command=("",), extensions=(".txt",)),
    ],
)
async def test_one_that_is_not_for_the_file_is_not_run(session: Session, processes: Processes, config: FormatterConfig):
    result, text = await written(session, edits(processes, other=config))

    assert text == "text\n"
    assert "formatted" not in result.metadata
    assert not any("formatting" in recorded for recorded in session.host.recorded)


async def test_one_that_takes_too_long_is_ended_with_what_it_started(
    session: Session, processes: Processes, monkeypatch: pytest.MonkeyPatch
):
    limits: list[asyncio.Timeout] = []
    timeout = asyncio.timeout

    def noting(seconds: float | None) -> asyncio.Timeout:
        made = timeout(seconds)
        if seconds == 61:  # no other limit has that
            limits.append(made)
        return made

    monkeypatch.setattr(asyncio, "timeout", noting)
    code = (
        "import subprocess, time; c = subprocess.Popen(['sleep', '600'], start_new_session=True);"
        "print('x' * 1000000, flush=True); pathlib.Path('pids').write_text(f'{os.getpid()} {c.pid} end');"
        "time.sleep(600)"
    )
    pids = session.context.directory / "pids"
    with capture_logs() as logs:
        writing = asyncio.create_task(written(session, edits(processes, seconds_max=61, slow=python(code))))
        await until(lambda: read(pids).endswith("end"))
        limits[0].reschedule(asyncio.get_running_loop().time())  # the minute is over
        _, text = await writing

    assert text == "text\n"
    assert [line["reason"] for line in logs if line["event"] == "formatter.failed"] == ["it took more than 61 seconds"]
    assert not any(is_alive(int(pid)) for pid in pids.read_text().split()[:2])


async def test_it_sees_no_secrets_of_the_server(
    session: Session, processes: Processes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENCODE_SERVER_PASSWORD", "a secret")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a secret")
    code = (
        "pathlib.Path(sys.argv[1]).write_text(' '.join(v for v in os.environ.values() if v in ('a secret', 'given')))"
    )
    _, text = await written(session, edits(processes, spy=python(code, "$FILE", environment={"X": "given"})))

    assert text == "given"


def test_whether_its_program_is_there(tmp_path: Path):
    assert is_there(UPPER, str(tmp_path))
    for command in (None, (), ("",), ("/nonexistent/program",)):
        assert not is_there(FormatterConfig(command=command), str(tmp_path))
