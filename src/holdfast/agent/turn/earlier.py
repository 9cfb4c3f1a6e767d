"""What the completed steps of a turn come to, as far as that decides anything later. Pure.

`TurnState` has the newest step only, so that a step of a long turn costs what the first one did; this is the rest, and small.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from holdfast.agent.turn.decide import STRUCTURED, assistant, wants_more
from holdfast.core.messages import AssistantMessage, Part, StepStartPart, ToolError, ToolPart, WithParts

CALLS_KEPT: Final = 2


class Earlier(NamedTuple):
    """`steps`: how many there were, summaries not counted. `summarised`: the last of them is a summary. `calls`: tool and input
    of the last CALLS_KEPT calls. `snapshot`: of the files before the turn changed any. `misses`: how many answers to prompt
    `prompt_id` lacked the form that it asks for."""

    steps: int = 0
    summarised: bool = False
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    snapshot: str | None = None
    prompt_id: str | None = None
    misses: int = 0


NOTHING: Final = Earlier()


def with_step(earlier: Earlier, step: WithParts) -> Earlier:
    """A step more has been completed."""
    info = assistant(step)
    return Earlier(
        steps=earlier.steps + (not info.summary),
        summarised=bool(info.summary),
        calls=(*earlier.calls, *calls_of(step.parts))[-CALLS_KEPT:],
        snapshot=earlier.snapshot or snapshot_of(step),
        prompt_id=info.parent_id,
        misses=misses(earlier, step, info),
    )


def misses(earlier: Earlier, step: WithParts, info: AssistantMessage) -> int:
    """How often the model answered without the form that is asked for. `info` is what the step, its last one, came to."""
    before = earlier.misses if earlier.prompt_id == info.parent_id else 0
    return before + (info.finish is not None and not wants_more(info)) + sum(map(_is_miss, step.parts))


def calls_of(parts: tuple[Part, ...]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(part.tool, part.state.input) for part in parts if isinstance(part, ToolPart)]


def snapshot_of(step: WithParts) -> str | None:
    """The files before the step's tools ran, if that was recorded."""
    return next((part.snapshot for part in step.parts if isinstance(part, StepStartPart)), None)


def _is_miss(part: Part) -> bool:
    match part:
        case ToolPart(tool=tool, state=ToolError(metadata=metadata)):
            return tool == STRUCTURED and not (metadata or {}).get("incomplete")  # it was cut off: no answer at all
        case _:
            return False
