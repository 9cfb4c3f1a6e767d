"""What a model thinks again after its answer was cut off is recorded once, and what it thinks otherwise is not lost."""

from collections.abc import Sequence

import pytest

from holdfast.agent.providers.base import Chunk, Finished, MetadataChunk, ReasoningChunk, TextChunk
from holdfast.agent.runner.output import ModelOutput
from holdfast.agent.turn import Stamp
from holdfast.core import events as e
from holdfast.core.fold import Fold
from holdfast.core.messages import (
    APIError,
    APIErrorData,
    Part,
    ReasoningPart,
    RetryPart,
    RetryTime,
    TextPart,
    WithParts,
)
from holdfast.core.session import NO_TOKENS
from tests.core import samples as s

END = Finished(reason="stop", tokens=NO_TOKENS)


class Step:
    """One step of a model over several tries."""

    def __init__(self) -> None:
        self.fold = Fold([s.created(), s.message(s.user()), s.requested(), s.started(), s.message(s.assistant())])
        self.deltas = 0
        self._numbers = 0

    def attempt(self, *chunks: Chunk) -> "Step":
        """A try that says this, and ends if the last chunk says so."""
        output = ModelOutput(self._step())
        stamp = Stamp(s.NOW, self._new_id)
        for chunk in chunks:
            self._apply(output.feed([chunk], stamp))
        if output.finished is not None:
            said, _ = output.close(stamp)
            self._apply(said)
        return self

    def failed(self) -> "Step":
        error = APIError(data=APIErrorData(message="cut", is_retryable=True))
        mark = RetryPart(
            id=self._new_id("prt"),
            session_id=s.SESSION,
            message_id="msg_a1",
            attempt=1,
            error=error,
            time=RetryTime(created=s.NOW),
        )
        self._apply([s.part(mark)])
        return self

    def _step(self) -> WithParts:
        step = self.fold.turn_state().step
        assert step is not None
        return step

    @property
    def parts(self) -> Sequence[Part]:
        return self._step().parts

    @property
    def thoughts(self) -> list[str]:
        return [part.text for part in self.parts if isinstance(part, ReasoningPart)]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    def _new_id(self, prefix: str) -> str:
        self._numbers += 1
        return f"{prefix}_{self._numbers:03}"

    def _apply(self, events: Sequence[e.Event]) -> None:
        for event in events:
            self.fold.apply(event)
            self.deltas += isinstance(event, e.PartDelta)


def think(*words: str, block: int | None = None) -> list[ReasoningChunk]:
    return [ReasoningChunk(word, block) for word in words]


def everything_is_closed(step: Step) -> bool:
    return all(part.time and part.time.end for part in step.parts if isinstance(part, TextPart | ReasoningPart))


@pytest.mark.parametrize("marked", [True, False], ids=["retried", "after a crash"])
@pytest.mark.parametrize("cut_after", range(4))
def test_the_same_thoughts_go_on_in_the_part_that_was_open(cut_after: int, marked: bool):
    words = ("a ", "b ", "c ")
    step = Step().attempt(*think(*words[:cut_after]))
    if marked:
        step.failed()
    step.attempt(*think(*words), TextChunk("Said."), END)
    assert step.thoughts == ["a b c "]
    assert step.text == "Said."
    assert step.deltas == 4, "each word once"
    assert everything_is_closed(step)


def test_thoughts_in_other_pieces_are_the_same_thoughts():
    step = Step().attempt(*think("a b", " c")).failed()
    step.attempt(*think("a ", "b c d", " e"), TextChunk("Said."), END)
    assert step.thoughts == ["a b c d e"]


def test_other_thoughts_are_another_part_from_their_beginning():
    step = Step().attempt(*think("a ", "b ", "c ")).failed()
    step.attempt(*think("a ", "B ", "C "), TextChunk("Said."), END)
    assert step.thoughts == ["a b c ", "a B C "]
    assert everything_is_closed(step)


def test_a_model_that_thinks_less_than_before_adds_nothing():
    step = Step().attempt(*think("a ", "b ", "c ")).failed()
    step.attempt(*think("a "), TextChunk("Said."), END)
    assert step.thoughts == ["a b c "]
    assert step.text == "Said."
    assert everything_is_closed(step)


def test_a_step_that_is_cut_twice_thinks_once():
    step = Step().attempt(*think("a ", "b ")).failed().attempt(*think("a ")).failed()
    step.attempt(*think("a ", "b ", "c "), TextChunk("Said."), END)
    assert step.thoughts == ["a b c "]


def test_after_other_thoughts_the_newest_are_compared():
    step = Step().attempt(*think("a ", "b ")).failed().attempt(*think("x ", "y ")).failed()
    step.attempt(*think("x ", "y ", "z "), TextChunk("Said."), END)
    assert step.thoughts == ["a b ", "x y z "]


def test_thoughts_in_blocks_are_compared_block_by_block():
    step = Step().attempt(*think("a ", "b ", block=0), *think("c ", block=1)).failed()
    step.attempt(*think("a ", "b ", block=0), *think("c ", "d ", block=1), TextChunk("Said."), END)
    assert step.thoughts == ["a b ", "c d "]


def test_a_block_that_is_new_is_a_new_part():
    step = Step().attempt(*think("a ", block=0)).failed()
    step.attempt(*think("a ", block=0), *think("b ", block=1), TextChunk("Said."), END)
    assert step.thoughts == ["a ", "b "]
    assert everything_is_closed(step)


def test_what_a_provider_says_of_its_thoughts_stays_with_them():
    step = Step().attempt(*think("a ", "b ", block=0)).failed()
    signature = MetadataChunk(metadata={"x": "signed"}, block=0)
    step.attempt(*think("a ", "b ", block=0), signature, TextChunk("Said."), END)
    (thought,) = [part for part in step.parts if isinstance(part, ReasoningPart)]
    assert (thought.text, thought.metadata) == ("a b ", {"x": "signed"})


def test_thoughts_after_a_text_are_not_mixed_with_those_of_another_try():
    step = Step().attempt(TextChunk("Half "), *think("a ")).failed()
    step.attempt(*think("b "), TextChunk("a sentence."), END)
    assert step.thoughts == ["a ", "b "]
    assert step.text == "Half a sentence."
