"""A session for tools under test: it answers as it was told to, and remembers what calls recorded about files."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from holdfast.agent.tools import Tool, ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.base import FileChange, Subagent
from holdfast.core.questions import Question
from holdfast.core.session import Todo


class FakeHost:
    def __init__(self) -> None:
        self.answers: tuple[tuple[str, ...], ...] | None = ()
        self.asked: list[Question] = []
        self.list: tuple[Todo, ...] = ()
        self.subagents: list[Subagent] = []
        self.answer = ""
        self.stamps: dict[str, str] = {}
        self.recorded: list[dict[str, Any]] = []
        self.changes: list[tuple[str, str]] = []

    async def ask(self, questions: Sequence[Question]) -> tuple[tuple[str, ...], ...]:
        self.asked += questions
        if self.answers is None:
            raise ToolFailure("The user dismissed this question.")
        return self.answers

    async def todos(self) -> tuple[Todo, ...]:
        return self.list

    async def write_todos(self, todos: Sequence[Todo]) -> None:
        self.list = tuple(todos)

    async def seen(self, path: str) -> frozenset[str]:
        return frozenset({self.stamps[path]} if path in self.stamps else ())

    async def changed(self, files: Sequence[FileChange]) -> None:
        self.changes += [(file.kind, Path(file.path).name) for file in files]

    async def run_subagent(self, subagent: Subagent) -> tuple[str, str]:
        self.subagents.append(subagent)
        return subagent.session_id or "ses_child", self.answer

    async def progress(self, title: str | None, metadata: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        self.recorded.append(metadata)
        self.stamps |= metadata.get("seen", {})


class Session:
    """Calls tools as the runner does: asks first, then runs, and keeps the metadata."""

    def __init__(self, context: ToolContext) -> None:
        self.host = FakeHost()
        self.context = replace(context, host=self.host, progress=self.host.progress)
        self._calls = 0

    def next_context(self) -> ToolContext:
        self._calls += 1
        return replace(self.context, part_id=f"prt_{self._calls}", call_id=f"call_{self._calls}")

    async def call(self, tool: Tool, /, **input: Any) -> ToolResult:
        context = self.next_context()
        await tool.asks(input, context)
        result = await tool.run(input, context)
        self.host.stamps |= result.metadata.get("seen", {})
        return result
