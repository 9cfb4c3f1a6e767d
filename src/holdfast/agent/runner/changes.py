"""What the tools of a step do to files: a snapshot before them, one after them, and the differences.

Only around tools that may change something, so that a step of mere talk costs nothing. The snapshot before is recorded in
the step's `step-start` part before the first tool runs; so the differences are found also when the server died between.
"""

from msgspec.structs import replace

from holdfast.agent import turn
from holdfast.agent.runner.earlier import EarlierSteps
from holdfast.agent.runner.environment import Environment
from holdfast.agent.runner.session_log import SessionLog
from holdfast.core.errors import HoldfastError, NotFound
from holdfast.core.events import PartUpdated
from holdfast.core.messages import StepStartPart, WithParts
from holdfast.core.state import TurnState


async def note_before(record: SessionLog, environment: Environment, state: TurnState) -> None:
    """Record what the files are now, unless this step has that already."""
    tree = environment.snapshots(state.session)
    start = _start(state.step) if state.step else None
    if tree is None or start is None or start.snapshot is not None:
        return
    snapshot = await tree.take()
    if snapshot is not None:
        part = replace(start, snapshot=snapshot)
        await record.append([PartUpdated(session_id=part.session_id, part=part, time=record.now_ms())])


async def changes_of(
    record: SessionLog, environment: Environment, state: TurnState, step: WithParts, steps: EarlierSteps
) -> turn.Changes | None:
    """What the step changed; None if nothing, or if there are no snapshots."""
    tree = environment.snapshots(state.session)
    start = _start(step)
    if tree is None or start is None or start.snapshot is None:
        return None
    after = await tree.take()
    if after is None or after == start.snapshot:
        return None
    try:
        files = await tree.changed(start.snapshot, after)
        first, earlier = await steps.first_snapshot(), await steps.read(state)
        return turn.Changes(
            part_id=record.new_id("prt"),
            before=start.snapshot,
            after=after,
            files=files,
            of_turn=await tree.diff(earlier.snapshot or start.snapshot, after),
            of_session=await tree.diff(first or after, after),
        )
    except NotFound as error:
        if error.kind == "Session":
            raise
        return None  # the snapshots were removed from outside
    except HoldfastError:
        return None


def _start(step: WithParts) -> StepStartPart | None:
    return next((part for part in step.parts if isinstance(part, StepStartPart)), None)
