"""Port: what a turn needs to know of the world around its session."""

from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from holdfast.agent.providers.base import ModelRequest, Provider
from holdfast.agent.snapshots import WorkTree
from holdfast.agent.tools import ToolBox
from holdfast.core.messages import MessageModel, UserMessage
from holdfast.core.permissions import PermissionRule
from holdfast.core.session import Session


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the LLM is to be asked: what the agent, the model's variant and the configuration say, put together."""

    temperature: float | None = None
    top_p: float | None = None
    options: dict[str, Any] = {}


class ResolvedModel(msgspec.Struct, frozen=True, kw_only=True):
    """`model_id` is the provider's own name for it. A conversation of more than `input_tokens_max` tokens is summarised
    before the next step; None if that is unknown, or not wanted. `settings` are for the agent's own steps, not for
    summaries."""

    provider: Provider
    model_id: str
    input_tokens_max: int | None = None
    output_tokens_max: int | None = None
    settings: ModelSettings = ModelSettings()


def with_settings(request: ModelRequest, settings: ModelSettings) -> ModelRequest:
    return replace(request, temperature=settings.temperature, top_p=settings.top_p, options=settings.options)


class Environment(Protocol):
    async def prepare(self, session: Session) -> None:
        """Read what `tools`, `rules`, `system` and `subagents` answer from, if nobody did since the server started, and begin
        what brings further tools. Raises Invalid if the project's configuration is broken."""
        ...

    async def model(self, session: Session, user: UserMessage) -> ResolvedModel:
        """The LLM that the prompt asks for. Raises NotFound or Unavailable if there is none (any more)."""
        ...

    async def title_model(self, session: Session, user: UserMessage) -> ResolvedModel | None:
        """The (small) LLM that names sessions; None to leave them unnamed."""
        ...

    def tools(self, session: Session, user: UserMessage) -> ToolBox:
        """What the LLM may call in this turn."""
        ...

    def prunes(self, session: Session) -> bool:
        """Whether the LLM shall not see old output of tools for ever."""
        ...

    def steps_max(self, session: Session, user: UserMessage) -> int | None:
        """How many steps the agent may take in a turn; None if as many as it needs."""
        ...

    def rules(self, session: Session, user: UserMessage) -> tuple[PermissionRule, ...]:
        """What calls may do without asking, or not at all: of the agent, the project and the session, in this order.
        (What users allowed with "always" comes after them.)"""
        ...

    def system(self, session: Session, user: UserMessage, agent: str) -> tuple[str, ...]:
        """The system prompt of an agent (the prompt's own, or a hidden one), in paragraphs."""
        ...

    def agent_model(self, session: Session, agent: str) -> MessageModel | None:
        """The LLM that an agent is configured to use; None if it takes what it is given."""
        ...

    def subagents(self, session: Session) -> tuple[str, ...]:
        """The agents that the LLM may give tasks to."""
        ...

    def snapshots(self, session: Session) -> WorkTree | None:
        """Where the project's files are remembered; None where that is not wanted."""
        ...

    def worktree(self, session: Session) -> str:
        """The root of the project that the session's directory belongs to."""
        ...

    def output_directory(self, session: Session) -> Path:
        """Where tools put output that is over the limit."""
        ...
