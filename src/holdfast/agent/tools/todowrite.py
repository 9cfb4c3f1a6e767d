"""The tool `todowrite`: replaces the session's list of tasks."""

from collections.abc import Sequence
from typing import Any

import msgspec

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.core.messages import ToolPart
from holdfast.core.session import Todo


class TodoWrite:
    id = "todowrite"
    repeatable = True
    description = """\
Writes the list of tasks of this session, which the user sees. The new list takes the place of the old one.

- Use it for work of three or more steps, or when the user gives several tasks; not for a single, small one.
- Keep it true while you work: one task `in_progress` at a time, each `completed` as soon as it is really done, those that
  turned out to be needless `cancelled`, new ones added when you find them.
- `status` is pending, in_progress, completed or cancelled; `priority` is high, medium or low."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "todos": {
                "type": "array",
                "maxItems": 500,
                "items": {
                    "type": "object",
                    "properties": {
                        "content": {"type": "string", "description": "The task in a few words"},
                        "status": {"type": "string", "description": "pending, in_progress, completed or cancelled"},
                        "priority": {"type": "string", "description": "high, medium or low"},
                    },
                    "required": ["content", "status", "priority"],
                },
                "description": "The whole list, in order",
            }
        },
        "required": ["todos"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return [Ask(permission=self.id, patterns=("*",), always=("*",))]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        todos = [
            Todo(content=todo["content"], status=todo["status"], priority=todo["priority"]) for todo in input["todos"]
        ]
        await context.host.write_todos(todos)
        return shown(todos)

    async def clean_up(self, part: ToolPart) -> None:
        """The list was written, or it was not."""


def shown(todos: Sequence[Todo]) -> ToolResult:
    """What `todowrite` and `todoread` answer."""
    wire = msgspec.to_builtins(list(todos))
    open_count = sum(todo.status not in ("completed", "cancelled") for todo in todos)
    return ToolResult(
        title=f"{open_count} todos",
        output=msgspec.json.format(msgspec.json.encode(wire), indent=2).decode(),
        metadata={"todos": wire, "truncated": False},
    )
