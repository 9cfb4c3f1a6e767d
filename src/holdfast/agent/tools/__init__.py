"""Tools that an LLM can call. `built_in` lists them; docs/howto/add-a-tool.md tells how to add one."""

from pathlib import Path

from holdfast.agent.tools.apply_patch import ApplyPatch
from holdfast.agent.tools.base import Progress, Tool, ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.bash import Bash
from holdfast.agent.tools.diagnostics import CodeChecks
from holdfast.agent.tools.edit import Edit
from holdfast.agent.tools.file_edits import FileEdits
from holdfast.agent.tools.formatters import Formatters
from holdfast.agent.tools.glob import Glob
from holdfast.agent.tools.grep import Grep
from holdfast.agent.tools.invalid import Invalid
from holdfast.agent.tools.list import List
from holdfast.agent.tools.processes import Processes
from holdfast.agent.tools.question import Question
from holdfast.agent.tools.read import Read
from holdfast.agent.tools.skill import Skill
from holdfast.agent.tools.task import Task
from holdfast.agent.tools.todoread import TodoRead
from holdfast.agent.tools.todowrite import TodoWrite
from holdfast.agent.tools.toolbox import ToolBox, validate
from holdfast.agent.tools.webfetch import WebFetch
from holdfast.agent.tools.write import Write


def built_in(
    processes: Processes,
    *,
    shell: str | None = None,
    configuration: Path | None = None,
    home: Path | None = None,
    formatters: Formatters | None = None,
    checks: CodeChecks | None = None,
) -> ToolBox:
    """Every tool that comes with Holdfast. `shell` as in `Bash`; `configuration` is the directory of the user's own, `home` that
    of the user; `formatters` bring changed files into shape, `checks` look at what is wrong in them."""
    edits = FileEdits(formatters, checks)
    return ToolBox(
        (
            Invalid(),
            Question(),
            Bash(processes, shell=shell),
            Read(checks),
            Glob(),
            Grep(),
            List(),
            Edit(edits),
            Write(edits),
            ApplyPatch(edits),
            Task(),
            WebFetch(),
            TodoWrite(),
            TodoRead(),
            Skill(configuration, home),
        )
    )


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
