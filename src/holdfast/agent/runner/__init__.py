"""Does the steps that `agent.turn` decides, and appends their outcome."""

from holdfast.agent.runner.engine import Engine
from holdfast.agent.runner.environment import Environment, ModelSettings, ResolvedModel

__all__ = ["Engine", "Environment", "ModelSettings", "ResolvedModel"]
