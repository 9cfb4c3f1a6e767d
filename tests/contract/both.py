"""Runs the contract script against two servers at the same time: the stock `opencode serve` and `holdfast serve`.

Each has a home of its own, a project directory with the same content and the same first commit, and a model server of its
own that says the same.
"""

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.testing.model_server import ModelServer
from holdfast.testing.server_process import ServerProcess, holdfast_command
from holdfast.testing.stock_opencode import opencode_environment
from tests.kill.arena import opencode_json

NODE = Path(__file__).resolve().parent.parent / "node"
_FILES = {
    "README.md": b"# Sample\n",
    "src/alpha.txt": b"alpha\nbeta\ngamma\n",
    "src/beta.txt": b"beta\n",
    "dot.png": b"\x89PNG\r\n\x1a\n\x00\x00",
}
_COMMANDS = {
    "greet": {"template": "Greet $ARGUMENTS, and $2 above all: !`echo hi` [[tokens=2]]", "description": "Say hello"}
}
_GIT = {
    f"GIT_{who}_{what}": "Sample" if what == "NAME" else "sample@example.org"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
} | {f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")}


@dataclass(frozen=True)
class Recording:
    """What the script saw of one server, and the places whose names differ between the two."""

    trace: dict[str, Any]
    places: dict[str, str]
    log: str


def make_project(directory: Path) -> None:
    for name, content in _FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    environment = {**os.environ, **_GIT, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=directory, env=environment, check=True)


async def record(command: list[str], place: Path, scenarios: list[str]) -> Recording:
    home, work = place / "home", place / "work"
    make_project(work)
    configuration = home / "config" / "opencode" / "opencode.json"
    configuration.parent.mkdir(parents=True)
    async with ModelServer() as model:
        configuration.write_text(json.dumps({**opencode_json(model.url), "command": _COMMANDS}))
        environment = opencode_environment(home)
        server = ServerProcess(command, cwd=work, log=place / "server.log", env=environment)
        try:
            url = await asyncio.to_thread(server.start, timeout=90)
            trace = await _run_script(url, work, scenarios)
        finally:
            server.kill()
    places = {str(work): "<dir>", str(home): "<home>", url: "<url>", str(place): "<place>", model.url: "<model>"}
    places |= {str(home / "data" / "opencode"): "<data>", str(place / "data"): "<data>"}
    return Recording(trace, places, server.log.read_text(errors="replace"))


async def _run_script(url: str, work: Path, scenarios: list[str]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("node")),
        str(NODE / "contract" / "run.mjs"),
        url,
        str(work),
        *scenarios,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if os.environ.get("CONTRACT_TRACE"):
        print(errors.decode(), file=sys.stderr)
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


async def record_both(opencode: Path, place: Path, scenarios: list[str]) -> tuple[Recording, Recording]:
    stock = record([str(opencode), "serve", "--port", "0", "--hostname", "127.0.0.1"], place / "opencode", scenarios)
    ours = record(
        holdfast_command("serve", "--port", "0", "--data", str(place / "holdfast" / "data")),
        place / "holdfast",
        scenarios,
    )
    tasks = [asyncio.create_task(stock), asyncio.create_task(ours)]
    await asyncio.wait(tasks)  # each to its end, so that no process is left
    return tasks[0].result(), tasks[1].result()
