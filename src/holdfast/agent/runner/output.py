"""Chunks of one try of the model → events. No I/O.

At most one text or reasoning part is open at a time; a chunk of another kind closes it. A try that continues a cut step
begins with that step's open text part, so the text goes on where it stopped. If it was cut before any text, the model thinks
again from the beginning: as long as it thinks the same, nothing is recorded a second time, and then it goes on in the part
that was open. What it thinks otherwise becomes a part of its own.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from holdfast.agent.providers.base import (
    Chunk,
    Finished,
    MetadataChunk,
    ProviderMetadata,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
)
from holdfast.agent.tools.invalid import INVALID
from holdfast.agent.turn import Stamp, model_done, settle
from holdfast.core.events import Event, PartDelta, PartUpdated
from holdfast.core.messages import (
    AssistantMessage,
    Part,
    PartTime,
    ReasoningPart,
    RetryPart,
    StepStartPart,
    TextPart,
    ToolPart,
    ToolPending,
    WithParts,
    is_open,
)

_RAW_SHOWN_MAX = 2000
NO_STEPS_LEFT = "The agent has used all of its steps, so this call did not run."
_EARLIER = -1
"""The block of a thought that an earlier try left open: no provider's."""


class _Call:
    def __init__(self, part: ToolPart) -> None:
        self.part = part
        self.arguments: list[str] = []


class ModelOutput:
    """`finished` is the model's last chunk once it came."""

    def __init__(self, step: WithParts) -> None:
        assert isinstance(step.info, AssistantMessage)
        self._info = step.info
        self._calls: dict[str, _Call] = {}
        self._open: TextPart | ReasoningPart | None = None
        self._block: int | None = None
        self._reasoning: dict[int, ReasoningPart] = {}
        self._grown: list[str] = []
        self._again = _Again(_thoughts(step.parts))
        self.finished: Finished | None = None
        for part in step.parts:
            if isinstance(part, TextPart | ReasoningPart) and is_open(part):
                self._open = part
                self._block = _EARLIER if isinstance(part, ReasoningPart) else None

    def feed(self, chunks: Sequence[Chunk], stamp: Stamp) -> list[Event]:
        events: list[Event] = []
        for chunk in chunks:
            match chunk:
                case TextChunk(text):
                    if text:
                        self._again.end()
                        self._grow(TextPart, text, None, events, stamp)
                case ReasoningChunk(text, block):
                    self._think(text, block, events, stamp)
                case MetadataChunk():
                    self._describe(chunk, events, stamp)
                case ToolCallChunk():
                    self._again.end()
                    self._call(chunk, events, stamp)
                case Finished():
                    self.finished = chunk
        return events

    def close(self, stamp: Stamp, *, allowed: Collection[str] | None = None) -> tuple[list[Event], AssistantMessage]:
        """What the model's last chunk means: everything it said is closed, its calls are complete. Whether tools still have
        to run is in the message's `finish`. `allowed`: the only tools that still may (in the last step of an agent)."""
        assert self.finished is not None
        events: list[Event] = []
        runs = False
        self._close_open(events, stamp)
        for call in self._calls.values():
            part = _complete(call)
            if allowed is not None and part.tool not in allowed:
                part = settle(part, stamp.now, tool_error=NO_STEPS_LEFT)
            else:
                runs = True
            events.append(PartUpdated(session_id=part.session_id, part=part, time=stamp.now))
        reason = "tool-calls" if runs else "stop" if self._calls else self.finished.reason
        return events, model_done(self._info, reason, self.finished.tokens, self.finished.cost)

    def _grow(
        self,
        kind: type[TextPart] | type[ReasoningPart],
        text: str,
        block: int | None,
        events: list[Event],
        stamp: Stamp,
    ) -> None:
        if not isinstance(self._open, kind) or self._block != block:
            self._close_open(events, stamp)
            self._block = block
            self._open = kind(
                id=stamp.new_id("prt"),
                session_id=self._info.session_id,
                message_id=self._info.id,
                text="",
                time=PartTime(start=stamp.now),
            )
            events.append(PartUpdated(session_id=self._info.session_id, part=self._open, time=stamp.now))
        if not text:
            return
        self._grown.append(text)
        events.append(
            PartDelta(
                session_id=self._info.session_id,
                message_id=self._info.id,
                part_id=self._open.id,
                field="text",
                delta=text,
            )
        )

    def _think(self, text: str, block: int | None, events: list[Event], stamp: Stamp) -> None:
        if self._again.is_over:
            if text or block is not None:
                self._grow(ReasoningPart, text, block, events, stamp)
            return
        heard = self._again.hear(text, block)
        if heard.known is not None and block is not None:
            self._reasoning[block] = heard.known  # for what the provider has to say of it
        if heard.is_other:
            self._close_open(events, stamp)
        elif self._again.is_over:
            self._block = block  # from now on, the open part goes on
        if heard.text:
            self._grow(ReasoningPart, heard.text, block, events, stamp)

    def _call(self, chunk: ToolCallChunk, events: list[Event], stamp: Stamp) -> None:
        call = self._calls.get(chunk.call_id)
        if call is None:
            self._close_open(events, stamp)
            part = ToolPart(
                id=stamp.new_id("prt"),
                session_id=self._info.session_id,
                message_id=self._info.id,
                call_id=chunk.call_id,
                tool=chunk.name or "",
                state=ToolPending(input={}, raw=""),
            )
            call = self._calls[chunk.call_id] = _Call(part)
            events.append(PartUpdated(session_id=part.session_id, part=part, time=stamp.now))
        call.arguments.append(chunk.arguments)

    def _describe(self, chunk: MetadataChunk, events: list[Event], stamp: Stamp) -> None:
        """What is open gets it when it is closed; a block that is closed already, at once."""
        if chunk.call_id is not None:
            if (call := self._calls.get(chunk.call_id)) is not None:
                call.part = replace(call.part, metadata=_with(call.part.metadata, chunk.metadata))
        elif chunk.block is None:
            if isinstance(self._open, TextPart):
                self._open = replace(self._open, metadata=_with(self._open.metadata, chunk.metadata))
        elif isinstance(self._open, ReasoningPart) and self._block == chunk.block:
            self._open = replace(self._open, metadata=_with(self._open.metadata, chunk.metadata))
        elif (closed := self._reasoning.get(chunk.block)) is not None:
            part = replace(closed, metadata=_with(closed.metadata, chunk.metadata))
            self._reasoning[chunk.block] = part
            events.append(PartUpdated(session_id=part.session_id, part=part, time=stamp.now))

    def _close_open(self, events: list[Event], stamp: Stamp) -> None:
        if self._open is not None:
            part = settle(replace(self._open, text=self._open.text + "".join(self._grown)), stamp.now)
            events.append(PartUpdated(session_id=part.session_id, part=part, time=stamp.now))
            if isinstance(part, ReasoningPart) and self._block is not None:
                self._reasoning[self._block] = part
            self._open = None
            self._grown.clear()


