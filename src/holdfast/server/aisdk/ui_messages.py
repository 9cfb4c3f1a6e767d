"""Stored messages → UI messages of the AI SDK, as its client makes them of chunks.

A turn of the past is shown to `ChunkMaker` once more, and its chunks are folded as the AI SDK folds them: so a page that
loads the history shows what a page that was there all the time shows.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from holdfast.core import events as e
from holdfast.core.messages import (
    AssistantMessage,
    CompactionPart,
    FilePart,
    Part,
    TextPart,
    WithParts,
)
from holdfast.core.permissions import PermissionRequest
from holdfast.server.aisdk.chunks import Chunk, ChunkMaker, answer_id, outcome_of
from holdfast.service.past_turns import past_turns

UiMessage = dict[str, Any]


def to_ui_messages(
    history: Sequence[WithParts], asked: Iterable[PermissionRequest] = (), *, current: str | None = None
) -> list[UiMessage]:
    """`current`: the prompt whose turn is not over; `asked`: what waits for the user."""
    found: list[UiMessage] = []
    for prompt, steps in past_turns(history).values():
        if not _is_hidden(prompt):
            found.append({"id": prompt.info.id, "role": "user", "parts": _prompt_parts(prompt.parts)})
        if any(not assistant_of(step).summary for step in steps):
            id = prompt.info.id
            found.append(fold(id, _chunks(id, steps, asked, is_over=id != current)))
    return found


def fold(prompt_id: str, chunks: Iterable[Chunk]) -> UiMessage:
    """The UI message that chunks make."""
    parts: list[dict[str, Any]] = []
    message: UiMessage = {"id": answer_id(prompt_id), "role": "assistant", "parts": parts}
    texts: dict[str, dict[str, Any]] = {}
    tools: dict[str, dict[str, Any]] = {}
    for chunk in chunks:
        kind: str = chunk["type"]
        match kind.split("-"):
            case ["start", "step"]:
                parts.append({"type": "step-start"})
            case ["text" | "reasoning" as name, "start"]:
                id = {"id": chunk["id"]} if name == "reasoning" else {}
                parts.append({"type": name, **id, "text": "", "state": "streaming"})
                texts[chunk["id"]] = parts[-1]
            case ["text" | "reasoning", "delta"]:
                texts[chunk["id"]]["text"] += chunk["delta"]
            case ["text" | "reasoning", "end"]:
                texts[chunk["id"]]["state"] = "done"
            case ["tool", *_]:
                _fold_tool(chunk, parts, tools)
            case ["file"]:
                parts.append({"type": "file", "mediaType": chunk["mediaType"], "url": chunk["url"]})
            case ["data", *_] if not chunk.get("transient"):
                parts.append({"type": kind, "id": chunk["id"], "data": chunk["data"]})
            case ["message", "metadata"]:
                message["metadata"] = chunk["messageMetadata"]
            case _:
                pass
    return message


def _fold_tool(chunk: Chunk, parts: list[dict[str, Any]], tools: dict[str, dict[str, Any]]) -> None:
    id: str = chunk["toolCallId"]
    if id not in tools:
        tools[id] = {"type": "dynamic-tool", "toolName": chunk["toolName"], "toolCallId": id, "providerExecuted": True}
        parts.append(tools[id])
    tool = tools[id]
    match chunk["type"]:
        case "tool-input-available":
            tool |= {"state": "input-available", "input": chunk["input"]}
        case "tool-approval-request":
            approval = {"id": chunk["approvalId"], "descriptor": chunk["approvalDescriptor"]}
            tool |= {"state": "approval-requested", "approval": approval}
        case "tool-output-available":
            tool |= {"state": "output-available", "output": chunk["output"]}
            tool.pop("preliminary", None)
            if chunk.get("preliminary"):
                tool["preliminary"] = True
        case _:
            tool.pop("output", None)
            tool.pop("preliminary", None)
            tool |= {"state": "output-error", "errorText": chunk["errorText"]}


def _chunks(
    prompt_id: str, steps: Sequence[WithParts], asked: Iterable[PermissionRequest], *, is_over: bool
) -> list[Chunk]:
    session_id = steps[0].info.session_id
    maker = ChunkMaker(prompt_id)
    events: list[e.Event] = [e.TurnStarted(session_id=session_id, message_id=prompt_id)]
    for step in steps:
        info = assistant_of(step)
        events.append(e.TurnExtended(session_id=session_id, message_id=prompt_id, prompt_id=info.parent_id))
        events.append(e.MessageUpdated(session_id=session_id, info=info))
        events += [e.PartUpdated(session_id=session_id, part=part, time=0) for part in step.parts]
    events += [_asking(request) for request in asked]
    if is_over:
        outcome = outcome_of(assistant_of(steps[-1]))
        events.append(e.TurnEnded(session_id=session_id, message_id=prompt_id, outcome=outcome))
    return [chunk for version, event in enumerate(events) for chunk in maker.feed(version, event)]


def _asking(request: PermissionRequest) -> e.PermissionAsked:
    return e.PermissionAsked(
        session_id=request.session_id,
        id=request.id,
        permission=request.permission,
        patterns=request.patterns,
        metadata=request.metadata,
        always=request.always,
        tool=request.tool,
    )


def assistant_of(message: WithParts) -> AssistantMessage:
    assert isinstance(message.info, AssistantMessage)
    return message.info


def _is_hidden(prompt: WithParts) -> bool:
    """Nothing that a user said: a request to summarise, or a command that was run."""
    return bool(prompt.parts) and all(
        isinstance(part, CompactionPart) or (isinstance(part, TextPart) and part.synthetic is True)
        for part in prompt.parts
    )


def _prompt_parts(parts: Sequence[Part]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for part in parts:
        match part:
            case TextPart(text=text) if not part.synthetic and not part.ignored:
                found.append({"type": "text", "text": text})
            case FilePart(mime=mime, url=url, filename=filename):
                named = {"filename": filename} if filename is not None else {}
                found.append({"type": "file", "mediaType": mime, "url": url, **named})
            case _:
                pass
    return found
