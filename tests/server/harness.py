"""Whole servers for tests: in memory or on a disk, reached in-process or over a socket, with an LLM that says what it is told."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import httptools
import httpx
import msgspec

from holdfast.agent.providers.registry import ADAPTERS
from holdfast.bootstrap import Application, Settings, open_application
from holdfast.core.codec import type_of
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
                "heartbeat_seconds": 3600,  # or one may come between two events on a machine that is busy
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
        return httpx.AsyncClient(**{"transport": transport, "base_url": BASE, "timeout": 60, **options})

    async def listen(self) -> str:
        """Serve on a socket as well, and answer the URL."""
        listener = Listener(self.application.asgi, "127.0.0.1", 0, stopping=self.application.stop)
        self.url = (await self._stack.enter_async_context(listener)).url
        return self.url

    @contextlib.asynccontextmanager
    async def events(self, path: str = "/event", **request: Any) -> AsyncIterator["EventReader"]:
        """An event stream over the socket; `listen` first."""
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=60) as client,
            client.stream("GET", path, **request) as response,
        ):
            yield EventReader(response)

    # --- shortcuts

    async def session(self, **body: Any) -> str:
        """With a title, so that the LLM is not asked for one."""
        return (await self.api.post("/session", json={"title": "A session", **body})).raise_for_status().json()["id"]

    async def prompt(self, session_id: str, text: str = "Hello", **body: Any) -> httpx.Response:
        return await self.api.post(f"/session/{session_id}/message", json=prompt(text, **body))

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        return (await self.api.get(f"/session/{session_id}/message")).raise_for_status().json()

    async def recorded(self, kind: str, count: int = 1) -> None:
        """Return once so many events of this type are recorded."""
        async for batch in self.application.store.subscribe(ALL, after=BEGINNING):
            count -= sum(type_of(record.tag) == kind for record in batch)
            if count <= 0:
                return

    async def records(self) -> int:
        """How many records there are, to see that a refused request left none."""
        return len(await self.application.store.read(ALL, after=BEGINNING, limit=100_000))


class Frame(NamedTuple):
    """`data` is the JSON as it was sent."""

    id: str | None
    data: bytes

    @property
    def json(self) -> dict[str, Any]:
        return msgspec.json.decode(self.data)

    @property
    def type(self) -> str:
        event = self.json
        return event.get("payload", event)["type"]


class EventReader:
    """Frames as they are, without the memory for ids that the standard asks of a client."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._bytes = response.aiter_bytes()
        self._rest = b""

    async def next(self) -> Frame:
        """Raises StopAsyncIteration when the stream is over."""
        while b"\n\n" not in self._rest:
            self._rest += await anext(self._bytes)
        frame, _, self._rest = self._rest.partition(b"\n\n")
        fields = dict(line.split(b": ", 1) for line in frame.split(b"\n"))
        assert fields.keys() <= {b"id", b"data"}
        return Frame(fields[b"id"].decode() if b"id" in fields else None, fields[b"data"])

    async def until(self, type: str) -> list[Frame]:
        """All frames up to the first of this type."""
        frames = [await self.next()]
        while frames[-1].type != type:
            frames.append(await self.next())
        return frames


class Body:
    """The body of an answer that a test reads from a socket itself. HTTP's chunks, what a read returns and what the body
    says have nothing to do with each other: any of them may end in the middle of another."""

    def __init__(self) -> None:
        self.read = b""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.read += body


def prompt(text: str = "Hello", **body: Any) -> dict[str, Any]:
    return {"parts": [{"type": "text", "text": text}], **body}


def texts(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")
