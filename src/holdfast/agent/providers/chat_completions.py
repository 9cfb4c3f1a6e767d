"""The chat-completions format of OpenAI, as its many imitators speak it. Pure: request → JSON, stream data → chunks.

Servers differ in what they leave out and what they send twice, so the decoder believes little: a call may have no id or
one that was used before, no index or always the same, its arguments in pieces or whole; the finish reason may not
mention the calls; usage may come never, once, with every chunk, or with nothing in it; a character may be cut in two.
"""

import base64
import json
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from holdfast.agent.providers.attachments import as_text, data_of
from holdfast.agent.providers.base import (
    AssistantTurn,
    Attachment,
    Chunk,
    Finished,
    FinishReason,
    ModelRequest,
    ProviderError,
    ReasoningChunk,
    TextChunk,
    ToolCall,
    ToolCallChunk,
    ToolOutput,
    UserTurn,
)
from holdfast.agent.providers.characters import WholeCharacters
from holdfast.agent.providers.failures import Redact, error_in_stream
from holdfast.core.catalogue import Interleaved, Model
from holdfast.core.session import NO_TOKENS, CacheTokens, Tokens

# --- what is asked ----------------------------------------------------------------------------------------------

_SNAKE_CASE: Final = {"reasoningEffort": "reasoning_effort", "textVerbosity": "verbosity", "maxTokens": "max_tokens"}
"""Options that OpenCode's users write in camelCase, and their names on the wire. All others go out as they are."""

_AUDIO_FORMATS: Final = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def request_body(request: ModelRequest, model: Model, *, include_usage: bool = True) -> dict[str, Any]:
    """The JSON body of `POST /chat/completions`. Options of the request win over those of the model; neither can change
    what the conversation is."""
    options = {_SNAKE_CASE.get(name, name): value for name, value in (model.options | request.options).items()}
    body: dict[str, Any] = {**options, "model": request.model_id, "messages": _messages(request, model), "stream": True}
    if include_usage:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for tool in request.tools
        ]
        if request.tool_choice != "auto":
            body["tool_choice"] = request.tool_choice
    limits = {"max_tokens": request.output_tokens_max, "temperature": request.temperature, "top_p": request.top_p}
    if "max_completion_tokens" in options:
        del limits["max_tokens"]
    return body | {name: value for name, value in limits.items() if value is not None}


def _messages(request: ModelRequest, model: Model) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if request.system:
        # One message: the chat templates of many local models refuse a second one.
        messages.append({"role": "system", "content": "\n\n".join(request.system)})
    shown: list[tuple[ToolOutput, Attachment]] = []
    for item in request.conversation:
        if shown and not isinstance(item, ToolOutput):
            messages.append(_attached_by_tools(shown, model))
            shown = []
        match item:
            case UserTurn(text=text, attachments=attachments):
                messages.append({"role": "user", "content": _content(text, attachments, model)})
            case AssistantTurn():
                if item.text or item.calls:
                    messages.append(_assistant(item, model))
            case ToolOutput(call_id=call_id, output=output, attachments=attachments):
                messages.append({"role": "tool", "tool_call_id": call_id, "content": output})
                shown += [(item, attachment) for attachment in attachments]
    if shown:
        messages.append(_attached_by_tools(shown, model))
    return messages


def _assistant(turn: AssistantTurn, model: Model) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
    interleaved = model.capabilities.interleaved
    if turn.reasoning and interleaved:
        message[interleaved.field if isinstance(interleaved, Interleaved) else "reasoning_content"] = turn.reasoning
    if turn.calls:
        message["tool_calls"] = [_call(call) for call in turn.calls]
    return message


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.input).decode()
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _attached_by_tools(shown: Iterable[tuple[ToolOutput, Attachment]], model: Model) -> dict[str, Any]:
    """A tool message holds text only, so what tools attached follows all of their outputs as the user's."""
    parts: list[dict[str, Any]] = []
    for output, attachment in shown:
        parts.append(_text(f"Attached by the call {output.call_id} of {output.name}:"))
        parts.append(_attachment(attachment, model))
    return {"role": "user", "content": parts}


def _content(text: str, attachments: Sequence[Attachment], model: Model) -> str | list[dict[str, Any]]:
    if not attachments:
        return text
    return [*([_text(text)] if text else []), *(_attachment(attachment, model) for attachment in attachments)]


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _attachment(attachment: Attachment, model: Model) -> dict[str, Any]:
    """The part in which the LLM can take it; a remark in its place if it cannot."""
    can = model.capabilities.input
    mime, url = attachment.mime.lower(), attachment.url
    if mime.startswith("image/") and can.image:
        return {"type": "image_url", "image_url": {"url": url}}
    if mime == "application/pdf" and can.pdf:
        return {"type": "file", "file": {"filename": attachment.filename or "document.pdf", "file_data": url}}
    data = data_of(url)
    if mime in _AUDIO_FORMATS and can.audio and data is not None:
        audio = {"data": base64.b64encode(data).decode(), "format": _AUDIO_FORMATS[mime]}
        return {"type": "input_audio", "input_audio": audio}
    return _text(as_text(attachment))


