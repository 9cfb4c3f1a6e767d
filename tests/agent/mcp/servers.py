"""MCP servers for tests: how the configuration describes them, and real ones on loopback."""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from holdfast.server.listener import Listener
from tests.server.harness import CONFIG, Server

_HERE = Path(__file__).parent
EVERYTHING = [sys.executable, str(_HERE / "everything.py")]


def raw(log: Path, tools: int = 0) -> list[str]:
    return [sys.executable, "-I", "-S", str(_HERE / "raw.py"), str(log), str(tools)]


def local(command: list[str], **more: Any) -> dict[str, Any]:
    return {"type": "local", "command": command, **more}


def settings(mcp: dict[str, Any], **more: Any) -> dict[str, Any]:
    content = msgspec.json.encode({**CONFIG, "mcp": mcp, **more}).decode()
    return {"environ": {"OPENCODE_CONFIG_CONTENT": content}}


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path, mcp: dict[str, Any], *, config: dict[str, Any] | None = None, **more: Any
) -> AsyncIterator[Server]:
    """A Holdfast with these MCP servers."""
    async with Server(tmp_path, **settings(mcp, **(config or {})), **more) as server:
        yield server


@contextlib.asynccontextmanager
async def on_loopback(app: Any, *, port: int = 0) -> AsyncIterator[str]:
    """An MCP server's application, and its URL."""
    async with app.router.lifespan_context(app), Listener(app, "127.0.0.1", port) as listener:
        yield listener.url
