"""A request of ours → what pydantic-ai is given; what its stream says → our chunks. Pure.

What a provider wants back with a part (a signature, an id) goes into the part's metadata under the provider's name, as
`{"id", "signature", "system", "details"}`, and from there into the next request; another provider is not shown it. Reasoning
without any is not sent back: no provider would take it for its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from pydantic_ai import messages as ai
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

from holdfast.agent.providers.attachments import as_text, data_of
from holdfast.agent.providers.base import (
    AssistantTurn,
    Attachment,
    Chunk,
    FinishReason,
    MetadataChunk,
    ModelRequest,
    ProviderMetadata,
    ReasoningBlock,
    ReasoningChunk,
    TextBlock,
    TextChunk,
    ToolCall,
    ToolCallChunk,
    ToolOutput,
    ToolSpec,
    UserTurn,
)
from holdfast.agent.providers.characters import WholeCharacters
from holdfast.agent.providers.chat_completions import new_call_id
from holdfast.core.catalogue import Model
from holdfast.core.session import CacheTokens, Tokens

# --- what is asked ----------------------------------------------------------------------------------------------


def with_called_tools(request: ModelRequest) -> ModelRequest:
    """A request to summarise offers no tools, but its conversation may have calls, and Anthropic and Bedrock refuse calls of
    tools that are not listed. So they are listed, and not to be called."""
    called = {call.name for item in request.conversation if isinstance(item, AssistantTurn) for call in item.calls}
    if request.tools or not called:
        return request
    tools = tuple(ToolSpec(name, "Not to be called any more.", {"type": "object"}) for name in sorted(called))
    return replace(request, tools=tools, tool_choice="none")


def parameters_of(request: ModelRequest) -> ModelRequestParameters:
    tools = [
        ToolDefinition(
            name=tool.name, description=tool.description, parameters_json_schema=tool.parameters, strict=False
        )
        for tool in request.tools
    ]
    instructions = [ai.InstructionPart(content=text) for text in request.system if text]
    return ModelRequestParameters(function_tools=tools, instruction_parts=instructions)


def messages_of(request: ModelRequest, model: Model, provider: str, *, takes: Set[str]) -> list[ai.ModelMessage]:
    """`provider` is what pydantic-ai calls the provider, `takes` the kinds of files for which the format has a place."""
    can = takes & _kinds(model)
    messages: list[ai.ModelMessage] = []
    asked: list[ai.ModelRequestPart] = []
    for item in request.conversation:
        match item:
            case UserTurn():
                asked.append(ai.UserPromptPart(content=_content(item.text, item.attachments, can)))
            case ToolOutput():
                asked.append(_output(item, can))
            case AssistantTurn():
                parts, system = _said(item, provider)
                if not parts:
                    continue
                if asked:
                    messages.append(ai.ModelRequest(parts=asked))
                    asked = []
                messages.append(ai.ModelResponse(parts=parts, provider_name=provider, canonical_system=system))
    messages.append(ai.ModelRequest(parts=asked))
    messages[0] = _with_instructions(messages[0], request)
    return messages


def _with_instructions(first: ai.ModelMessage, request: ModelRequest) -> ai.ModelMessage:
    """Some of pydantic-ai's models read the system prompt here, and some in the parameters."""
    if isinstance(first, ai.ModelRequest) and request.system:
        first.instructions = "\n\n".join(request.system)
    return first


def _content(text: str, attachments: Sequence[Attachment], can: Set[str]) -> str | list[ai.UserContent]:
    if not attachments:
        return text
    return [*([text] if text else []), *(_attachment(attachment, can) for attachment in attachments)]


def _kinds(model: Model) -> set[str]:
    can = model.capabilities.input
    known = {"image": can.image, "pdf": can.pdf, "audio": can.audio, "video": can.video}
    return {kind for kind, able in known.items() if able}


