"""Hypothesis strategies: events as clients, models and races bring them, valid or not.

Ids come from small pools, so that most events concern something that is there, and some come late, twice or wrong: deltas
for closed parts, updates of messages that are terminal, parts of another message, ends of turns that never began. What
is to become of them only `core.reducer` knows; compare with a `Fold` (see `Model`).
"""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec.structs import replace

from holdfast.core import events as e
from holdfast.core.errors import HoldfastError, NotFound
from holdfast.core.fold import Fold
from holdfast.core.messages import Message, Part, StepStartPart
from holdfast.core.permissions import PermissionReply
from holdfast.core.session import BUSY, IDLE, Session, StatusRetry
from holdfast.testing.stories import NOW_MS, Story, ToolStatus

USERS = ("msg_u1", "msg_u2")
ASSISTANTS = ("msg_a1", "msg_a2", "msg_a3")
PARTS = tuple(f"prt_{number}" for number in range(6))

REPLIES: tuple[PermissionReply, ...] = ("once", "always", "reject")
TOOL_STATUSES: tuple[ToolStatus, ...] = ("pending", "running", "running", "completed", "error")

texts = st.text(max_size=6)
statuses = st.sampled_from([BUSY, IDLE, StatusRetry(attempt=1, message="Overloaded", next=NOW_MS)])


def messages(story: Story) -> SearchStrategy[Message]:
    users = st.sampled_from(USERS).map(story.user)
    assistants = st.builds(
        story.assistant,
        st.sampled_from(ASSISTANTS),
        st.sampled_from(USERS),
        completed=st.sampled_from([False, False, False, True]),
    )
    return st.one_of(users, assistants)


@st.composite
def parts(draw: st.DrawFn, story: Story) -> Part:
    number = draw(st.integers(0, len(PARTS) - 1))
    id = PARTS[number]
    home = (*ASSISTANTS, *USERS)[number % 4]
    message = draw(st.sampled_from([home, home, home, "msg_a1"]))
    closed = draw(st.booleans())
    match draw(st.sampled_from(["text", "text", "reasoning", "prompt", "tool", "tool", "step"])):
        case "text":
            return story.text(id, draw(texts), message=message, closed=closed)
        case "reasoning":
            return story.reasoning(id, draw(texts), message=message, closed=closed)
        case "prompt":
            return story.prompt(id, draw(texts), message)
        case "tool":
            return story.tool(id, draw(st.sampled_from(TOOL_STATUSES)), draw(texts), message=message)
        case _:
            return StepStartPart(id=id, session_id=story.id, message_id=message)


def beginning(story: Story) -> list[e.Event]:
    """A session in which most of what `events` brings finds what it is about."""
    return [
        story.created(),
        *(story.message(story.user(id)) for id in USERS),
        *(story.requested(id) for id in USERS),
        story.started(USERS[0]),
        *(story.message(story.assistant(id)) for id in ASSISTANTS),
        story.part(story.text(PARTS[0])),
        story.part(story.reasoning(PARTS[1], message="msg_a2")),
        story.part(story.tool(PARTS[2], "pending", message="msg_a3")),
        story.permission_asked(),
        story.question_asked(),
    ]


def events(story: Story, *, deletions: bool = False) -> SearchStrategy[e.Event]:
    """One event of a session that has begun. `deletions`: it may be its last."""
    users = st.sampled_from(USERS)
    part_ids = st.sampled_from(PARTS)
    permissions, questions = st.sampled_from(["per_1", "per_2"]), st.sampled_from(["que_1", "que_2"])
    deltas = st.builds(story.delta, part_ids, texts, st.sampled_from(ASSISTANTS))
    changed_parts = st.builds(story.part, parts(story))
    choices: list[SearchStrategy[e.Event]] = [
        *[deltas] * 4,
        *[changed_parts] * 4,
        *[st.builds(story.message, messages(story))] * 2,
        st.builds(story.part_removed, part_ids),
        st.builds(story.removed, st.sampled_from(USERS + ASSISTANTS)),
        st.builds(story.requested, users),
        st.builds(story.started, users),
        st.builds(story.extended, users, users),
        st.builds(story.suspended, users),
        st.builds(story.abort_requested, users),
        st.builds(story.ended, users, st.sampled_from(["completed", "failed", "aborted"])),
        st.builds(story.permission_asked, permissions),
        st.builds(story.permission_replied, permissions, st.sampled_from(REPLIES)),
        st.builds(story.question_asked, questions),
        st.one_of(st.builds(story.question_replied, questions), st.builds(story.question_rejected, questions)),
        st.builds(story.status, statuses),
        st.lists(texts, max_size=2).map(lambda contents: story.todo(*contents)),
        st.builds(_updated, st.just(story.info), st.integers(0, 9), texts),
        st.sampled_from([story.created(), story.idled(), story.diffed(), story.command(), story.edited()]),
    ]
    if deletions:
        choices.append(st.builds(story.deleted))
    return st.one_of(choices)


def _updated(info: Session, later: int, title: str) -> e.SessionUpdated:
    time = replace(info.time, updated=info.time.updated + later)
    return e.SessionUpdated(session_id=info.id, info=replace(info, title=title, time=time))


def appends(story: Story, *, deletions: bool = False) -> SearchStrategy[list[e.Event]]:
    """The events of one append."""
    return st.lists(events(story, deletions=deletions), min_size=1, max_size=4)


class Model:
    """What a store has to make of the appends of one session: `recorded` is its log, `fold` its state."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.recorded: list[e.Event] = []
        self.fold = Fold()
        self.deleted = False

    def append(self, events: Sequence[e.Event]) -> int:
        """How many get recorded. Raises what the store has to raise; nothing is recorded then."""
        fold, recorded, deleted = Fold(self.recorded), list(self.recorded), self.deleted
        for event in events:
            if deleted or not (fold.exists or isinstance(event, e.SessionCreated)):
                raise NotFound("Session", self.story.id)
            if fold.apply(event):
                recorded.append(event)
                deleted = isinstance(event, e.SessionDeleted)
        count = len(recorded) - len(self.recorded)
        self.fold, self.recorded, self.deleted = fold, recorded, deleted
        return count

    def outcome(self, events: Sequence[e.Event]) -> int | type[HoldfastError]:
        """The same, with what is raised as a value."""
        try:
            return self.append(events)
        except HoldfastError as error:
            return type(error)
