"""The tool `invalid`: what a call becomes that cannot be one, so that the LLM reads why. No LLM calls it by itself."""

from collections.abc import Collection, Sequence
from typing import Any, Final

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.agent.tools.results import result
from holdfast.core.messages import ToolPart

INVALID: Final = "invalid"

_NAME_CHARACTERS_MAX: Final = 200


def impossible(tool: str, tools: Collection[str]) -> dict[str, Any]:
    """The input for a call of a tool that is not there."""
    name = tool if len(tool) <= _NAME_CHARACTERS_MAX else f"{tool[:_NAME_CHARACTERS_MAX]}…"
    known = ", ".join(sorted(set(tools) - {INVALID})) or "none"
    return {"tool": name, "error": f"There is no tool {name!r}. The tools are: {known}."}


class Invalid:
    id = INVALID
    repeatable = True
    description = "Not to be called. It stands in for calls that are wrong, and says what is wrong with them."
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "tool": {"type": "string", "description": "The name that was called"},
            "error": {"type": "string", "description": "What is wrong"},
        },
        "required": ["tool", "error"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return []

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        return await result(
            context, title="Invalid tool call", output=f"This call is not possible: {input['error']}", metadata={}
        )

    async def clean_up(self, part: ToolPart) -> None:
        """It does nothing."""