def _attachment(attachment: Attachment, can: Set[str]) -> str | ai.MultiModalContent:
    mime, url = attachment.mime.lower(), attachment.url
    kind = "pdf" if mime == "application/pdf" else mime.partition("/")[0]
    if kind not in can:
        return as_text(attachment)
    if (data := data_of(url)) is not None:
        return ai.BinaryContent.narrow_type(ai.BinaryContent(data=data, media_type=mime))
    if not url.startswith("https:"):
        return as_text(attachment)
    types = {"image": ai.ImageUrl, "pdf": ai.DocumentUrl, "audio": ai.AudioUrl, "video": ai.VideoUrl}
    return types[kind](url=url, media_type=mime)


def _output(item: ToolOutput, can: Set[str]) -> ai.ToolReturnPart:
    shown = [_attachment(attachment, can) for attachment in item.attachments]
    return ai.ToolReturnPart(
        tool_name=item.name,
        content=[item.output, *shown] if shown else item.output,
        tool_call_id=item.call_id,
        outcome="failed" if item.is_error else "success",
    )


def _said(turn: AssistantTurn, provider: str) -> tuple[list[ai.ModelResponsePart], str | None]:
    """The parts, and the system whose keys verify what is signed in them, if the provider says another name for it."""
    blocks: Sequence[TextBlock | ReasoningBlock | ToolCall] = turn.blocks
    if not blocks:
        blocks = (*([TextBlock(text=turn.text)] if turn.text else []), *turn.calls)
    parts: list[ai.ModelResponsePart] = []
    system: str | None = None
    for block in blocks:
        known = _known(block.metadata, provider)
        system = known.system or system
        if (part := _part(block, known)) is not None:
            parts.append(part)
    while parts and isinstance(parts[-1], ai.ThinkingPart):
        parts.pop()  # what it led to is gone, and a provider may refuse it alone
    return parts, system


class _Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept in a part's metadata under `provider`."""

    id: str | None = None
    signature: str | None = None
    system: str | None = None
    details: dict[str, Any] | None = None
    provider: str | None = None


_NOTHING: Final = _Known()


def _known(metadata: ProviderMetadata | None, provider: str) -> _Known:
    try:
        known = msgspec.convert((metadata or {}).get(provider), _Known | None)
    except msgspec.ValidationError:  # not ours: the part came from elsewhere
        return _NOTHING
    return msgspec.structs.replace(known, provider=provider) if known is not None else _NOTHING


def _part(block: TextBlock | ReasoningBlock | ToolCall, known: _Known) -> ai.ModelResponsePart | None:
    match block:
        case TextBlock(text=text):
            return ai.TextPart(text, id=known.id, provider_name=known.provider, provider_details=known.details)
        case ReasoningBlock(text=text):
            if known.provider is None:
                return None
            return ai.ThinkingPart(
                text,
                id=known.id,
                signature=known.signature,
                provider_name=known.provider,
                provider_details=known.details,
            )
        case ToolCall():
            return ai.ToolCallPart(
                block.name,
                block.input,
                tool_call_id=block.call_id,
                id=known.id,
                provider_name=known.provider,
                provider_details=known.details,
            )


# --- what is answered -------------------------------------------------------------------------------------------

REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_call": "tool-calls",
}

# Details of an answer that say nothing to the provider, when it gets them back.
_IDLE_DETAILS: Final = frozenset({"timestamp", "finish_reason"})


