"""`export`, `import`, `verify` and `sessions` on real data directories and servers."""

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.client import Client
from tests.cli.command import holdfast, invoke
from tests.cli.place import Place, text_of, tokens


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place(tmp_path) as place:
        yield place


async def finished_session(place: Place) -> str:
    session = await place.new_session()
    async with place.run("[[tokens=3]]", "--session", session) as run:
        assert await run.exit_code() == 0
    return session


async def done(*arguments: str | Path, stdin: bytes = b"") -> str:
    """What a command that must succeed wrote to stdout."""
    code, out, err = await invoke(*arguments, stdin=stdin)
    assert code == 0, err
    return out


def log(exported: str) -> list[Any]:
    """What an import keeps of each record: everything but its offset and its id."""
    records = [json.loads(line) for line in exported.splitlines()[1:-1]]
    return [(record["tag"], record["event"]["properties"]) for record in records]


@pytest.mark.slow
async def test_a_session_goes_from_one_place_to_others_and_is_the_same_there(place: Place, tmp_path: Path) -> None:
    """Over HTTP and from the directory, beside a server and without one."""
    session = await finished_session(place)
    over_http = await done("export", session, "--server", place.server.url)
    beside = await done("export", session, "--data", place.data)
    file = tmp_path / "session.jsonl"
    await done("export", session, "--data", place.data, "-o", file)
    assert over_http == beside == file.read_text()

    other = tmp_path / "other"
    assert session in await done("import", file, "--data", other)
    there = await done("export", session, "--data", other)

    assert log(over_http) == log(there)
    assert "agree" in await done("verify", "--data", other)
    (listed,) = (await done("sessions", "--data", other, "--json")).splitlines()
    assert json.loads(listed)["id"] == session


@pytest.mark.slow
async def test_a_session_exported_in_mid_turn_is_finished_where_it_is_imported(place: Place, tmp_path: Path) -> None:
    session = await place.new_session()
    async with place.run("[[tokens=20]] [[stall=10]] [[times=1]]", "--session", session) as run:
        await run.until_out("tok9 ")
        exported = await done("export", session, "--server", place.server.url)
        await place.kill()

    place.data.rename(tmp_path / "old")
    await place.start()
    out = await done("import", "--server", place.server.url, stdin=exported.encode())

    assert "middle of a turn" in out
    async with place.tail(session) as tail:
        await tail.until_out('"session.idle"')
    assert tokens(20) == text_of((await place.messages(session))[-1])


async def test_an_import_never_replaces_a_session(place: Place) -> None:
    session = await finished_session(place)
    exported = await done("export", session, "--server", place.server.url)

    code, _, err = await invoke("import", "--server", place.server.url, stdin=exported.encode())
    assert (code, "exists already" in err) == (1, True)

    code, _, err = await invoke("import", "--data", place.data, stdin=exported.encode())
    assert (code, "--server" in err) == (1, True), "the server has the directory"


@pytest.mark.parametrize("through_server", [True, False])
async def test_a_file_that_was_cut_off_is_refused(place: Place, tmp_path: Path, through_server: bool) -> None:
    session = await finished_session(place)
    exported = await done("export", session, "--server", place.server.url)
    (tmp_path / "cut.jsonl").write_text(exported[: len(exported) // 2])
    target = ["--server", place.server.url] if through_server else ["--data", tmp_path / "other"]

    code, _, err = await invoke("import", tmp_path / "cut.jsonl", *target)

    assert code == 1
    assert "Traceback" not in err
    assert "Line " in err or "cut off" in err


async def test_what_is_not_there_is_said(place: Place, tmp_path: Path) -> None:
    for options in (["--data", place.data], ["--server", place.server.url]):
        code, out, err = await invoke("export", "ses_none", *options, "-o", tmp_path / "file")
        assert (code, out, "not found" in err) == (1, "", True)
    assert [path.name for path in tmp_path.glob("file*")] == []

    for command in (["sessions"], ["verify"], ["export", "ses_none"]):
        code, out, err = await invoke(*command, "--data", tmp_path / "nowhere")
        assert (code, out, "no sessions in" in err) == (1, "", True)
    assert not (tmp_path / "nowhere").exists()


async def test_where_nothing_can_be_written_is_said(place: Place, tmp_path: Path) -> None:
    session = await place.new_session()
    (tmp_path / "file").touch()
    for output in ("/", tmp_path / "nowhere" / "x", tmp_path / "file" / "x"):
        code, out, err = await invoke("export", session, "--server", place.server.url, "-o", output)
        assert (code, out, "Cannot write" in err) == (1, "", True)


async def test_sessions_are_listed(place: Place, tmp_path: Path) -> None:
    session = await place.new_session()

    for options in (["--data", place.data], ["--server", place.server.url, "--directory", place.work]):
        out = await done("sessions", *options)
        assert session in out
        assert "A session" in out


async def test_a_listed_session_is_one_line_of_a_pipe_and_controls_no_terminal(place: Place) -> None:
    """However long its title is, and whatever a model made of it."""
    title = "\x1b]0;owned\x07" + "long " * 60 + "title"
    async with Client(place.server.url, directory=str(place.work)) as client:
        session = (await client.create_session(title=title)).id

    code, out, _ = await holdfast("sessions", "--data", str(place.data), cwd=place.work)

    assert code == 0
    [line] = [line for line in out.splitlines() if session in line]
    assert "long " * 60 + "title" in line
    assert str(place.work) in line
    assert "\x1b" not in out


async def test_state_that_the_log_does_not_give_is_found(place: Place, tmp_path: Path) -> None:
    """Also beside a running server."""
    session = await finished_session(place)
    assert "agree" in await done("verify", "--data", place.data)
    database = sqlite3.connect(place.data / "holdfast.db")
    with database:
        database.execute("UPDATE part SET data = CAST(replace(CAST(data AS TEXT), 'tok1', 'tokX') AS BLOB)")
    database.close()

    code, out, _ = await invoke("verify", "--data", place.data)

    assert code == 1
    assert session in out
    assert "tokX" in out
    assert "2 differences in" in out, "the part, and the words by which it is found"
