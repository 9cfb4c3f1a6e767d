"""The tool `todoread`: shows the session's list of tasks."""

from collections.abc import Sequence
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.agent.tools.todowrite import shown
from holdfast.core.messages import ToolPart


class TodoRead:
    id = "todoread"
    repeatable = True
    description = "Shows the list of tasks of this session as it is now, with the changes that the user may have made."
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {},
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return [Ask(permission=self.id, patterns=("*",), always=("*",))]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        return shown(await context.host.todos())

    async def clean_up(self, part: ToolPart) -> None:
        """It only read."""
