"""The two servers that are compared, and the model server that both ask. Fresh directories, one opencode.json for both."""

import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from client import Server

from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command
from holdfast.testing.stock_opencode import find_opencode, opencode_environment

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Peer:
    """`resumes`: its clients can say where they stopped (SSE `id:` and `Last-Event-ID`)."""

    name: str
    resumes: bool
    process: ServerProcess

    @property
    def server(self) -> Server:
        return Server(self.process.url)


def installed_opencode() -> Path | None:
    """The binary that `npm ci` put into tests/node, if this platform has one."""
    return find_opencode(ROOT / "tests/node/node_modules")


@contextlib.contextmanager
def model_server(directory: Path) -> Iterator[str]:
    """Runs beside the measuring process, so that they do not slow each other. Yields its base URL."""
    command = [sys.executable, "-m", "holdfast.testing.model_server", "--port", "0"]
    with ServerProcess(command, cwd=directory, log=directory / "model.log", dies_with_us=True) as process:
        yield process.url


def opencode(binary: Path, directory: Path, model_url: str) -> Peer:
    """The stock server, with every place it keeps something in set to a directory of its own, and nothing to download."""
    directory.mkdir(parents=True)
    command = [str(binary), "serve", "--hostname", "127.0.0.1", "--port", str(free_port())]
    work = _work_directory(directory, model_url)
    process = ServerProcess(
        command, cwd=work, env=opencode_environment(directory), log=directory / "server.log", dies_with_us=True
    )
    return Peer("OpenCode", False, process)


def holdfast(directory: Path, model_url: str) -> Peer:
    directory.mkdir(parents=True)
    command = holdfast_command("serve", "--port", str(free_port()), "--data", str(directory / "data"))
    work = _work_directory(directory, model_url)
    return Peer("Holdfast", True, ServerProcess(command, cwd=work, log=directory / "server.log", dies_with_us=True))


def _work_directory(directory: Path, model_url: str) -> Path:
    """The project both work on: outside git, so that neither takes snapshots of it."""
    work = directory / "work"
    work.mkdir()
    config = {
        "model": "fake/fake-1",
        "small_model": "fake/fake-1",
        "share": "disabled",
        "autoupdate": False,
        "provider": {
            "fake": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Fake",
                "options": {"baseURL": model_url, "apiKey": "none"},
                "models": {"fake-1": {"name": "Fake One", "limit": {"context": 200000, "output": 8192}}},
            }
        },
    }
    (work / "opencode.json").write_text(json.dumps(config))
    return work
