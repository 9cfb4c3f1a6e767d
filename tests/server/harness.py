"""Whole servers for tests: in memory or on a disk, reached in-process or over a socket, with an LLM that says what it is told."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import msgspec

from holdfast.agent.providers.registry import ADAPTERS
from holdfast.bootstrap import Application, Settings, open_application
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL
from holdfast.server.listener import Listener
from holdfast.testing.scripted_provider import Script, ScriptedProvider, scripted_adapters

BASE = "http://127.0.0.1:4096"
CONFIG = {
    "model": "scripted/main",
    "provider": {"scripted": {"npm": "scripted", "models": {"main": {}, "other": {}}}},
}


class Server:
    """`api` speaks to it in-process. `scripts` are what the LLM answers, request by request."""

    def __init__(
        self, directory: Path, data: Path | None = None, scripts: Sequence[Script] = (), **settings: Any
    ) -> None:
        self.directory = directory
        self.provider = ScriptedProvider(*scripts)
        self.settings = Settings(
            **{
                "data": data,
                "directory": directory,
                "home": directory,
                "environ": {"OPENCODE_CONFIG_CONTENT": msgspec.json.encode(CONFIG).decode()},
                "adapters": {**ADAPTERS, **scripted_adapters({"main": self.provider, "other": self.provider})},
                **settings,
            }
        )
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.application: Application = await self._stack.enter_async_context(open_application(self.settings))
        self.api = await self._stack.enter_async_context(self.client())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def client(self, **options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.application.asgi, raise_app_exceptions=False)
        return httpx.AsyncClient(**{"transport": transport, "base_url": BASE, "timeout": 30, **options})

    async def listen(self) -> str:
        """Serve on a socket as well, and answer the URL."""
        listener = Listener(self.application.asgi, "127.0.0.1", 0, stopping=self.application.stop)
        return (await self._stack.enter_async_context(listener)).url

    # --- shortcuts

    async def session(self, **body: Any) -> str:
        return (await self.api.post("/session", json=body)).raise_for_status().json()["id"]

    async def prompt(self, session_id: str, text: str = "Hello", **body: Any) -> httpx.Response:
        return await self.api.post(f"/session/{session_id}/message", json=prompt(text, **body))

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        return (await self.api.get(f"/session/{session_id}/message")).raise_for_status().json()

    async def records(self) -> int:
        """How many records there are, to see that a refused request left none."""
        return len(await self.application.store.read(ALL, after=BEGINNING, limit=100_000))


def prompt(text: str = "Hello", **body: Any) -> dict[str, Any]:
    return {"parts": [{"type": "text", "text": text}], **body}


def texts(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")
