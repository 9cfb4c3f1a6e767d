"""Which steps belong to which prompt, told from the messages alone: a turn that is over leaves no other trace in the state.

A step names the prompt that it answers. Prompts that the engine wrote in the middle of a turn (to summarise, to go on after
that) belong to that turn: to the one whose step came last, unless that ended it; then to the next prompt that nobody has
answered.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from holdfast.core.messages import AssistantMessage, CompactionPart, TextPart, UserMessage, WithParts


class PastTurn(NamedTuple):
    """`steps` are the assistant messages, oldest first; none, if the prompt was not answered (yet)."""

    prompt: WithParts
    steps: list[WithParts]


def past_turns(history: Sequence[WithParts]) -> dict[str, PastTurn]:
    """By prompt, in order. `history` may begin anywhere; steps whose prompt is not in it are left out."""
    turns: dict[str, PastTurn] = {}
    owner_of: dict[str, str] = {}
    running: str | None = None
    for message in history:
        info = message.info
        if isinstance(info, UserMessage):
            owner = running or _next_in_queue(turns)
            if _is_extension(message) and owner is not None:
                owner_of[info.id] = owner
            else:
                owner_of[info.id] = info.id
                turns[info.id] = PastTurn(message, [])
            continue
        owner = owner_of.get(info.parent_id, info.parent_id)
        if owner in turns:
            turns[owner].steps.append(message)
        running = None if _ends_turn(info) else owner
    return turns


def _ends_turn(info: AssistantMessage) -> bool:
    if info.time.completed is None:
        return False
    return info.error is not None or (not info.summary and info.finish != "tool-calls")


def _next_in_queue(turns: Mapping[str, PastTurn]) -> str | None:
    """The first prompt after the last that was answered."""
    found: str | None = None
    for id, turn in reversed(list(turns.items())):
        if turn.steps:
            break
        found = id
    return found


def _is_extension(prompt: WithParts) -> bool:
    return bool(prompt.parts) and all(
        (isinstance(part, CompactionPart) and part.auto)
        or (isinstance(part, TextPart) and part.synthetic is True and not part.metadata)
        for part in prompt.parts
    )
