"""A turn's recorded events → UI-message chunks of the AI SDK. Pure: knows no store and no HTTP.

One turn is one UI message, whatever number of steps it takes. A reader may stop after any event and go on from there with
another `ChunkMaker` that was shown the same events; so what is given depends on the events alone.

Rules
 1. Text grows in the order in which its parts were opened: while one is open, later ones wait. So a place is an event
    and the number of characters given of the open text (`inner`), and that is enough to go on from.
 2. Deltas of a closed part may be gone from the log (compaction); a gap in the versions tells. Then the record that closes the
    part gives what is missing: nothing is lost or said twice.
 3. A step begins with the first thing that is shown of it: a step whose message is taken back before that never was.
 4. A tool call is shown once its input is whole. (Shown earlier, the AI SDK would take a replay for a continuation of it.) The
    server runs it: `providerExecuted` keeps clients from running it too.
 5. What is no part of the message (waits, questions, the todo list) is *transient*: told, not kept.
 6. Nothing comes after the end of the turn. Summaries that the turn makes of the conversation are not shown.
"""

from typing import Any, Final

import msgspec

from holdfast.core import events as e
from holdfast.core.messages import (
    AssistantMessage,
    FilePart,
    MessageAbortedError,
    MessageError,
    NoData,
    Part,
    ReasoningPart,
    SnapshotPart,
    StepFinishPart,
    StepStartPart,
    TextPart,
    ToolCompleted,
    ToolError,
    ToolPart,
    ToolPending,
    ToolRunning,
    has_begun,
    is_open,
    is_terminal,
)
from holdfast.core.session import StatusRetry

Chunk = dict[str, Any]

_FINISH_REASONS: Final = frozenset({"stop", "length", "content-filter", "tool-calls", "error"})


def answer_id(prompt_id: str) -> str:
    """The id of the UI message that answers a prompt."""
    return "ans_" + prompt_id.removeprefix("msg_")


class _Text:
    """A text or reasoning part: all of its `text` that is known, and how much of it was given. `stale`: deltas are missing."""

    def __init__(self, part: TextPart | ReasoningPart) -> None:
        self.id = part.id
        self.kind = _kind(part)
        self.message_id = part.message_id
        self.text = part.text
        self.given = 0
        self.started = False
        self.closed = not is_open(part)
        self.stale = False


