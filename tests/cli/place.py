"""A place to run commands in: a project that asks a model server of ours, and a real server that comes and goes on one port."""

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from holdfast.client import Client
from holdfast.core.messages import TextPart, WithParts
from holdfast.testing.model_server import ModelServer
from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command
from tests.cli.command import Command


class Place:
    """`async with Place(tmp_path) as place:` has the server running. `work` is the project, `data` the data directory."""

    def __init__(self, directory: Path) -> None:
        self.work = directory / "work"
        self.data = directory / "data"
        self.model = ModelServer()
        command = holdfast_command("serve", "--port", str(free_port()), "--data", str(self.data))
        self.server = ServerProcess(command, cwd=self.work, log=directory / "server.log")

    async def __aenter__(self) -> Self:
        self.work.mkdir()
        await self.model.__aenter__()
        fake = {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": self.model.url, "apiKey": "none"},
            "models": {"fake-1": {"limit": {"context": 200_000, "output": 8_192}}},
        }
        configuration = {"model": "fake/fake-1", "small_model": "fake/fake-1", "provider": {"fake": fake}}
        (self.work / "opencode.json").write_text(json.dumps(configuration))
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.kill()
        await self.model.__aexit__(None, None, None)

    async def start(self) -> None:
        await asyncio.to_thread(self.server.start)

    async def kill(self) -> None:
        await asyncio.to_thread(self.server.kill)

    async def stop(self) -> None:
        assert await asyncio.to_thread(self.server.stop) == 0

    def run(self, prompt: str, *options: str) -> Command:
        return Command("run", prompt, "--server", self.server.url, *options, cwd=self.work)

    def tail(self, session: str, *options: str) -> Command:
        return Command("tail", session, "--server", self.server.url, *options, cwd=self.work)

    async def new_session(self) -> str:
        """With a title, so that no title is made up for it."""
        async with Client(self.server.url, directory=str(self.work)) as client:
            return (await client.create_session(title="A session")).id

    async def messages(self, session: str) -> tuple[WithParts, ...]:
        async with Client(self.server.url) as client:
            return await client.messages(session)

    async def delete(self, session: str) -> None:
        async with httpx.AsyncClient(base_url=self.server.url, timeout=60) as http:
            (await http.delete(f"/session/{session}")).raise_for_status()

    async def session(self) -> str:
        """The only one."""
        async with Client(self.server.url, directory=str(self.work)) as client:
            (session,) = await client.sessions()
            return session.id


def tokens(count: int) -> str:
    """What the model server says when it is asked for that many."""
    return "".join(f"tok{number} " for number in range(count))


def text_of(message: WithParts) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, TextPart))
