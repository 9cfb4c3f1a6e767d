"""What an answer's chunks become: parts, and the metadata that a provider wants back with them."""

from itertools import count

from holdfast.agent import turn
from holdfast.agent.providers.base import Chunk, Finished, MetadataChunk, ReasoningChunk, TextChunk, ToolCallChunk
from holdfast.agent.runner.output import ModelOutput
from holdfast.core import events as e
from holdfast.core.messages import ReasoningPart, TextPart, ToolPart, WithParts, is_open
from holdfast.core.session import NO_TOKENS
from tests.core import samples as s


def parts_of(*chunks: Chunk) -> list[ReasoningPart | TextPart | ToolPart]:
    """The parts that are recorded, after a whole answer."""
    numbers = count(1)
    stamp = turn.Stamp(s.NOW, lambda prefix: f"{prefix}_{next(numbers):03}")
    output = ModelOutput(WithParts(info=s.assistant(), parts=()))
    events = [event for chunk in chunks for event in output.feed([chunk], stamp)]
    events += output.feed([Finished(reason="stop", tokens=NO_TOKENS)], stamp)
    events += output.close(stamp)[0]
    latest = {event.part.id: event.part for event in events if isinstance(event, e.PartUpdated)}
    said: list[ReasoningPart | TextPart | ToolPart] = []
    for _, part in sorted(latest.items()):
        assert isinstance(part, ReasoningPart | TextPart | ToolPart)
        assert isinstance(part, ToolPart) or not is_open(part)
        said.append(part)
    return said


def test_blocks_of_reasoning_are_parts_of_their_own():
    """Each has its own signature, so they must not run together."""
    first, second, text = parts_of(
        ReasoningChunk("One", 0),
        ReasoningChunk(" more.", 0),
        MetadataChunk(block=0, metadata={"p": {"signature": "a"}}),
        ReasoningChunk("Two.", 1),
        TextChunk("So."),
    )

    assert isinstance(first, ReasoningPart)
    assert isinstance(second, ReasoningPart)
    assert isinstance(text, TextPart)
    assert (first.text, first.metadata) == ("One more.", {"p": {"signature": "a"}})
    assert (second.text, second.metadata) == ("Two.", None)
    assert text.text == "So."


def test_a_block_without_words_is_kept_for_its_signature():
    """Reasoning that the provider does not show is sealed in its metadata."""
    [part, text] = parts_of(
        ReasoningChunk("", 0), MetadataChunk(block=0, metadata={"p": {"signature": "sealed"}}), TextChunk("So.")
    )

    assert isinstance(part, ReasoningPart)
    assert (part.text, part.metadata) == ("", {"p": {"signature": "sealed"}})
    assert isinstance(text, TextPart)


def test_a_signature_that_comes_late_gets_to_its_block():
    first, second, text = parts_of(
        ReasoningChunk("One.", 0),
        ReasoningChunk("Two.", 1),
        TextChunk("So."),
        MetadataChunk(block=0, metadata={"p": {"signature": "late"}}),
    )

    assert first.metadata == {"p": {"signature": "late"}}
    assert second.metadata is None
    assert text.metadata is None


def test_metadata_of_text_and_calls():
    text, call = parts_of(
        TextChunk("So."),
        MetadataChunk(metadata={"p": {"id": "t1"}}),
        ToolCallChunk(call_id="c1", name="read", arguments="{}"),
        MetadataChunk(call_id="c1", metadata={"p": {"id": "f1"}}),
        MetadataChunk(call_id="c2", metadata={"p": {"id": "f2"}}),
    )

    assert text.metadata == {"p": {"id": "t1"}}
    assert call.metadata == {"p": {"id": "f1"}}


def test_without_blocks_reasoning_runs_on():
    [part] = parts_of(ReasoningChunk("One, "), ReasoningChunk("two."))

    assert isinstance(part, ReasoningPart)
    assert part.text == "One, two."
