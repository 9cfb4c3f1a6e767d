"""The tool `skill`: reads one of the skills (`agent.skills`)."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from holdfast.agent.permissions import Ask
from holdfast.agent.skills import Skill as Found
from holdfast.agent.skills import find_skills
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.results import result
from holdfast.core.messages import ToolPart

SKILL: Final = "skill"


class Skill:
    """`configuration` is the directory of the user's own configuration, `home` that of the user."""

    id = SKILL
    repeatable = True
    description = """\
Reads a skill: instructions, and often files, that the user or the project has for a certain kind of work.

- Read the skill that fits a task before you begin it, and follow it. Paths in it start at its base directory.
- A name that does not exist is answered with those that do, and what each is for."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"name": {"type": "string", "description": "The name of the skill"}},
        "required": ["name"],
    }

    def __init__(self, configuration: Path | None = None, home: Path | None = None) -> None:
        self._configuration = configuration
        self._home = home

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        skill = await self._find(input["name"], context)
        return [Ask(permission=self.id, patterns=(skill.name,), always=(skill.name,))]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        skill = await self._find(input["name"], context)
        directory = str(Path(skill.location).parent)
        return await result(
            context,
            title=f"Loaded skill: {skill.name}",
            output=f'<skill name="{skill.name}">\nBase directory: {directory}\n\n{skill.content}\n</skill>',
            metadata={"name": skill.name, "dir": directory},
        )

    async def clean_up(self, part: ToolPart) -> None:
        """It only read."""

    async def _find(self, name: str, context: ToolContext) -> Found:
        skills = await asyncio.to_thread(
            find_skills, context.directory, context.worktree, self._configuration, self._home
        )
        for skill in skills:
            if skill.name == name.strip():
                return skill
        known = "\n".join(f"- {skill.name}: {skill.description}" for skill in skills) or "(none)"
        raise ToolFailure(f"There is no skill {name[:100]!r}. The skills are:\n{known[:20_000]}")