class ChunkMaker:
    """Show it the records of a session from the prompt's on, in order. `over`: the turn has ended."""

    def __init__(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        self.over = False
        self.requested = False
        self._prompts = {prompt_id}
        self._active = False
        self._started = False
        self._steps: dict[str, AssistantMessage] = {}
        self._step: str | None = None
        self._texts: list[_Text] = []
        self._texts_done: set[str] = set()
        self._tools: dict[str, ToolPart] = {}
        self._shown: set[str] = set()
        self._asked: dict[str, str] = {}
        self._waiting = False
        self._version: int | None = None

    @property
    def inner(self) -> int:
        """How many characters of the open text were given."""
        return self._texts[0].given if self._texts else 0

    def given(self, inner: int) -> None:
        """The reader who comes back had this much of the open text; what of it is not known here, is gone from the log."""
        if self._texts:
            text = self._texts[0]
            text.given = inner
            text.stale = text.stale or inner > len(text.text)

    def feed(self, version: int, event: e.Event | None) -> list[Chunk]:
        """None: a record that is not about the answer."""
        if self._version is not None and version > self._version + 1:
            for text in self._texts:
                text.stale = text.stale or not text.closed
        self._version = version
        return [] if self.over or event is None else self._feed(event)

    # --- events ------------------------------------------------------------------------------------------------

    def _feed(self, event: e.Event) -> list[Chunk]:
        match event:
            case e.TurnRequested(message_id=self.prompt_id):
                self.requested = True
                return []
            case e.TurnStarted(message_id=self.prompt_id):
                self._active = True
                return self._start()
            case e.TurnExtended(message_id=self.prompt_id, prompt_id=prompt_id):
                self._prompts.add(prompt_id)
                return []
            case e.TurnEnded(message_id=self.prompt_id, outcome=outcome):
                return self._end(outcome)
            case e.MessageRemoved(message_id=self.prompt_id):
                return self._drop("The prompt was removed.")
            case e.SessionDeleted():
                return self._drop("The session was deleted.")
            case _ if not self._active:
                return []
            case e.MessageUpdated(info=AssistantMessage() as info) if info.parent_id in self._prompts:
                self._steps[info.id] = info
                return self._finish_step() if is_terminal(info) and self._step == info.id else []
            case e.MessageRemoved(message_id=message_id):
                return self._forget(message_id)
            case e.PartUpdated(part=part):
                step = self._steps.get(part.message_id)
                return self._part(part) if step is not None and not step.summary else []
            case e.PartDelta(part_id=part_id, delta=delta):
                for text in self._texts:
                    if text.id == part_id and not text.stale:
                        text.text += delta
                return self._pump()
            case e.PermissionAsked():
                return self._permission(event)
            case e.PermissionReplied(request_id=id, reply=reply):
                tool = self._tools.get(self._asked.pop(id, ""))
                return [_input(tool)] if tool is not None and reply != "reject" else []
            case e.QuestionAsked(id=id) | e.QuestionReplied(request_id=id) | e.QuestionRejected(request_id=id):
                return [_transient("question", id, {"state": event.type.partition(".")[2], **_fields(event)})]
            case e.SessionStatusChanged(status=status):
                was_waiting, self._waiting = self._waiting, isinstance(status, StatusRetry)
                if self._waiting or was_waiting:
                    return [_transient("status", "status", _fields(status))]
                return []
            case e.TodoUpdated():
                return [_transient("todo", "todo", _fields(event))]
            case _:
                return []

    def _start(self) -> list[Chunk]:
        if self._started:
            return []
        self._started = True
        return [{"type": "start", "messageId": answer_id(self.prompt_id)}]

    def _end(self, outcome: e.TurnOutcome) -> list[Chunk]:
        chunks = [*self._start(), *self._end_texts(), *self._finish_step()]
        self.over = True
        steps = list(self._steps.values())
        chunks.append({"type": "message-metadata", "messageMetadata": metadata_of(outcome, steps)})
        error = steps[-1].error if steps else None
        match outcome:
            case "completed":
                finish = steps[-1].finish if steps else None
                reason = finish if finish in _FINISH_REASONS else "other"
                chunks.append({"type": "finish", "finishReason": reason})
            case "failed":
                chunks.append({"type": "error", "errorText": error_text(error)})
            case "aborted":
                chunks.append({"type": "abort", "reason": error_text(error)})
        return chunks

    def _drop(self, reason: str) -> list[Chunk]:
        chunks = [*self._end_texts(), *self._finish_step()]
        self.over = True
        return [*chunks, {"type": "abort", "reason": reason}]

    def _end_texts(self) -> list[Chunk]:
        """Whatever is open ends as it is. (A turn closes its parts before it ends.)"""
        for text in self._texts:
            text.closed = True
        return self._pump()

    def _forget(self, message_id: str) -> list[Chunk]:
        if message_id not in self._steps:
            return []
        for text in self._texts:
            if text.message_id == message_id:
                text.closed = True
        del self._steps[message_id]
        return [*self._pump(), *(self._finish_step() if self._step == message_id else [])]

    # --- parts -------------------------------------------------------------------------------------------------

    def _part(self, part: Part) -> list[Chunk]:
        match part:
            case TextPart() | ReasoningPart():
                return self._text(part)
            case ToolPart():
                return self._tool(part)
            case StepStartPart() | StepFinishPart() | SnapshotPart():
                return []
            case FilePart():
                return self._once(part, {"type": "file", "url": part.url, "mediaType": part.mime})
            case _:
                data = _fields(part, without=("type", "id", "messageID"))
                return self._once(part, {"type": f"data-{_kind(part)}", "id": part.id, "data": data})

    def _once(self, part: Part, chunk: Chunk) -> list[Chunk]:
        if part.id in self._shown:
            return []
        self._shown.add(part.id)
        return [*self._begin_step(part.message_id), chunk]

    def _text(self, part: TextPart | ReasoningPart) -> list[Chunk]:
        if part.id in self._texts_done:
            return []
        text = next((text for text in self._texts if text.id == part.id), None)
        if text is None:
            self._texts.append(_Text(part))
        elif not text.closed and (not is_open(part) or len(part.text) > len(text.text)):
            text.text, text.closed, text.stale = part.text, not is_open(part), False
        return self._pump()

    def _pump(self) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self._texts:
            text = self._texts[0]
            if not text.started:
                text.started = True
                chunks += [*self._begin_step(text.message_id), {"type": f"{text.kind}-start", "id": text.id}]
            if len(text.text) > text.given and not text.stale:
                chunks.append({"type": f"{text.kind}-delta", "id": text.id, "delta": text.text[text.given :]})
                text.given = len(text.text)
            if not text.closed:
                break
            chunks.append({"type": f"{text.kind}-end", "id": text.id})
            self._texts_done.add(self._texts.pop(0).id)
        return chunks

    def _tool(self, part: ToolPart) -> list[Chunk]:
        known = self._tools.get(part.id)
        if known is not None and not is_open(known):
            return []
        state = part.state
        if isinstance(state, ToolPending) and not state.input and not state.raw:
            return []  # the model is still writing the call
        self._tools[part.id] = part
        chunks = [*self._begin_step(part.message_id), _input(part)] if known is None else []
        match state:
            case ToolRunning(title=title, metadata=metadata) if metadata and has_begun(part):
                output: dict[str, Any] = {
                    "title": title or "",
                    "output": metadata.get("output", ""),
                    "metadata": metadata,
                }
                chunks.append(_about(part, "tool-output-available", output=output, preliminary=True))
            case ToolCompleted(title=title, output=text, metadata=metadata, attachments=attachments):
                output = {"title": title, "output": text, "metadata": metadata}
                if attachments:
                    output["attachments"] = [
                        {"url": file.url, "mediaType": file.mime, "filename": file.filename} for file in attachments
                    ]
                chunks.append(_about(part, "tool-output-available", output=output))
            case ToolError(error=error):
                chunks.append(_about(part, "tool-output-error", errorText=error))
            case _:
                pass
        return chunks

    def _permission(self, event: e.PermissionAsked) -> list[Chunk]:
        for tool in self._tools.values():
            if event.tool is not None and (tool.message_id, tool.call_id) == (
                event.tool.message_id,
                event.tool.call_id,
            ):
                self._asked[event.id] = tool.id
                descriptor = _fields(event, without=("id", "tool"))
                about = {"approvalId": event.id, "toolCallId": tool.id, "approvalDescriptor": descriptor}
                return [{"type": "tool-approval-request", **about}]
        return [_transient("permission", event.id, _fields(event))]

    # --- steps -------------------------------------------------------------------------------------------------

    def _begin_step(self, message_id: str) -> list[Chunk]:
        if self._step == message_id:
            return []
        chunks = self._finish_step()
        self._step = message_id
        return [*chunks, {"type": "start-step"}]

    def _finish_step(self) -> list[Chunk]:
        if self._step is None:
            return []
        self._step = None
        return [{"type": "finish-step"}]


def _kind(part: Part) -> str:
    return str(part.__struct_config__.tag)


def _input(part: ToolPart) -> Chunk:
    return _about(part, "tool-input-available", toolName=part.tool, input=part.state.input)


def _about(part: ToolPart, kind: str, **more: Any) -> Chunk:
    """The part's id names the call: what a provider calls it may come again in a later step."""
    return {"type": kind, "toolCallId": part.id, "dynamic": True, "providerExecuted": True, **more}


def _transient(name: str, id: str, data: dict[str, Any]) -> Chunk:
    return {"type": f"data-{name}", "id": id, "data": data, "transient": True}


def _fields(value: msgspec.Struct, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The wire form, without what the session is."""
    fields: dict[str, Any] = msgspec.to_builtins(value)
    return {name: field for name, field in fields.items() if name != "sessionID" and name not in without}


def metadata_of(outcome: e.TurnOutcome, steps: list[AssistantMessage]) -> dict[str, Any]:
    """What a finished turn was: by which model, at what cost, and how it ended."""
    found: dict[str, Any] = {
        "outcome": outcome,
        "cost": sum(step.cost for step in steps),
        "tokens": {
            "input": sum(step.tokens.input for step in steps),
            "output": sum(step.tokens.output for step in steps),
            "reasoning": sum(step.tokens.reasoning for step in steps),
        },
    }
    if steps:
        last = steps[-1]
        found |= {"agent": last.agent, "model": f"{last.provider_id}/{last.model_id}"}
        if last.error is not None:
            found["error"] = msgspec.to_builtins(last.error)
    return found


def outcome_of(last: AssistantMessage) -> e.TurnOutcome:
    if last.error is None:
        return "completed"
    return "aborted" if isinstance(last.error, MessageAbortedError) else "failed"


def error_text(error: MessageError | None) -> str:
    if error is None:
        return "The turn ended without an answer."
    if isinstance(error.data, NoData):
        return "The answer is longer than the model's limit."
    return error.data.message
