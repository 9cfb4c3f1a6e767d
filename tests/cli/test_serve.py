"""`holdfast serve` as a process: how it begins, how it ends, and what it says when it cannot."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx
import pytest

from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command
from tests.cli.command import Command, holdfast, invoke

STOP_SECONDS_MAX = 45
"""Five are promised, on a machine that is not full of tests. What waits for a client or for a kept connection takes longer."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    command = holdfast_command("serve", "--port", "0", "--data", str(tmp_path / "data"))
    with ServerProcess(command, cwd=tmp_path, log=tmp_path / "server.log") as server:
        yield server


async def test_the_first_line_says_where_it_listens_once_it_serves(tmp_path: Path) -> None:
    async with Command("serve", "--port", "0", "--data", str(tmp_path / "data"), cwd=tmp_path) as serve:
        await serve.until_out("\n")
        line = serve.out
        assert line.startswith("holdfast listening on http://127.0.0.1:")

        async with httpx.AsyncClient(timeout=60) as http:
            answer = await http.get(f"{line.split()[-1]}/global/health")

        assert answer.json() == {"healthy": True, "version": "0.1.0"}
        serve.signal(signal.SIGTERM)
        assert await serve.exit_code() == 0
        assert line == serve.out, "stdout has that line and nothing else"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_in_good_order_with_an_event_stream_open(tmp_path: Path, number: signal.Signals) -> None:
    """The stream ends as a whole response does, not as a connection that broke."""
    async with Command("serve", "--port", "0", "--data", str(tmp_path / "data"), cwd=tmp_path) as serve:
        await serve.until_out("\n")
        async with (
            httpx.AsyncClient(base_url=serve.out.split()[-1], timeout=60) as http,
            http.stream("GET", "/event") as events,
        ):
            pieces = events.aiter_bytes()
            assert b"server.connected" in await anext(pieces)
            serve.signal(number)

            assert [piece async for piece in pieces if b"server.heartbeat" not in piece] == []
            assert await serve.exit_code(STOP_SECONDS_MAX) == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """A request that never comes to its end would hold up the stop for a while."""
    async with Command("serve", "--port", "0", "--data", str(tmp_path / "data"), cwd=tmp_path) as serve:
        await serve.until_out("\n")
        port = int(serve.out.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"POST /session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            serve.signal(signal.SIGTERM)
            serve.signal(signal.SIGINT)

            assert await serve.exit_code(STOP_SECONDS_MAX) in (128 + signal.SIGTERM, 128 + signal.SIGINT)


async def refused(*arguments: str, cwd: Path, code: int = 1) -> str:
    """What it says when it cannot start: a few lines, no traceback, nothing on stdout."""
    exit_code, out, err = await holdfast("serve", *arguments, cwd=cwd)
    assert (code, "") == (exit_code, out), err
    assert "Traceback" not in err
    assert err.startswith("holdfast: ")
    return err


async def test_a_second_server_on_the_same_data_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    said = await refused("--port", "0", "--data", str(tmp_path / "data"), cwd=tmp_path)

    assert str(server.pid) in said
    assert str(tmp_path / "data") in said


async def test_a_port_that_is_taken_is_said(server: ServerProcess, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]

    said = await refused("--port", port, "--data", str(tmp_path / "other"), cwd=tmp_path)

    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


async def test_others_may_not_reach_it_without_a_password(tmp_path: Path) -> None:
    said = await refused("--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path / "data"), cwd=tmp_path, code=2)

    assert "password" in said
    assert not (tmp_path / "data").exists()


async def test_a_password_is_asked_for_and_better_not_given_on_the_command_line(tmp_path: Path) -> None:
    options = ("serve", "--host", "0.0.0.0", "--port", str(free_port()), "--data", str(tmp_path / "data"))
    async with Command(*options, cwd=tmp_path, env={"OPENCODE_SERVER_PASSWORD": "secret"}) as serve:
        await serve.until_out("\n")
        url = serve.out.split()[-1].replace("0.0.0.0", "127.0.0.1")
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            assert (await http.get("/global/health")).status_code == 401
            assert (await http.get("/global/health", auth=("opencode", "secret"))).status_code == 200
        assert "process list" not in serve.err
    async with Command(*options, "--password", "secret", cwd=tmp_path) as serve:
        await serve.until_out("\n")
        await serve.until_err("process list")
    assert "secret" not in serve.err


async def test_data_of_a_newer_holdfast_is_left_alone(server: ServerProcess, tmp_path: Path) -> None:
    assert server.stop() == 0
    database = apsw.Connection(str(tmp_path / "data" / "holdfast.db"))
    database.pragma("user_version", 1000)
    database.close()

    assert "newer" in await refused("--port", "0", "--data", str(tmp_path / "data"), cwd=tmp_path)


async def test_data_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "holdfast.db").write_text("somebody else's database")

    assert str(tmp_path / "file") in await refused("--port", "0", "--data", "file", cwd=tmp_path)
    assert "not a Holdfast database" in await refused("--port", "0", "--data", "data", cwd=tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("options", [["--port", "-1"], ["--cors", "nonsense"], ["--nonsense"]])
async def test_a_wrong_command_line_has_its_own_exit_code(tmp_path: Path, options: list[str]) -> None:
    code, _, err = await holdfast("serve", "--data", str(tmp_path / "data"), *options, cwd=tmp_path)

    assert code == 2, err
    assert "Traceback" not in err


def test_help_waits_for_nothing_heavy() -> None:
    heavy = {"aiohttp", "apsw", "httpx", "litestar", "msgspec", "rich", "structlog", "uvicorn"}
    program = f"import sys, holdfast.cli; print(sorted({heavy!r} & set(sys.modules)))"

    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)

    assert loaded.stdout == "[]\n"


@pytest.mark.slow
async def test_a_disk_that_takes_no_more_stops_it_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    """The limit on file sizes stands for a disk that is full."""
    data = tmp_path / "data"
    limited = ["sh", "-c", 'ulimit -f 1000 && exec "$@"', "sh"]
    acknowledged: list[str] = []
    async with Command("serve", "--port", "0", "--data", str(data), cwd=tmp_path, launcher=limited) as serve:
        await serve.until_out("\n")
        async with httpx.AsyncClient(base_url=serve.out.split()[-1], timeout=60) as http:
            body = {"metadata": {"filling": "x" * 50_000}}
            with contextlib.suppress(httpx.TransportError):
                while (answer := await http.post("/session", json=body)).status_code == 200:
                    acknowledged.append(answer.json()["id"])
        assert await serve.exit_code() == 1

    last_words = serve.err.rpartition("holdfast: ")[2]
    assert last_words.startswith(("No space left on the disk", "The disk refused")), serve.err
    assert str(data) in last_words
    assert acknowledged
    code, out, _ = await invoke("sessions", "--data", data, "--json")
    assert code == 0
    assert set(acknowledged) <= {json.loads(line)["id"] for line in out.splitlines()}
    assert (await invoke("verify", "--data", data))[0] == 0
