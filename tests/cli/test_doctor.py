"""`holdfast doctor`: a line for each thing, and what to do about it."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.agent.mcp.logins import Grant
from holdfast.bootstrap import StoredKeys, stored_keys
from holdfast.cli.doctor import Finding, check_address, check_configuration, check_data, check_database, check_keys
from holdfast.core.credentials import ApiKey
from holdfast.core.subscriptions import SigningKey
from holdfast.service.signing import Signer
from holdfast.storage.memory_subscriptions import MemorySubscriptions
from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command
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
    keys = stored_keys(tmp_path / "data", {}, tmp_path)
    assert (await check_configuration(tmp_path, keys)).level == "warn", "only the demo"

    (tmp_path / "opencode.json").write_text('{"model": 5}')
    wrong = await check_configuration(tmp_path, keys)
    assert (wrong.level, "opencode.json" in wrong.what) == ("fail", True)

    (tmp_path / "opencode.json").write_text(json.dumps({"model": "nobody/nothing"}))
    assert (await check_configuration(tmp_path, keys)).level == "fail"


class Stored:
    """A data directory with a secret of each kind. `findings()` is what doctor says about them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ: dict[str, str] = {"XDG_CONFIG_HOME": str(root / "config")}
        self.key_file = root / "config" / "holdfast" / "auth.key"
        self.signing: list[SigningKey] = []

    def keys(self) -> StoredKeys:
        return stored_keys(self.root / "data", self.environ, self.root)

    async def store(self) -> None:
        keys = self.keys()
        keys.credentials.set("anthropic", ApiKey(key="sk-secret"))
        keys.grants.put("issues https://mcp.example.com/mcp", Grant(tokens={"access_token": "at-secret"}))
        store = MemorySubscriptions()
        signer = Signer(store, seal=keys.seal, key_id=lambda public: public.hex()[:8], entropy=os.urandom)
        await signer.ready(0)
        self.signing = list(await store.signing_keys())

    def findings(self) -> list[Finding]:
        return list(check_keys(self.keys(), self.signing))


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    return Stored(tmp_path)


async def test_stored_keys_that_can_be_opened_are_counted(stored: Stored) -> None:
    assert [(finding.level, finding.what) for finding in stored.findings()] == [("ok", "No stored keys")]
    await stored.store()

    (finding,) = stored.findings()
    assert (finding.level, finding.what) == ("ok", f"3 stored keys, which {stored.key_file} opens")


async def test_stored_keys_without_their_seal_fail_each_kind_with_what_to_do(stored: Stored) -> None:
    await stored.store()
    stored.key_file.unlink()

    provider, login, signing = stored.findings()
    assert (provider.level, login.level, signing.level) == ("fail", "warn", "warn")
    assert provider.what == (
        f"Keys of providers cannot be opened: anthropic. {stored.key_file}, with which the stored keys are sealed, is not there."
    )
    assert "give the keys again" in (provider.hint or "")
    assert "issues" in login.what
    assert "secret" not in str(stored.findings())
    assert not stored.key_file.exists(), "doctor changes nothing"


async def test_stored_keys_that_another_key_sealed_are_named(stored: Stored) -> None:
    await stored.store()
    stored.environ["HOLDFAST_AUTH_KEY"] = "A" * 43 + "="

    assert [finding.what.rpartition(". ")[2] for finding in stored.findings()] == ["It is sealed with another key."] * 3


async def test_a_seal_that_is_none_fails(stored: Stored) -> None:
    await stored.store()
    stored.key_file.write_text("nonsense")
    assert levels(stored.findings()) == ["fail"]

    stored.environ["HOLDFAST_AUTH_KEY"] = "nonsense"
    (finding,) = stored.findings()
    assert (finding.level, "HOLDFAST_AUTH_KEY does not hold" in finding.what) == ("fail", True)


async def test_a_seal_that_others_can_read_or_nobody_can_make_is_warned_of(
    stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # what a read-only disk says, also to root
    unmakable, _ = stored.findings()
    assert (unmakable.level, str(stored.key_file) in unmakable.what) == ("warn", True)

    await stored.store()
    stored.key_file.chmod(0o644)
    readable, _ = stored.findings()
    assert (readable.level, readable.hint) == ("warn", f"chmod 600 {stored.key_file}")


async def test_files_of_keys_that_are_none_are_named(stored: Stored) -> None:
    await stored.store()
    (stored.root / "data" / "auth.json").write_text("{")
    (stored.root / "data" / "mcp-auth.json").write_text("[]")

    assert levels(stored.findings()) == ["fail", "warn"]


async def test_a_signing_key_in_clear_is_warned_of(stored: Stored) -> None:
    stored.signing = [SigningKey("old", 0, bytes(32))]

    assert levels(stored.findings()) == ["warn", "ok"]


async def test_keys_of_a_whole_data_directory_are_looked_at(
    server: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose key is stored, and nowhere else, is one that works."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    stored_keys(tmp_path / "data", dict(os.environ), tmp_path).credentials.set("anthropic", ApiKey(key="sk-secret"))

    code, out, _ = await invoke("doctor", "--data", tmp_path / "data", "--directory", tmp_path)

    assert (code, "1 stored key, which" in out, "model anthropic/" in out) == (0, True, True), out


async def test_a_port_that_something_else_has_is_warned_of() -> None:
    with socket.socket() as other:
        port = free_port()
        other.bind(("127.0.0.1", port))
        assert (await check_address("127.0.0.1", port)).level == "warn"
    assert (await check_address("127.0.0.1", port)).level == "ok"
