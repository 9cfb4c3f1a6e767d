"""What a directory offers besides LLMs, agents and commands: tools and skills, as those who ask see them."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from holdfast.agent.skills import find_skills
from holdfast.agent.tools import Tool
from holdfast.core.catalogue import SkillInfo, ToolInfo
from holdfast.service.instances import Instance


class OfferService:
    """`tools` are all there are, `configuration` is the directory of the user's own, `home` that of the user."""

    def __init__(self, tools: Mapping[str, Tool], configuration: Path, home: Path) -> None:
        self._tools = tools
        self._configuration = configuration
        self._home = home

    def tool_ids(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def tools(self, instance: Instance, provider_id: str, model_id: str) -> tuple[ToolInfo, ...]:
        """What that LLM would be offered by an agent that may use everything. Raises Invalid if there is no such LLM."""
        instance.check_model(provider_id, model_id)
        return tuple(_described(tool) for tool in self._tools.values())

    async def skills(self, instance: Instance) -> tuple[SkillInfo, ...]:
        """By name."""
        found = await asyncio.to_thread(
            find_skills, Path(instance.directory), Path(instance.place.worktree), self._configuration, self._home
        )
        return tuple(
            SkillInfo(name=skill.name, description=skill.description, location=skill.location, content=skill.content)
            for skill in found
        )


def _described(tool: Tool) -> ToolInfo:
    parameters: dict[str, Any] = tool.parameters
    return ToolInfo(id=tool.id, description=tool.description, parameters=parameters)