class _Heard(NamedTuple):
    """`text` is what is new; `is_other`: it does not go on from the part that is open. `known`: the part that was said again."""

    text: str
    is_other: bool = False
    known: ReasoningPart | None = None


class _Again:
    """What was thought before the step was cut, compared with what is thought now."""

    def __init__(self, thoughts: Sequence[ReasoningPart]) -> None:
        self._thoughts = list(thoughts)
        self._at = 0
        self._block: int | None = None

    @property
    def is_over(self) -> bool:
        return not self._thoughts

    def end(self) -> None:
        """Something else than a thought came: the model thought less than before."""
        self._thoughts.clear()

    def hear(self, text: str, block: int | None) -> _Heard:
        if block != self._block and self._at:
            if self._at < len(self._thoughts[0].text):  # it ended sooner than before
                self._thoughts.clear()
                return _Heard(text, is_other=True)
            self._thoughts.pop(0)
            self._at = 0
            if not self._thoughts:
                return _Heard(text, is_other=True)
        self._block = block
        thought = self._thoughts[0]
        left = thought.text[self._at :]
        if left.startswith(text):
            self._at += len(text)
            if self._at == len(thought.text) and len(self._thoughts) == 1 and is_open(thought):
                self._thoughts.clear()  # the next word goes on from it
                return _Heard("", known=thought)
            return _Heard("", known=thought)
        if text.startswith(left) and len(self._thoughts) == 1 and is_open(thought):
            self._thoughts.clear()
            return _Heard(text[len(left) :], known=thought)
        said = thought.text[: self._at]
        self._thoughts.clear()
        return _Heard(said + text, is_other=True)


def _thoughts(parts: Sequence[Part]) -> list[ReasoningPart]:
    """Those of the last try that had any, if the step was cut before it said anything else."""
    thoughts: list[ReasoningPart] = []
    for part in reversed(parts):
        match part:
            case ReasoningPart():
                thoughts.insert(0, part)
            case RetryPart():
                if thoughts:
                    break
            case StepStartPart():
                break
            case _:
                return []
    return thoughts


def _with(known: dict[str, Any] | None, more: ProviderMetadata) -> dict[str, Any]:
    return {**(known or {}), **more}


def _complete(call: _Call) -> ToolPart:
    """The call with its whole input; if that is not a JSON object, the call that tells the model so."""
    raw = "".join(call.arguments)
    try:
        input = msgspec.json.decode(raw or "{}", type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        problem = (
            f"The arguments of {call.part.tool} are not a JSON object ({error}). They were:\n{raw[:_RAW_SHOWN_MAX]}"
        )
        state = ToolPending(input={"tool": call.part.tool, "error": problem}, raw=raw)
        return replace(call.part, tool=INVALID, state=state)
    return replace(call.part, state=ToolPending(input=input, raw=raw))