# --- what is answered -------------------------------------------------------------------------------------------


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _CallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_text: str | None = None
    tool_calls: list[_CallDelta] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


_Count = int | float | None


class _PromptDetails(msgspec.Struct):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: _Count = None


class _Usage(msgspec.Struct):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: _Count = None


class _Piece(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = msgspec.Raw(b"null")
    error: Any = None
    object: str | None = None


_piece = msgspec.json.Decoder(_Piece, strict=False)  # an index may be written as a text
_usage = msgspec.json.Decoder(_Usage | None, strict=False)

_REASONS: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_calls": "tool-calls",
    "tool_use": "tool-calls",
    "function_call": "tool-calls",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content-filter",
}


def _with_whole_characters(value: object, place: tuple[object, ...], characters: WholeCharacters) -> object:
    match value:
        case str():
            return characters.of(value, place)
        case dict():
            items = cast(dict[str, object], value).items()
            return {name: _with_whole_characters(inner, (*place, name), characters) for name, inner in items}
        case list():
            items = enumerate(cast(list[object], value))
            return [_with_whole_characters(inner, (*place, _place(inner, at)), characters) for at, inner in items]
        case _:
            return value


def _place(item: object, at: int) -> object:
    """In a list of calls, their index is what tells them apart."""
    return str(cast(dict[str, object], item).get("index", at)) if isinstance(item, dict) else at


class _Call:
    """One tool call as the server names it (`their_id`) and as we do (`call_id`). Nothing goes out before the name is known."""

    def __init__(self, call_id: str, their_id: str | None) -> None:
        self.call_id = call_id
        self.their_id = their_id
        self.name = ""
        self.pieces: list[str] = []

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def may_be_over(self) -> bool:
        if not self.pieces:
            return True
        if not self.pieces[-1].rstrip().endswith("}"):
            return False
        try:
            msgspec.json.decode(self.arguments, type=dict[str, msgspec.Raw])
        except (msgspec.MsgspecError, RecursionError):
            return False
        return True