class StreamReader:
    """Feed it the events of one answer. `used_ids` are the call ids that the conversation already has."""

    def __init__(self, used_ids: Iterable[str]) -> None:
        self._used_ids = set(used_ids)
        self._calls: dict[int, str] = {}
        self._told: dict[int, ProviderMetadata] = {}
        self._characters = WholeCharacters()

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    def feed(self, event: object) -> list[Chunk]:
        return [self._whole(chunk) for chunk in self._chunks(event)]

    def _whole(self, chunk: Chunk) -> Chunk:
        match chunk:
            case TextChunk(text):
                return TextChunk(self._characters.of(text, None))
            case ReasoningChunk(text, block):
                return ReasoningChunk(self._characters.of(text, block), block)
            case ToolCallChunk():
                return replace(chunk, arguments=self._characters.of(chunk.arguments, chunk.call_id))
            case _:
                return chunk

    def _chunks(self, event: object) -> list[Chunk]:
        match event:
            case ai.PartStartEvent(index=index, part=part):
                return self._start(index, part)
            case ai.PartDeltaEvent(index=index, delta=delta):
                return self._grow(index, delta)
            case ai.PartEndEvent(index=index, part=part, canonical_system=system):
                return list(self._metadata(index, part, system))
            case _:
                return []

    def finish(self, parts: Sequence[ai.ModelResponsePart], system: str | None) -> list[Chunk]:
        """What came to be known of parts after they were over."""
        late = [chunk for index, part in enumerate(parts) for chunk in self._metadata(index, part, system)]
        return [chunk for chunk in late if chunk.block is not None or chunk.call_id is not None]

    def _start(self, index: int, part: ai.ModelResponsePart) -> list[Chunk]:
        match part:
            case ai.TextPart(content=text):
                return [TextChunk(text)] if text else []
            case ai.ThinkingPart(content=text):
                return [ReasoningChunk(text, index)]
            case ai.ToolCallPart(tool_name=name, args=args) if index not in self._calls:
                call_id = part.tool_call_id if part.tool_call_id not in self._used_ids else new_call_id()
                self._used_ids.add(call_id)
                self._calls[index] = call_id
                return [ToolCallChunk(call_id=call_id, name=name, arguments=_json(args))]
            case _:
                return []

    def _grow(self, index: int, delta: ai.ModelResponsePartDelta) -> list[Chunk]:
        match delta:
            case ai.TextPartDelta(content_delta=text) if text:
                return [TextChunk(text)]
            case ai.ThinkingPartDelta(content_delta=text) if text:
                return [ReasoningChunk(text, index)]
            case ai.ToolCallPartDelta(args_delta=args) if args and index in self._calls:
                return [ToolCallChunk(call_id=self._calls[index], arguments=_json(args))]
            case _:
                return []

    def _metadata(self, index: int, part: ai.ModelResponsePart, system: str | None) -> Iterator[MetadataChunk]:
        if not isinstance(part, ai.TextPart | ai.ThinkingPart | ai.ToolCallPart) or not part.provider_name:
            return
        signature = part.signature if isinstance(part, ai.ThinkingPart) else None
        details = {key: value for key, value in (part.provider_details or {}).items() if key not in _IDLE_DETAILS}
        if not (part.id or signature or details):
            return
        own_system = system if system != part.provider_name else None
        known = _Known(id=part.id, signature=signature, system=own_system, details=details or None)
        metadata = {part.provider_name: msgspec.to_builtins(known)}
        if self._told.get(index) == metadata:
            return
        self._told[index] = metadata
        yield MetadataChunk(
            metadata=metadata,
            call_id=self._calls.get(index),
            block=index if isinstance(part, ai.ThinkingPart) else None,
        )


def _json(arguments: str | Mapping[str, Any] | None) -> str:
    if isinstance(arguments, str):
        return arguments
    return msgspec.json.encode(arguments).decode() if arguments else ""


def tokens_of(usage: RequestUsage) -> Tokens:
    """Every token is counted once: input without what came from or went to the cache, output without reasoning."""
    read, write = usage.cache_read_tokens, usage.cache_write_tokens
    reasoning = min(usage.output_reasoning_tokens, usage.output_tokens)
    return Tokens(
        total=usage.input_tokens + usage.output_tokens,
        input=max(0, usage.input_tokens - read - write),
        output=usage.output_tokens - reasoning,
        reasoning=reasoning,
        cache=CacheTokens(read=read, write=write),
    )
