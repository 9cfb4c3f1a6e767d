"""Answers of providers in the shapes in which they go over the wire, written here after their documentation.

Each format tells the same stories: `calls` thinks, speaks and calls two tools at once; `refusal` is declined by the provider;
`failure` breaks off with an error in mid-answer. The others are HTTP answers: too many requests, a conversation that is too
long, a wrong key.
"""

import json
from typing import Any, NamedTuple

from holdfast.core.session import CacheTokens, Tokens


def sse(*events: Any, named: bool = False) -> bytes:
    frames = [f"event: {event['type']}\n" if named else "" for event in events]
    return b"".join(
        f"{frame}data: {json.dumps(event)}\n\n".encode() for frame, event in zip(frames, events, strict=True)
    )


class Format(NamedTuple):
    """`path` is where the request goes, and `address` the path that the configuration has. `keeps` says whether reasoning is
    signed, and sent back. Without a `refusal`, the provider has none."""

    npm: str
    address: str
    path: str
    calls: bytes
    tokens: Tokens
    refusal: bytes
    failure: bytes
    too_many: dict[str, Any]
    too_long: tuple[int, dict[str, Any]]
    wrong_key: tuple[int, dict[str, Any]]
    keeps: bool = True
    model: str = "m"


SAID = "I look at both."
THOUGHT = "Two files, then."
ARGUMENTS = ('{"filePath": "a.py"}', '{"filePath": "é.py", "limit": 3}')
REFUSED = "I cannot help with that."


def split(text: str, size: int = 7) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


# --- Anthropic messages -----------------------------------------------------------------------------------------


def _anthropic_start() -> list[dict[str, Any]]:
    usage = {"input_tokens": 90, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 400, "output_tokens": 1}
    message = {"id": "msg_01", "type": "message", "role": "assistant", "model": "m", "content": []}
    return [
        {"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": usage}},
        {"type": "ping"},
    ]


def _anthropic_block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _anthropic_end(reason: str) -> list[dict[str, Any]]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 60}}, {"type": "message_stop"}]


def _anthropic_text(index: int, text: str) -> list[dict[str, Any]]:
    deltas = [{"type": "text_delta", "text": piece} for piece in split(text)]
    return _anthropic_block(index, {"type": "text", "text": ""}, *deltas)


def _anthropic_call(index: int, id: str, arguments: str) -> list[dict[str, Any]]:
    start = {"type": "tool_use", "id": id, "name": "read", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *split(arguments))]
    return _anthropic_block(index, start, *deltas)


ANTHROPIC = Format(
    npm="@ai-sdk/anthropic",
    model="claude-sonnet-4-6",
    address="/v1",
    path="/v1/messages",
    calls=sse(
        *_anthropic_start(),
        *_anthropic_block(
            0,
            {"type": "thinking", "thinking": "", "signature": ""},
            *({"type": "thinking_delta", "thinking": piece} for piece in split(THOUGHT)),
            {"type": "signature_delta", "signature": "c2lnbmVk"},
        ),
        *_anthropic_text(1, SAID),
        *_anthropic_call(2, "toolu_1", ARGUMENTS[0]),
        *_anthropic_call(3, "toolu_2", ARGUMENTS[1]),
        *_anthropic_end("tool_use"),
        named=True,
    ),
    tokens=Tokens(total=570, input=90, output=60, reasoning=0, cache=CacheTokens(read=400, write=20)),
    refusal=sse(*_anthropic_start(), *_anthropic_end("refusal"), named=True),
    failure=sse(
        *_anthropic_start(),
        *_anthropic_text(0, SAID)[:-1],
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        named=True,
    ),
    too_many={"type": "error", "error": {"type": "rate_limit_error", "message": "Too many input tokens per minute."}},
    too_long=(
        400,
        {
            "type": "error",
            "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"},
        },
    ),
    wrong_key=(401, {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}),
)


# --- OpenAI responses -------------------------------------------------------------------------------------------


