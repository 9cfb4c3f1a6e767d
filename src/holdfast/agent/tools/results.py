"""Results of any length: what is over the limit goes to a file, and the LLM gets the beginning, the end and its name."""

from typing import Any

from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.agent.tools.output import CommandOutput
from holdfast.core.messages import FilePart


async def result(
    context: ToolContext,
    *,
    title: str,
    output: str,
    metadata: dict[str, Any],
    truncated: bool = False,
    attachments: tuple[FilePart, ...] = (),
) -> ToolResult:
    """`truncated`: the output is not all there is, even if it is within the limit."""
    shown = CommandOutput(context.output_directory / f"{context.part_id}.txt")
    try:
        await shown.take(output.encode(errors="replace"))
    finally:
        shown.close()
    metadata = {**metadata, "truncated": truncated or shown.is_truncated}
    if shown.kept is not None:
        metadata["outputPath"] = str(shown.kept)
    return ToolResult(title=title, output=shown.result(), metadata=metadata, attachments=attachments)
