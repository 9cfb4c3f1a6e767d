"""Which answers belong to which prompt, also where the conversation was summarised in the middle."""

from msgspec.structs import replace

from holdfast.core.messages import AssistantMessage, CompactionPart, TextPart, WithParts
from holdfast.service.past_turns import past_turns
from holdfast.testing.stories import Story

STORY = Story()


def prompt(id: str) -> WithParts:
    return WithParts(info=STORY.user(id), parts=(STORY.prompt(f"prt_{id}", "Do it", id),))


def summarise(id: str) -> WithParts:
    part = CompactionPart(id=f"prt_{id}", session_id=STORY.id, message_id=id, auto=True)
    return WithParts(info=STORY.user(id), parts=(part,))


def go_on(id: str) -> WithParts:
    part = TextPart(id=f"prt_{id}", session_id=STORY.id, message_id=id, text="Go on", synthetic=True)
    return WithParts(info=STORY.user(id), parts=(part,))


def step(id: str, parent: str, finish: str = "stop", *, summary: bool | None = None) -> WithParts:
    info: AssistantMessage = replace(STORY.assistant(id, parent, completed=True), finish=finish, summary=summary)
    return WithParts(info=info, parts=())


def told(*history: WithParts) -> dict[str, list[str]]:
    return {id: [step.info.id for step in turn.steps] for id, turn in past_turns(history).items()}


def test_a_step_answers_the_prompt_that_it_names() -> None:
    history = [prompt("u1"), step("a1", "u1", "tool-calls"), prompt("u2"), step("a2", "u1"), step("a3", "u2")]

    assert told(*history) == {"u1": ["a1", "a2"], "u2": ["a3"]}


def test_a_summary_in_the_middle_of_a_turn_belongs_to_it_though_another_prompt_waits() -> None:
    history = [
        *(prompt("u1"), step("a1", "u1", "tool-calls"), prompt("u2"), summarise("x1"), step("s1", "x1", summary=True)),
        *(go_on("x2"), step("a2", "x2"), step("a3", "u2")),
    ]

    assert told(*history) == {"u1": ["a1", "s1", "a2"], "u2": ["a3"]}


def test_a_summary_before_the_first_step_belongs_to_the_prompt_that_is_next() -> None:
    history = [
        *(prompt("u1"), step("a1", "u1"), prompt("u2"), prompt("u3"), summarise("x1"), step("s1", "x1", summary=True)),
        *(go_on("x2"), step("a2", "x2"), step("a3", "u3")),
    ]

    assert told(*history) == {"u1": ["a1"], "u2": ["s1", "a2"], "u3": ["a3"]}


def test_a_history_may_begin_in_the_middle_of_a_turn() -> None:
    history = [
        step("a1", "u0", "tool-calls"),
        prompt("u1"),
        summarise("x1"),
        step("s1", "x1", summary=True),
        go_on("x2"),
    ]

    assert told(*history, step("a2", "x2"), step("a3", "u1")) == {"u1": ["a3"]}
