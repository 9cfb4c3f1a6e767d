"""A page of a web application, without the browser: the AI SDK's own chat in Node, with the stock transport."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

SCRIPT = Path(__file__).parents[2] / "node" / "aisdk" / "chat.mjs"


class ChatPage:
    """`async with ChatPage(url) as page`: `do` gives a command, `until` waits for what the page tells."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.messages: list[dict[str, Any]] = []
        self.status = "ready"
        self.told: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("node")),
            str(SCRIPT),
            self._url,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def do(self, name: str, **options: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": name, **options}).encode() + b"\n")

    async def until(self, reached: Callable[["ChatPage"], object]) -> None:
        """Return once the page is so; whatever it tells meanwhile is in `told`."""
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            while not reached(self):
                line = await self._process.stdout.readline()
                assert line, "the page is gone"
                told = json.loads(line)
                if "messages" in told:
                    self.status, self.messages = told["status"], told["messages"]
                else:
                    self.told.append(told)

    async def done(self, name: str, **options: Any) -> None:
        """Give a command, and wait until it is over."""
        before = self.count(done=name)
        self.do(name, **options)
        await self.until(lambda page: page.count(done=name) > before)

    def count(self, **line: Any) -> int:
        return sum(line.items() <= told.items() for told in self.told)

    def found(self, key: str) -> list[Any]:
        return [told[key] for told in self.told if key in told]

    def text(self, at: int = -1) -> str:
        """All text of a message."""
        if not self.messages:
            return ""
        return "".join(part["text"] for part in self.messages[at]["parts"] if part["type"] == "text")


def plain(message: dict[str, Any]) -> Any:
    """A UI message as JSON, without what only the stream tells: that a permission was given."""
    parts = [
        {name: value for name, value in part.items() if name != "approval" or part["state"] == "approval-requested"}
        for part in message["parts"]
    ]
    return {**message, "parts": parts}
