"""Chunks of one try of the model → events. No I/O.

At most one text or reasoning part is open at a time; a chunk of another kind closes it. A try that continues a cut step
begins with that step's open text part, so the text goes on where it stopped.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from holdfast.agent.providers.base import Chunk, Finished, ReasoningChunk, TextChunk, ToolCallChunk
from holdfast.agent.tools.invalid import INVALID
from holdfast.agent.turn import Stamp, model_done, settle
from holdfast.core.events import Event, PartDelta, PartUpdated
from holdfast.core.messages import (
    AssistantMessage,
    PartTime,
    ReasoningPart,
    TextPart,
    ToolPart,
    ToolPending,
    WithParts,
    is_open,
)

_RAW_SHOWN_MAX = 2000


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
        self._grown: list[str] = []
        self.finished: Finished | None = None
        for part in step.parts:
            if isinstance(part, TextPart) and is_open(part):
                self._open = part

    def feed(self, chunks: Sequence[Chunk], stamp: Stamp) -> list[Event]:
        events: list[Event] = []
        for chunk in chunks:
            match chunk:
                case TextChunk(text):
                    self._grow(TextPart, text, events, stamp)
                case ReasoningChunk(text):
                    self._grow(ReasoningPart, text, events, stamp)
                case ToolCallChunk():
                    self._call(chunk, events, stamp)
                case Finished():
                    self.finished = chunk
        return events

    def close(self, stamp: Stamp) -> tuple[list[Event], AssistantMessage]:
        """What the model's last chunk means: everything it said is closed, its calls are complete. Whether tools still have
        to run is in the message's `finish`."""
        assert self.finished is not None
        events: list[Event] = []
        self._close_open(events, stamp)
        for call in self._calls.values():
            part = _complete(call)
            events.append(PartUpdated(session_id=part.session_id, part=part, time=stamp.now))
        reason = "tool-calls" if self._calls else self.finished.reason
        return events, model_done(self._info, reason, self.finished.tokens, self.finished.cost)

    def _grow(self, kind: type[TextPart] | type[ReasoningPart], text: str, events: list[Event], stamp: Stamp) -> None:
        if not text:
            return
        if not isinstance(self._open, kind):
            self._close_open(events, stamp)
            self._open = kind(
                id=stamp.new_id("prt"),
                session_id=self._info.session_id,
                message_id=self._info.id,
                text="",
                time=PartTime(start=stamp.now),
            )
            events.append(PartUpdated(session_id=self._info.session_id, part=self._open, time=stamp.now))
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

    def _close_open(self, events: list[Event], stamp: Stamp) -> None:
        if self._open is not None:
            part = settle(replace(self._open, text=self._open.text + "".join(self._grown)), stamp.now)
            events.append(PartUpdated(session_id=part.session_id, part=part, time=stamp.now))
            self._open = None
            self._grown.clear()


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