def new_call_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class StreamDecoder:
    """Feed it the data of each event. Once `done`, nothing more is to come.

    `used_ids` are the call ids that the conversation already has: a call that repeats one gets another, `new_id()`.
    """

    def __init__(
        self,
        model: Model,
        *,
        used_ids: Iterable[str] = (),
        new_id: Callable[[], str] = new_call_id,
        redact: Redact = str,
    ) -> None:
        self._model = model
        self._new_id = new_id
        self._redact = redact
        self._used_ids = set(used_ids)
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._reason: str | None = None
        self._usage: _Usage | None = None
        self._characters = WholeCharacters()
        self.done = False

    @property
    def answered(self) -> bool:
        """The LLM said all it had to say; what may follow is bookkeeping."""
        return self.done or self._reason is not None

    def feed(self, data: str) -> list[Chunk]:
        """The chunks in the data of one event. Raises ProviderError for an error object and for what is no JSON."""
        if data.startswith("[DONE]"):
            self.done = True
            return []
        if not data or data.isspace():
            return []
        try:
            piece = self._piece(data)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise self._unreadable(data, error) from error
        if piece.error or piece.object == "error":
            raise self._error(data)
        self._count(piece.usage)
        chunks: list[Chunk] = []
        for choice in (piece.choices or ())[:1]:
            if choice.finish_reason == "error":
                raise self._error(data)
            delta = choice.delta or choice.message
            if delta is not None:
                self._delta(delta, chunks)
            self._reason = choice.finish_reason or self._reason
        return chunks

    def finish(self) -> list[Chunk]:
        """The last chunks, when the stream is at its end. Raises ProviderError if it ended before the answer did."""
        if not self.answered:
            raise ProviderError("The model's stream was cut off.", provider_id=self._model.provider_id, retryable=True)
        chunks: list[Chunk] = []
        for call in self._calls:
            if not call.name:
                chunks.append(ToolCallChunk(call_id=call.call_id, name="unknown", arguments=call.arguments or "{}"))
            elif not call.pieces:
                chunks.append(ToolCallChunk(call_id=call.call_id, arguments="{}"))
        reason: FinishReason = _REASONS.get((self._reason or "").lower(), "unknown")
        if self._calls and reason in ("stop", "unknown"):
            reason = "tool-calls"
        elif not self._calls and reason == "tool-calls":
            reason = "unknown"  # there is nothing to wait for
        tokens = self._tokens()
        return [*chunks, Finished(reason=reason, tokens=tokens, cost=self._model.cost.of(tokens))]

    def _piece(self, data: str) -> _Piece:
        try:
            return _piece.decode(data)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            pass
        try:  # halves of characters are JSON to this one
            value = _with_whole_characters(json.loads(data), (), self._characters)
            whole = msgspec.json.encode(value)
        except ValueError as error:
            raise msgspec.DecodeError(str(error)) from error
        return _piece.decode(whole)

    def _count(self, usage: msgspec.Raw) -> None:
        """The last that says something counts. What makes no sense is no reason to lose the answer."""
        try:
            counts = _usage.decode(usage)
        except (msgspec.MsgspecError, RecursionError):
            return
        if counts is not None and (
            self._usage is None or _count(counts.prompt_tokens) or _count(counts.completion_tokens)
        ):
            self._usage = counts

    def _delta(self, delta: _Delta, chunks: list[Chunk]) -> None:
        # Some servers send the same reasoning under two names.
        reasoning = delta.reasoning_content or delta.reasoning or delta.reasoning_text
        if reasoning:
            chunks.append(ReasoningChunk(reasoning))
        if isinstance(delta.content, str):
            if delta.content:
                chunks.append(TextChunk(delta.content))
        elif delta.content:
            _content_parts(delta.content, chunks)
        if delta.refusal:
            chunks.append(TextChunk(delta.refusal))
        for call in delta.tool_calls or ():
            self._call(call, chunks)
        if delta.function_call is not None:
            self._call(_CallDelta(index=0, function=delta.function_call), chunks)

    def _call(self, delta: _CallDelta, chunks: list[Chunk]) -> None:
        function = delta.function or _Function()
        name = function.name or ""
        arguments = function.arguments or ""
        if isinstance(arguments, dict):
            arguments = msgspec.json.encode(arguments).decode()
        call = self._find(delta, name, arguments)
        if arguments:
            call.pieces.append(arguments)
        if name and not call.name:
            call.name = name
            chunks.append(ToolCallChunk(call_id=call.call_id, name=name, arguments=call.arguments))
        elif arguments and call.name:
            chunks.append(ToolCallChunk(call_id=call.call_id, arguments=arguments))

    def _find(self, delta: _CallDelta, name: str, arguments: str) -> _Call:
        """The call that this delta goes on with, or a new one.

        An id other than the one at this index begins another call, whatever the index says. So does a name when the
        call before may be over, and either the name is another or arguments come after arguments that are whole:
        without an id, or with the same for all, that is all that tells two calls from one whose name is repeated."""
        if delta.index is not None:
            call = self._by_index.get(delta.index)
        elif delta.id:
            call = next((call for call in reversed(self._calls) if call.their_id == delta.id), None)
        else:
            call = self._calls[-1] if self._calls else None
        if call is not None:
            has_other_id = bool(delta.id and call.their_id and delta.id != call.their_id)
            has_next_name = bool(name and call.name) and (name != call.name or bool(arguments and call.pieces))
            if has_other_id or (has_next_name and call.may_be_over()):
                call = None
        if call is None:
            call = self._begin(delta.id)
        elif delta.id and not call.their_id:
            call.their_id = delta.id
        if delta.index is not None:
            self._by_index[delta.index] = call
        return call

    def _begin(self, their_id: str | None) -> _Call:
        call_id = their_id if their_id and their_id not in self._used_ids else self._new_id()
        self._used_ids.add(call_id)
        call = _Call(call_id, their_id or None)
        self._calls.append(call)
        return call

    def _tokens(self) -> Tokens:
        """Every token is counted once: input without what came from the cache, output without reasoning."""
        usage = self._usage
        if usage is None:
            return NO_TOKENS
        prompt_details = usage.prompt_tokens_details or _PromptDetails()
        completion_details = usage.completion_tokens_details or _CompletionDetails()
        read = _count(prompt_details.cached_tokens) or _count(usage.prompt_cache_hit_tokens)
        write = _count(prompt_details.cache_write_tokens)
        prompt, output = _count(usage.prompt_tokens), _count(usage.completion_tokens)
        reasoning = min(_count(completion_details.reasoning_tokens), output)
        return Tokens(
            total=_count(usage.total_tokens) or prompt + output,
            input=max(0, prompt - read - write),
            output=output - reasoning,
            reasoning=reasoning,
            cache=CacheTokens(read=read, write=write),
        )

    def _error(self, data: str) -> ProviderError:
        return error_in_stream(data, provider_id=self._model.provider_id, redact=self._redact)

    def _unreadable(self, data: str, error: Exception) -> ProviderError:
        return ProviderError(
            f"The model's stream holds something that is no chat completion: {error}",
            provider_id=self._model.provider_id,
            retryable=True,
            body=self._redact(data)[:1_000],
        )


def _count(number: _Count) -> int:
    return max(0, int(number)) if number is not None and number < 1 << 53 else 0


def _content_parts(parts: Iterable[Mapping[str, Any]], chunks: list[Chunk]) -> None:
    """Mistral sends a list: `text` parts, and `thinking` parts that hold a list of text parts themselves."""
    for part in parts:
        thinking: object = part.get("thinking")
        if isinstance(thinking, str):
            chunks.append(ReasoningChunk(thinking))
        elif isinstance(thinking, list):
            for thought in cast(list[object], thinking):
                if isinstance(thought, dict) and isinstance(text := cast(dict[str, Any], thought).get("text"), str):
                    chunks.append(ReasoningChunk(text))
        if isinstance(text := part.get("text"), str) and text:
            chunks.append(TextChunk(text))