def _response(status: str, **more: Any) -> dict[str, Any]:
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": status, "output": []}
    defaults = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "error": None}
    return {**response, **defaults, "incomplete_details": None, **more}


def _numbered(*events: dict[str, Any]) -> bytes:
    return sse(*({**event, "sequence_number": number} for number, event in enumerate(events)), named=True)


def _responses_begin() -> list[dict[str, Any]]:
    return [
        {"type": "response.created", "response": _response("in_progress")},
        {"type": "response.in_progress", "response": _response("in_progress")},
    ]


def _responses_reasoning() -> list[dict[str, Any]]:
    item = {"id": "rs_1", "type": "reasoning", "summary": []}
    part = {"type": "summary_text", "text": ""}
    where = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    whole = {"type": "summary_text", "text": THOUGHT}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.reasoning_summary_part.added", **where, "part": part},
        *({"type": "response.reasoning_summary_text.delta", **where, "delta": piece} for piece in split(THOUGHT)),
        {"type": "response.reasoning_summary_text.done", **where, "text": THOUGHT},
        {"type": "response.reasoning_summary_part.done", **where, "part": whole},
        {
            "type": "response.output_item.done",
            "output_index": 0,
            "item": {**item, "summary": [whole], "encrypted_content": "c2VhbGVk"},
        },
    ]


