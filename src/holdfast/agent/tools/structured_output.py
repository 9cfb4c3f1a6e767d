"""The tool `StructuredOutput`: how the LLM gives an answer in the form that the prompt asked for. There is one per prompt.

What it is called with is the answer, and ends the turn (`agent.turn.outcomes.finish_step`); whether it has the form is checked
like any tool's input, and a wrong one is answered with what is wrong.
"""

from collections.abc import Sequence
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.agent.turn.decide import STRUCTURED
from holdfast.core.messages import ToolPart


class StructuredOutput:
    id = STRUCTURED
    repeatable = True
    description = """\
Gives your final answer, in the form that the user asked for. Do everything else first: after this call, nothing follows."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.parameters = schema

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return []

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        return ToolResult(title="Structured output", output="The answer has the right form.", metadata={"valid": True})

    async def clean_up(self, part: ToolPart) -> None:
        """It does nothing."""
