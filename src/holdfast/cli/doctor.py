"""`holdfast doctor`: what this machine needs for Holdfast, each line ok, warn or fail, with what to do. Changes nothing."""

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
from rich.console import Console
from rich.text import Text

from holdfast import __version__
from holdfast.agent.providers.connections import Connections
from holdfast.bootstrap import StoredKeys, open_reader, server_of, stored_keys
from holdfast.cli.outcome import FAILED
from holdfast.cli.words import counted
from holdfast.client import Client
from holdfast.core.errors import Conflict, HoldfastError, Invalid, StorageError
from holdfast.core.store import SessionQuery
from holdfast.core.subscriptions import SigningKey
from holdfast.service.config import Configuration
from holdfast.service.projects import find_place
from holdfast.service.signing import closed, is_clear

SPACE_WARN_BYTES: Final = 2 << 30
SPACE_FAIL_BYTES: Final = 100 << 20

Level = Literal["ok", "warn", "fail"]
_STYLES: Final[dict[Level, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


class Finding(msgspec.Struct, frozen=True):
    """`hint` is what to do about it."""

    level: Level
    what: str
    hint: str | None = None


async def doctor(data: Path, directory: Path, host: str, port: int) -> int:
    """The exit code: 1 if something fails."""
    out = Console(highlight=False, soft_wrap=True)
    failed = False
    async for finding in findings(data, directory, host, port):
        failed = failed or finding.level == "fail"
        out.print(Text.assemble((f"{finding.level:<5}", _STYLES[finding.level]), finding.what))
        if finding.hint:
            out.print(Text(f"     → {finding.hint}"))
    return FAILED if failed else 0


async def findings(data: Path, directory: Path, host: str, port: int) -> AsyncIterator[Finding]:
    yield Finding("ok", f"Holdfast {__version__}, Python {platform.python_version()} on {platform.system()}")
    yield Finding("ok", f"SQLite driver apsw {importlib.metadata.version('apsw')}")
    for finding in (*check_data(data), *check_programs()):
        yield finding
    yield await check_database(data)
    keys = stored_keys(data, os.environ, Path.home())
    for finding in check_keys(keys, await _signing_keys(data)):
        yield finding
    yield await check_configuration(directory, keys)
    yield await check_address(host, port)


def check_data(data: Path) -> Iterator[Finding]:
    if not data.exists():
        parent = next(parent for parent in data.parents if parent.exists())
        if _can_be_made(data):
            yield Finding("ok", f"The data directory {data} will be made by the first start")
        else:
            yield Finding(
                "fail",
                f"The data directory {data} cannot be made",
                f"{parent} is no directory that this user may write: use --data.",
            )
            return
    elif not data.is_dir():
        yield Finding("fail", f"{data} is not a directory", "Choose another one with --data.")
        return
    else:
        parent = data
        if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
            yield Finding("fail", f"The data directory {data} is not writable", "Give it to this user, or use --data.")
        elif os.name == "posix" and data.stat().st_mode & 0o077:
            yield Finding("warn", f"Others can look into the data directory {data}", f"chmod 700 {data}")
        else:
            yield Finding("ok", f"Data directory {data}")
    free = shutil.disk_usage(parent).free
    level: Level = "fail" if free < SPACE_FAIL_BYTES else "warn" if free < SPACE_WARN_BYTES else "ok"
    yield Finding(
        level,
        f"{free / (1 << 30):.1f} GiB free on its disk",
        None if level == "ok" else "Free some space: when the disk is full, the server stops.",
    )


async def check_database(data: Path) -> Finding:
    try:
        server = server_of(data)
        used = "no server uses it" if server is None else f"in use by server process {server or '(unknown)'}"
        reader = open_reader(data)
    except StorageError as error:
        if not (data / "holdfast.db").exists():
            return Finding("ok", "No database yet")
        return Finding("fail", error.message, error.hint)
    try:
        damage = await reader.damage()
        sessions = len(await reader.sessions(SessionQuery()))
    except StorageError as error:
        return Finding("fail", error.message, error.hint)
    finally:
        await reader.close()
    if damage:
        return Finding("fail", f"The database is damaged: {damage[0]}", "Keep a copy, then restore it from a backup.")
    return Finding("ok", f"Database: {counted(sessions, 'session')}, schema {reader.schema}, sound; {used}")


def check_keys(keys: StoredKeys, signing: Sequence[SigningKey]) -> Iterator[Finding]:
    """What is stored sealed, and whether a server could open it that is started as this command was."""
    file = keys.seal.key_file
    try:
        has_key = keys.seal.has_key()
    except (Invalid, Conflict) as error:
        yield Finding(
            "fail",
            f"Stored keys cannot be opened, and none can be stored: {error.message}",
            "Bring back the right one; or take it away, and give the keys again (/connect).",
        )
        return
    if not has_key and not _can_be_made(file):
        yield Finding(
            "warn",
            f"No keys can be stored, and nobody can subscribe to streams: {file} cannot be made",
            f"Give this user write access to {file.parent}, or set HOLDFAST_AUTH_KEY.",
        )
    if has_key and _others_can_read(file):
        yield Finding("warn", f"Others can read {file}, which opens the stored keys", f"chmod 600 {file}")
    if any(is_clear(key) for key in signing):
        yield Finding("warn", "Keys for signing webhooks are stored in clear", "Start the server: it seals them.")
    kinds: tuple[tuple[str, Level, Callable[[], Mapping[str, str | None]], str], ...] = (
        ("Keys of providers", "fail", keys.credentials.closed, "give the keys again (/connect)"),
        ("Logins at MCP servers", "warn", keys.grants.closed, "log in again (/mcp)"),
        ("Keys for signing webhooks", "warn", lambda: closed(signing, keys.seal), "let the server make new ones"),
    )
    count = closed_count = 0
    for what, level, stored, remedy in kinds:
        try:
            found = stored()
        except Conflict as error:
            yield Finding(level, error.message, error.hint)
            closed_count += 1
            continue
        count += len(found)
        names: dict[str, list[str]] = {}
        for name, reason in found.items():
            if reason is not None:
                names.setdefault(reason, []).append(name.partition(" ")[0])
        for reason, of in names.items():
            closed_count += len(of)
            yield Finding(
                level,
                f"{what} cannot be opened: {', '.join(of)}. {reason}",
                f"Bring back the {file.name} that they were sealed with (to {file.parent}), or set HOLDFAST_AUTH_KEY as it was "
                f"for the server; or {remedy}.",
            )
    if not closed_count:
        yield Finding(
            "ok", f"{counted(count, 'stored key')}, which {keys.seal.place} opens" if count else "No stored keys"
        )


async def check_configuration(directory: Path, keys: StoredKeys) -> Finding:
    try:
        place = await find_place(str(directory))
        configuration = Configuration(
            environ=os.environ, home=Path.home(), connections=Connections(), credentials=keys.credentials
        )
        registry = configuration.providers(str(directory), place.worktree)
        model = registry.default_model()
        registry.model(model.provider_id, model.model_id)
    except HoldfastError as error:
        return Finding("fail", error.message, error.hint or "Correct opencode.json.")
    name = f"{model.provider_id}/{model.model_id}"
    if model.provider_id == "demo":
        return Finding(
            "warn", f"Configuration: only the built-in model {name}", "Describe a provider in opencode.json (README)."
        )
    return Finding("ok", f"Configuration of {directory}: model {name}")


def check_programs() -> Iterator[Finding]:
    if git := shutil.which("git"):
        yield Finding("ok", f"git: {git}")
    else:
        yield Finding("warn", "git is not installed", "Without it, all directories belong to one project.")
    if ripgrep := shutil.which("rg"):
        yield Finding("ok", f"ripgrep: {ripgrep}")
    else:
        yield Finding("warn", "ripgrep (rg) is not installed", "Searching in files works without it, but slower.")


async def _signing_keys(data: Path) -> Sequence[SigningKey]:
    """None, if the database cannot be read: that was said already."""
    try:
        reader = open_reader(data)
    except StorageError:
        return ()
    try:
        return await reader.signing_keys()
    except StorageError:
        return ()
    finally:
        await reader.close()


def _can_be_made(path: Path) -> bool:
    parent = next(parent for parent in path.parents if parent.exists())
    return parent.is_dir() and os.access(parent, os.W_OK)


def _others_can_read(file: Path) -> bool:
    """False if it is not there."""
    return os.name == "posix" and file.exists() and bool(file.stat().st_mode & 0o077)


async def check_address(host: str, port: int) -> Finding:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if sys.platform != "win32":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return Finding("ok", f"{host}:{port} is free")
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    try:
        async with Client(url) as client:
            health = await client.health()
    except HoldfastError:
        return Finding("warn", f"{host}:{port} cannot be used: {reason}", "Serve on another one with --port.")
    return Finding("ok", f"A server answers at {url}: version {health.version}")