def _responses_message(index: int, text: str, *, done: bool = True) -> list[dict[str, Any]]:
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    where = {"item_id": "msg_1", "output_index": index, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    whole = {**part, "text": text}
    said = [
        {"type": "response.output_item.added", "output_index": index, "item": item},
        {"type": "response.content_part.added", **where, "part": part},
        *({"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []} for piece in split(text)),
    ]
    ended = [
        {"type": "response.output_text.done", **where, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": whole},
        {
            "type": "response.output_item.done",
            "output_index": index,
            "item": {**item, "status": "completed", "content": [whole]},
        },
    ]
    return [*said, *(ended if done else [])]


def _responses_refusal() -> list[dict[str, Any]]:
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **where, "part": {"type": "refusal", "refusal": ""}},
        *({"type": "response.refusal.delta", **where, "delta": piece} for piece in split(REFUSED)),
        {"type": "response.refusal.done", **where, "refusal": REFUSED},
    ]


def _responses_call(index: int, number: int, arguments: str) -> list[dict[str, Any]]:
    item = {"id": f"fc_{number}", "type": "function_call", "call_id": f"call_{number}", "name": "read"}
    where = {"item_id": f"fc_{number}", "output_index": index}
    return [
        {
            "type": "response.output_item.added",
            "output_index": index,
            "item": {**item, "arguments": "", "status": "in_progress"},
        },
        *({"type": "response.function_call_arguments.delta", **where, "delta": piece} for piece in split(arguments)),
        {"type": "response.function_call_arguments.done", **where, "arguments": arguments, "name": "read"},
        {
            "type": "response.output_item.done",
            "output_index": index,
            "item": {**item, "arguments": arguments, "status": "completed"},
        },
    ]


_RESPONSES_USAGE = {
    "input_tokens": 510,
    "input_tokens_details": {"cached_tokens": 400, "cache_write_tokens": 0},
    "output_tokens": 60,
    "output_tokens_details": {"reasoning_tokens": 25},
    "total_tokens": 570,
}

RESPONSES = Format(
    npm="@ai-sdk/openai",
    model="gpt-5",
    address="/v1",
    path="/v1/responses",
    calls=_numbered(
        *_responses_begin(),
        *_responses_reasoning(),
        *_responses_message(1, SAID),
        *_responses_call(2, 1, ARGUMENTS[0]),
        *_responses_call(3, 2, ARGUMENTS[1]),
        {"type": "response.completed", "response": _response("completed", usage=_RESPONSES_USAGE)},
    ),
    tokens=Tokens(total=570, input=110, output=35, reasoning=25, cache=CacheTokens(read=400, write=0)),
    refusal=_numbered(
        *_responses_begin(),
        *_responses_refusal(),
        {"type": "response.completed", "response": _response("completed", usage=_RESPONSES_USAGE)},
    ),
    failure=_numbered(
        *_responses_begin(),
        *_responses_message(0, SAID, done=False),
        {
            "type": "response.failed",
            "response": _response("failed", error={"code": "server_error", "message": "The server had an error."}),
        },
    ),
    too_many={"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}},
    too_long=(
        400,
        {
            "error": {
                "message": "Your input exceeds the context window of this model.",
                "type": "invalid_request_error",
                "param": "input",
                "code": "context_length_exceeded",
            }
        },
    ),
    wrong_key=(
        401,
        {"error": {"message": "Incorrect API key", "type": "invalid_request_error", "code": "invalid_api_key"}},
    ),
)


# --- Gemini -----------------------------------------------------------------------------------------------------

_GEMINI_USAGE = {
    "promptTokenCount": 510,
    "cachedContentTokenCount": 400,
    "candidatesTokenCount": 35,
    "thoughtsTokenCount": 25,
    "totalTokenCount": 570,
}


def _gemini(*parts: dict[str, Any], reason: str | None = None, usage: bool = True) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return {
        "candidates": [candidate],
        "modelVersion": "m",
        "responseId": "r1",
        **({"usageMetadata": _GEMINI_USAGE} if usage else {}),
    }


def _gemini_call(number: int, arguments: str, **more: Any) -> dict[str, Any]:
    return {"functionCall": {"name": "read", "id": f"fn_{number}", "args": json.loads(arguments)}, **more}


GEMINI = Format(
    keeps=False,
    npm="@ai-sdk/google",
    model="gemini-3-pro-preview",
    address="/v1beta",
    path="/v1beta/models/gemini-3-pro-preview:streamGenerateContent?alt=sse",
    calls=sse(
        *(_gemini({"text": piece, "thought": True}) for piece in split(THOUGHT)),
        *(_gemini({"text": piece}) for piece in split(SAID)),
        _gemini(_gemini_call(1, ARGUMENTS[0], thoughtSignature="c2lnbmVk"), _gemini_call(2, ARGUMENTS[1])),
        _gemini(reason="STOP"),
    ),
    tokens=Tokens(total=570, input=110, output=35, reasoning=25, cache=CacheTokens(read=400, write=0)),
    refusal=sse(_gemini(reason="SAFETY")),
    failure=sse(
        *(_gemini({"text": piece}) for piece in split(SAID)),
        {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}},
    ),
    too_many={"error": {"code": 429, "message": "Resource has been exhausted.", "status": "RESOURCE_EXHAUSTED"}},
    too_long=(
        400,
        {
            "error": {
                "code": 400,
                "message": "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
                "status": "INVALID_ARGUMENT",
            }
        },
    ),
    wrong_key=(
        400,
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}],
            }
        },
    ),
)


# --- chat completions, as three providers speak them ------------------------------------------------------------


def _completion(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}


