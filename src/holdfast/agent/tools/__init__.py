"""Tools that an LLM can call. `built_in` lists them; docs/howto/add-a-tool.md tells how to add one."""

from holdfast.agent.tools.base import Progress, Tool, ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.bash import Bash
from holdfast.agent.tools.processes import Processes
from holdfast.agent.tools.read import Read
from holdfast.agent.tools.toolbox import ToolBox, validate


def built_in(processes: Processes, *, shell: str | None = None) -> ToolBox:
    """Every tool that comes with Holdfast. `shell` as in `Bash`."""
    return ToolBox((Bash(processes, shell=shell), Read()))


__all__ = [
    "Processes",
    "Progress",
    "Tool",
    "ToolBox",
    "ToolContext",
    "ToolFailure",
    "ToolResult",
    "built_in",
    "validate",
]
