"""A turn's events as UI-message chunks: what a client makes of them is what the history has, from wherever it goes on."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import events as e
from holdfast.core.messages import (
    AgentPart,
    APIError,
    APIErrorData,
    CompactionPart,
    ErrorMessage,
    FilePart,
    MessageAbortedError,
    MessageModel,
    MessageOutputLengthError,
    NoData,
    Part,
    PatchPart,
    RetryPart,
    RetryTime,
    SnapshotPart,
    StepFinishPart,
    StepStartPart,
    SubtaskPart,
    ToolPart,
    ToolPending,
)
from holdfast.core.permissions import ToolReference
from holdfast.core.session import NO_TOKENS, StatusRetry
from holdfast.server.aisdk.chunks import Chunk, ChunkMaker
from holdfast.server.aisdk.ui_messages import fold
from holdfast.testing.stories import Story


def chunks_of(events: list[e.Event], prompt_id: str = "msg_u1") -> list[Chunk]:
    maker = ChunkMaker(prompt_id)
    return [chunk for version, event in enumerate(events, start=1) for chunk in maker.feed(version, event)]


def kinds(chunks: list[Chunk]) -> list[str]:
    return [chunk["type"] for chunk in chunks]


def test_a_turn_is_one_message_with_a_step_for_each_request_to_the_model() -> None:
    story = Story()
    done = msgspec.structs.replace(story.assistant(completed=True), finish="tool-calls")
    chunks = chunks_of(
        [
            *story.prompted(),
            story.started(),
            story.message(story.assistant()),
            story.part(story.reasoning("prt_0")),
            story.delta("prt_0", "Hm"),
            story.part(story.reasoning("prt_0", "Hm", closed=True)),
            story.part(story.tool("prt_1", "pending")),
            story.part(story.tool("prt_1", "running", "half")),
            story.part(story.tool("prt_1", "completed", "whole")),
            story.message(done),
            story.message(story.assistant("msg_a2")),
            story.part(story.text("prt_2")),
            story.delta("prt_2", "Do", message="msg_a2"),
            story.delta("prt_2", "ne", message="msg_a2"),
            story.part(story.text("prt_2", "Done", message="msg_a2", closed=True)),
            story.message(story.assistant("msg_a2", completed=True)),
            story.ended(),
        ]
    )

    assert kinds(chunks) == [
        "start",
        *("start-step", "reasoning-start", "reasoning-delta", "reasoning-end"),
        *("tool-input-available", "tool-output-available", "tool-output-available", "finish-step"),
        *("start-step", "text-start", "text-delta", "text-delta", "text-end", "finish-step"),
        *("message-metadata", "finish"),
    ]
    assert fold("msg_u1", chunks) == {
        "id": "ans_u1",
        "role": "assistant",
        "parts": [
            {"type": "step-start"},
            {"type": "reasoning", "id": "prt_0", "text": "Hm", "state": "done"},
            {
                "type": "dynamic-tool",
                "toolName": "bash",
                "toolCallId": "prt_1",
                "providerExecuted": True,
                "state": "output-available",
                "input": {"command": "ls"},
                "output": {"title": "ls", "output": "whole", "metadata": {}},
            },
            {"type": "step-start"},
            {"type": "text", "text": "Done", "state": "done"},
        ],
        "metadata": {
            "outcome": "completed",
            "cost": 0,
            "tokens": {"input": 0, "output": 0, "reasoning": 0},
            "agent": "build",
            "model": "fake/fake-1",
        },
    }


def test_a_failure_is_told_as_an_error_and_kept_in_the_metadata() -> None:
    story = Story()
    error = APIError(data=APIErrorData(message="Too many requests", is_retryable=True))
    failed = msgspec.structs.replace(story.assistant(completed=True), error=error)
    chunks = chunks_of(
        [*story.streaming(), story.delta("prt_1", "Ha"), story.message(failed), story.ended(outcome="failed")]
    )

    assert chunks[-1] == {"type": "error", "errorText": "Too many requests"}
    assert fold("msg_u1", chunks)["metadata"]["error"]["name"] == "APIError"
    assert fold("msg_u1", chunks)["parts"][1] == {"type": "text", "text": "Ha", "state": "done"}


def test_an_aborted_turn_ends_with_abort() -> None:
    story = Story()
    error = MessageAbortedError(data=ErrorMessage(message="Aborted"))
    aborted = msgspec.structs.replace(story.assistant(completed=True), error=error)
    chunks = chunks_of([*story.streaming(), story.message(aborted), story.ended(outcome="aborted")])

    assert chunks[-1] == {"type": "abort", "reason": "Aborted"}


@pytest.mark.parametrize("end", [Story().deleted(), Story().removed("msg_u1")], ids=["session", "prompt"])
def test_an_answer_whose_session_or_prompt_goes_is_over(end: e.Event) -> None:
    chunks = chunks_of([*Story().streaming(), end, Story().delta("prt_1", "late")])

    assert kinds(chunks)[-3:] == ["text-end", "finish-step", "abort"]


def test_an_error_without_words_has_some() -> None:
    story = Story()
    cut = msgspec.structs.replace(story.assistant(completed=True), error=MessageOutputLengthError(data=NoData()))
    chunks = chunks_of([*story.streaming(), story.message(cut), story.ended(outcome="failed")])

    assert chunks[-1] == {"type": "error", "errorText": "The answer is longer than the model's limit."}


def test_what_belongs_to_other_turns_is_left_out() -> None:
    story = Story()
    other = [
        story.message(story.user("msg_u2")),
        story.requested("msg_u2"),
        story.started("msg_u2"),
        story.message(story.assistant("msg_b1", "msg_u2")),
        story.part(story.text("prt_9", "Other", message="msg_b1", closed=True)),
        story.todo("Other"),
        story.ended("msg_u2"),
    ]
    alone = chunks_of([*story.streaming(), story.ended()])

    assert chunks_of([*story.prompted(), *other, *story.streaming()[4:], story.ended(), *other]) == alone


def test_a_permission_is_asked_for_at_its_call_which_goes_on_when_it_is_given() -> None:
    story = Story()
    asked = msgspec.structs.replace(
        story.permission_asked(), tool=ToolReference(message_id="msg_a1", call_id="call_prt_1")
    )
    events = [*story.streaming()[:-1], story.part(story.tool("prt_1", "pending")), asked]
    chunks = chunks_of(events)
    assert chunks[-1] == {
        "type": "tool-approval-request",
        "approvalId": "per_1",
        "toolCallId": "prt_1",
        "approvalDescriptor": {"permission": "bash", "patterns": ("ls *",), "metadata": {}, "always": ("ls *",)},
    }
    assert fold("msg_u1", chunks)["parts"][1]["state"] == "approval-requested"

    given = chunks_of([*events, story.permission_replied()])
    assert fold("msg_u1", given)["parts"][1]["state"] == "input-available"
    refused = chunks_of(
        [*events, story.permission_replied(reply="reject"), story.part(story.tool("prt_1", "error", "Rejected"))]
    )
    assert fold("msg_u1", refused)["parts"][1]["errorText"] == "Rejected"


def test_waits_questions_and_the_todo_list_are_told_but_are_no_part_of_the_message() -> None:
    story = Story()
    retry = story.status(StatusRetry(attempt=1, message="Busy", next=5))
    told = chunks_of([*story.streaming(), retry, story.status(), story.question_asked(), story.todo("Look")])[-4:]

    assert [(chunk["type"], chunk["transient"]) for chunk in told] == [
        ("data-status", True),
        ("data-status", True),
        ("data-question", True),
        ("data-todo", True),
    ]
    assert told[0]["data"] == {"type": "retry", "attempt": 1, "message": "Busy", "next": 5}
    assert told[1]["data"] == {"type": "busy"}
    assert told[2]["data"]["state"] == "asked"


OF_EVERY_KIND: list[tuple[Part, str | None]] = [
    (Story().text("prt_x", "x", closed=True), "text"),
    (Story().reasoning("prt_x", "x", closed=True), "reasoning"),
    (Story().tool("prt_x", "completed", "x"), "dynamic-tool"),
    (Story().tool("prt_x", "error", "x"), "dynamic-tool"),
    (FilePart(id="prt_x", session_id="ses_story", message_id="msg_a1", mime="image/png", url="data:,x"), "file"),
    (StepStartPart(id="prt_x", session_id="ses_story", message_id="msg_a1"), None),
    (
        StepFinishPart(
            id="prt_x", session_id="ses_story", message_id="msg_a1", reason="stop", cost=0, tokens=NO_TOKENS
        ),
        None,
    ),
    (SnapshotPart(id="prt_x", session_id="ses_story", message_id="msg_a1", snapshot="s"), None),
    (PatchPart(id="prt_x", session_id="ses_story", message_id="msg_a1", hash="h", files=("a",)), "data-patch"),
    (AgentPart(id="prt_x", session_id="ses_story", message_id="msg_a1", name="plan"), "data-agent"),
    (
        SubtaskPart(
            id="prt_x", session_id="ses_story", message_id="msg_a1", prompt="p", description="d", agent="general"
        ),
        "data-subtask",
    ),
    (
        RetryPart(
            id="prt_x",
            session_id="ses_story",
            message_id="msg_a1",
            attempt=1,
            error=APIError(data=APIErrorData(message="m", is_retryable=True)),
            time=RetryTime(created=1),
        ),
        "data-retry",
    ),
    (CompactionPart(id="prt_x", session_id="ses_story", message_id="msg_a1", auto=True), "data-compaction"),
]


@pytest.mark.parametrize(("part", "shown"), OF_EVERY_KIND, ids=lambda value: value if isinstance(value, str) else "")
def test_every_kind_of_part_has_its_chunks(part: Part, shown: str | None) -> None:
    story = Story()
    chunks = chunks_of([*story.streaming()[:-1], story.part(part), story.part(part), story.ended()])

    assert [found["type"] for found in fold("msg_u1", chunks)["parts"]] == (["step-start", shown] if shown else [])


def test_the_list_above_has_every_kind() -> None:
    assert {type(part) for part, _ in OF_EVERY_KIND} == set(Part.__args__)


def test_a_step_that_is_taken_back_before_it_said_anything_never_was() -> None:
    """A conversation that turns out to be too long: the step goes, and a summary is made instead."""
    story = Story()
    own = msgspec.structs.replace(story.user("msg_x"), model=MessageModel(provider_id="fake", model_id="fake-1"))
    summary = msgspec.structs.replace(story.assistant("msg_s", "msg_x"), summary=True)
    start = StepStartPart(id="prt_s", session_id=story.id, message_id="msg_a1")
    chunks = chunks_of(
        [
            *story.streaming()[:-1],
            story.part(start),
            story.removed("msg_a1"),
            story.message(own),
            story.extended("msg_x"),
            story.message(summary),
            story.part(story.text("prt_2", "A summary", message="msg_s", closed=True)),
            story.message(story.assistant("msg_a2", "msg_x")),
            story.part(story.text("prt_3", "Hello", message="msg_a2", closed=True)),
            story.ended(),
        ]
    )

    assert [part.get("text") for part in fold("msg_u1", chunks)["parts"]] == [None, "Hello"]


def test_a_call_that_the_model_is_still_writing_is_not_shown() -> None:
    story = Story()
    state = ToolPending(input={}, raw="")
    writing = ToolPart(id="prt_2", session_id=story.id, message_id="msg_a1", call_id="c", tool="bash", state=state)

    assert chunks_of([*story.streaming()[:-1], story.part(writing)]) == chunks_of(story.streaming()[:-1])


# --- places -----------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.sampled_from(["text", "reasoning", "close", "tool", "running", "completed", "step", "second"])
    | st.text(min_size=1, max_size=4).map(lambda text: "+" + text),
    max_size=25,
)


def told(steps: list[str]) -> list[tuple[int, e.Event]]:
    """A turn that was made up, as a store would have it: version and event."""
    story = Story()
    events: list[e.Event] = [*story.prompted(), story.started(), story.message(story.assistant("msg_0"))]
    message = "msg_0"
    texts: dict[str, tuple[str, str]] = {}
    tool: str | None = None
    for number, step in enumerate(steps, start=1):
        id = f"prt_{number}"
        newest = next(reversed(texts), None)
        if step in ("text", "reasoning"):
            make = story.text if step == "text" else story.reasoning
            texts[id] = step, ""
            events.append(story.part(make(id, message=message)))
        elif step in ("close", "second") and newest is not None:
            closing = next(iter(texts)) if step == "close" else newest
            kind, text = texts.pop(closing)
            make = story.text if kind == "text" else story.reasoning
            events.append(story.part(make(closing, text, message=message, closed=True)))
        elif step == "tool" and tool is None:
            tool = id
            events.append(story.part(story.tool(id, "pending", message=message)))
        elif step in ("running", "completed") and tool is not None:
            events.append(story.part(story.tool(tool, step, "out", message=message)))
            tool = tool if step == "running" else None
        elif step == "step" and not texts and tool is None:
            events.append(story.message(story.assistant(message, completed=True)))
            message = f"msg_{number}"
            events.append(story.message(story.assistant(message)))
        elif step.startswith("+") and newest is not None:
            kind, text = texts[newest]
            texts[newest] = kind, text + step[1:]
            events.append(story.delta(newest, step[1:], message=message))
    for id, (kind, text) in texts.items():
        make = story.text if kind == "text" else story.reasoning
        events.append(story.part(make(id, text, message=message, closed=True)))
    return list(enumerate([*events, story.message(story.assistant(message, completed=True)), story.ended()], start=1))


@given(STEPS, st.data())
def test_a_reader_who_goes_on_at_any_place_ends_with_the_same_message_though_deltas_are_gone(
    steps: list[str], data: st.DataObject
) -> None:
    """Invariant: chunks up to any event, and then those that another maker gives after that place when any of the deltas
    of parts that are closed by now are gone, fold to the same message as all chunks."""
    records = told(steps)
    whole = fold("msg_u1", chunks_of([event for _, event in records]))
    place = data.draw(st.integers(0, len(records)))
    maker = ChunkMaker("msg_u1")
    before = [chunk for version, event in records[:place] for chunk in maker.feed(version, event)]

    gone = [version for version, event in records if isinstance(event, e.PartDelta) and data.draw(st.booleans())]
    again = ChunkMaker("msg_u1")
    for version, event in records[:place]:
        if version not in gone:
            again.feed(version, event)
    again.given(maker.inner)
    after = [c for version, event in records[place:] if version not in gone for c in again.feed(version, event)]

    assert fold("msg_u1", [*before, *after]) == whole
