"""`holdfast doctor`: a line for each thing, and what to do about it."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.cli.doctor import Finding, check_address, check_configuration, check_data, check_database
from holdfast.testing.server_process import ServerProcess, holdfast_command
from tests.cli.command import invoke


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    command = holdfast_command("serve", "--port", "0", "--data", str(tmp_path / "data"))
    with ServerProcess(command, cwd=tmp_path, log=tmp_path / "server.log") as server:
        yield server


async def test_a_machine_that_has_what_it_needs_passes(server: ServerProcess, tmp_path: Path) -> None:
    port = server.url.rpartition(":")[2]

    code, out, _ = await invoke("doctor", "--data", tmp_path / "data", "--directory", tmp_path, "--port", port)

    assert code == 0
    assert f"in use by server process {server.pid}" in out
    assert f"A server answers at {server.url}" in out
    assert "fail" not in out


async def test_a_new_machine_passes_and_nothing_is_made(tmp_path: Path) -> None:
    code, out, _ = await invoke("doctor", "--data", tmp_path / "data", "--directory", tmp_path)

    assert code == 0
    assert "will be made by the first start" in out
    assert list(tmp_path.iterdir()) == []


def levels(findings: list[Finding]) -> list[str]:
    return [finding.level for finding in findings]


def test_a_data_directory_that_others_can_read_is_warned_of(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert next(check_data(tmp_path)).level == "warn"
    tmp_path.chmod(0o700)
    assert next(check_data(tmp_path)).level == "ok"


def test_a_data_directory_that_is_none_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert levels(list(check_data(tmp_path / "file"))) == ["fail"]


def test_a_data_directory_that_cannot_be_made_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert levels(list(check_data(tmp_path / "file" / "data"))) == ["fail"]


async def test_a_database_that_is_none_fails(tmp_path: Path) -> None:
    assert (await check_database(tmp_path)).level == "ok"
    (tmp_path / "holdfast.db").write_text("something else")

    assert (await check_database(tmp_path)).level == "fail"


async def test_a_damaged_database_fails(server: ServerProcess, tmp_path: Path) -> None:
    assert server.stop() == 0
    database = tmp_path / "data" / "holdfast.db"
    content = bytearray(database.read_bytes())
    content[5000:9000] = b"\xff" * 4000
    database.write_bytes(content)

    assert (await check_database(tmp_path / "data")).level == "fail"


async def test_a_configuration_that_is_wrong_fails_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert (await check_configuration(tmp_path)).level == "warn", "only the demo"

    (tmp_path / "opencode.json").write_text('{"model": 5}')
    wrong = await check_configuration(tmp_path)
    assert (wrong.level, "opencode.json" in wrong.what) == ("fail", True)

    (tmp_path / "opencode.json").write_text(json.dumps({"model": "nobody/nothing"}))
    assert (await check_configuration(tmp_path)).level == "fail"


async def test_a_port_that_something_else_has_is_warned_of() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        assert (await check_address("127.0.0.1", port)).level == "warn"
    assert (await check_address("127.0.0.1", port)).level == "ok"
