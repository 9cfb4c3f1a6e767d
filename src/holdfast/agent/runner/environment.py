"""Port: what a turn needs to know of the world around its session."""

from pathlib import Path
from typing import Protocol

import msgspec

from holdfast.agent.providers.base import Provider
from holdfast.agent.tools import ToolBox
from holdfast.core.messages import UserMessage
from holdfast.core.session import Session


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True):
    """`model_id` is the provider's own name for it."""

    provider: Provider
    model_id: str
    output_tokens_max: int | None = None


class Environment(Protocol):
    async def model(self, session: Session, user: UserMessage) -> ResolvedModel:
        """The LLM that the prompt asks for. Raises NotFound or Unavailable if there is none (any more)."""
        ...

    def tools(self, session: Session, user: UserMessage) -> ToolBox:
        """What the LLM may call in this turn."""
        ...

    def system(self, session: Session, user: UserMessage) -> tuple[str, ...]:
        """The system prompt, in paragraphs."""
        ...

    def worktree(self, session: Session) -> str:
        """The root of the project that the session's directory belongs to."""
        ...

    def output_directory(self, session: Session) -> Path:
        """Where tools put output that is over the limit."""
        ...