def _completion_call(index: int, number: int, arguments: str) -> list[dict[str, Any]]:
    head = {"index": index, "id": f"call{number:05}", "type": "function"}
    return [
        _completion({"tool_calls": [{**head, "function": {"name": "read", "arguments": ""}}]}),
        *(
            _completion({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
            for piece in split(arguments)
        ),
    ]


_COMPLETION_USAGE = {
    "prompt_tokens": 510,
    "prompt_tokens_details": {"cached_tokens": 400},
    "completion_tokens": 60,
    "completion_tokens_details": {"reasoning_tokens": 25},
    "total_tokens": 570,
}


def _completions(
    npm: str, address: str, *, reasoning: list[dict[str, Any]], usage: dict[str, Any], keeps: bool = False, **more: Any
) -> Format:
    return Format(
        npm=npm,
        address=address,
        path=f"{address}/chat/completions",
        calls=sse(
            _completion({"role": "assistant", "content": ""}),
            *(_completion(delta) for delta in reasoning),
            *(_completion({"content": piece}) for piece in split(SAID)),
            *_completion_call(0, 1, ARGUMENTS[0]),
            *_completion_call(1, 2, ARGUMENTS[1]),
            _completion({}, "tool_calls"),
            usage,
        )
        + b"data: [DONE]\n\n",
        tokens=Tokens(total=570, input=110, output=35, reasoning=25, cache=CacheTokens(read=400, write=0)),
        refusal=sse(_completion({}, "content_filter"), usage) + b"data: [DONE]\n\n",
        failure=sse(
            *(_completion({"content": piece}) for piece in split(SAID)),
            {"error": {"message": "Overloaded", "type": "server_error", "code": 503}},
        ),
        too_many={"error": {"message": "Rate limit reached", "type": "tokens", "code": "rate_limit_exceeded"}},
        too_long=(
            400,
            {
                "error": {
                    "message": "This model's maximum context length is 8192 tokens. Please reduce the length.",
                    "type": "invalid_request_error",
                    "code": "context_length_exceeded",
                }
            },
        ),
        wrong_key=(401, {"error": {"message": "Invalid API Key", "type": "invalid_request_error"}}),
        keeps=keeps,
        **more,
    )


_USAGE = {**_completion({}), "choices": [], "usage": _COMPLETION_USAGE}

COMPLETIONS = _completions(
    "@ai-sdk/openai-compatible",
    "/v1",
    reasoning=[{"reasoning_content": piece} for piece in split(THOUGHT)],
    usage=_USAGE,
)
GROQ = _completions(
    "@ai-sdk/groq",
    "/openai/v1",
    reasoning=[{"reasoning": piece} for piece in split(THOUGHT)],
    usage={**_completion({}), "choices": [], "x_groq": {"id": "req_1", "usage": _COMPLETION_USAGE}},
)


def _openrouter_thought(text: str, **more: str) -> dict[str, Any]:
    detail = {"type": "reasoning.text", "text": text, "format": "anthropic-claude-v1", "index": 0, **more}
    return {"content": "", "reasoning": text, "reasoning_details": [detail]}


OPENROUTER = _completions(
    "@openrouter/ai-sdk-provider",
    "/api/v1",
    reasoning=[*map(_openrouter_thought, split(THOUGHT)), _openrouter_thought("", signature="c2lnbmVk")],
    usage=_USAGE,
    keeps=True,
    model="anthropic/claude-sonnet-4.6",
)


def _mistral_thought(text: str) -> dict[str, Any]:
    return _completion({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]})


def _mistral_call(index: int, number: int, arguments: str) -> dict[str, Any]:
    """Mistral sends a call in one piece."""
    function = {"name": "read", "arguments": arguments}
    return _completion({"tool_calls": [{"id": f"call{number:05}", "index": index, "function": function}]})


MISTRAL = COMPLETIONS._replace(
    npm="@ai-sdk/mistral",
    calls=sse(
        _completion({"role": "assistant", "content": ""}),
        *(_mistral_thought(piece) for piece in split(THOUGHT)),
        *(_completion({"content": piece}) for piece in split(SAID)),
        _mistral_call(0, 1, ARGUMENTS[0]),
        _mistral_call(1, 2, ARGUMENTS[1]),
        _completion({}, "tool_calls", usage=_COMPLETION_USAGE),
    )
    + b"data: [DONE]\n\n",
    refusal=b"",
    failure=sse(*(_completion({"content": piece}) for piece in split(SAID)), _completion({}, "error")),
)

FORMATS = {
    "anthropic": ANTHROPIC,
    "responses": RESPONSES,
    "gemini": GEMINI,
    "completions": COMPLETIONS,
    "groq": GROQ,
    "openrouter": OPENROUTER,
    "mistral": MISTRAL,
}
