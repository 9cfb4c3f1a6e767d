"""Old output of tools is left out of what the LLM sees, if the user wants that (`compaction.prune`): at the beginning of a turn,
what is beyond the newest PROTECTED_TOKENS of it, and not in the turn before. It stays in the log and for clients; the part
says when it went (`time.compacted`).
"""

from typing import Final

from msgspec.structs import replace

from holdfast.agent.runner.history import backwards
from holdfast.agent.runner.session_log import SessionLog
from holdfast.agent.tools.skill import SKILL
from holdfast.core.events import Event, PartUpdated
from holdfast.core.messages import ToolCompleted, ToolPart, UserMessage

PROTECTED_TOKENS: Final = 40_000
WORTHWHILE_TOKENS: Final = 20_000
"""Less is not worth it: providers keep what they have seen before in a cache, up to the first change."""

_CHARACTERS_PER_TOKEN: Final = 4
_PROMPTS_KEPT: Final = 2


async def pruned(record: SessionLog) -> list[Event]:
    """Marks for the outputs that the LLM shall not see any more; none if that would not save much."""
    now = record.now_ms()
    marked: list[Event] = []
    prompts = seen = saved = 0
    async for message in backwards(record.store, record.session_id):
        if isinstance(message.info, UserMessage):
            prompts += 1
            continue
        if message.info.summary:
            break  # what is before it is left out anyway
        if prompts < _PROMPTS_KEPT:
            continue
        for part in reversed(message.parts):
            if not isinstance(part, ToolPart) or not isinstance(part.state, ToolCompleted) or part.tool == SKILL:
                continue
            if part.state.time.compacted is not None:
                return marked if saved > WORTHWHILE_TOKENS else []
            size = len(part.state.output) // _CHARACTERS_PER_TOKEN
            seen += size
            if seen > PROTECTED_TOKENS:
                saved += size
                state = replace(part.state, time=replace(part.state.time, compacted=now))
                marked.append(PartUpdated(session_id=part.session_id, part=replace(part, state=state), time=now))
    return marked if saved > WORTHWHILE_TOKENS else []
