"""Every wire format through its real adapter, against a server on a real socket: the same stories, the same chunks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import msgspec
import pytest

from holdfast.agent.providers.base import (
    AssistantTurn,
    Attachment,
    Chunk,
    Finished,
    MetadataChunk,
    ModelRequest,
    Provider,
    ProviderError,
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
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.registry import ProviderRegistry
from holdfast.core.config import Config, CostConfig, ModalitiesConfig, ModelConfig, ProviderConfig
from holdfast.testing.loop_time import let_pass
from tests.agent.providers.recorded import (
    ANTHROPIC,
    ARGUMENTS,
    COMPLETIONS,
    FORMATS,
    GEMINI,
    RESPONSES,
    SAID,
    THOUGHT,
    Format,
)
from tests.agent.providers.wire import Behaviour, Wire, sends, server, streams

KEY = "sk-very-secret-key"
READ = ToolSpec("read", "Reads a file.", {"type": "object", "properties": {"filePath": {"type": "string"}}})
PROMPT = ModelRequest(model_id="m", system=("Be brief.",), conversation=(UserTurn(text="hi"),), tools=(READ,))

every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
takes_halves = pytest.mark.parametrize(  # Mistral's SDK takes half a character for no JSON
    "format", [f for n, f in FORMATS.items() if n != "mistral"], ids=[n for n in FORMATS if n != "mistral"]
)
through_pydantic_ai = pytest.mark.parametrize(
    "format", [f for f in FORMATS.values() if f is not COMPLETIONS], ids=[n for n in FORMATS if n != "completions"]
)


@asynccontextmanager
async def adapter(format: Format, url: str, **options: Any) -> AsyncIterator[Provider]:
    connections = Connections()
    model = ModelConfig(
        id=format.model,
        reasoning=True,
        cost=CostConfig(input=1, output=2, cache_read=0.1, cache_write=1.25),
        modalities=ModalitiesConfig(input=("text", "image", "pdf")),
        headers={"x-model": "one"},
    )
    config = ProviderConfig(
        npm=format.npm,
        options={"baseURL": url.removesuffix("/v1") + format.address, "apiKey": KEY, **options},
        models={"m": model},
    )
    registry = ProviderRegistry(Config(provider={"p": config}), connections=connections, environ={})
    try:
        yield registry.resolve("p", "m")[0]
    finally:
        await connections.close()


async def ask(
    format: Format,
    behave: Behaviour,
    request: ModelRequest = PROMPT,
    *,
    hears: Callable[[str], object] = lambda text: None,
    **options: Any,
) -> tuple[list[Chunk], ProviderError | None]:
    """What the LLM said, and how it failed, if it did. `hears` is told the text so far."""
    said: list[Chunk] = []
    async with server(behave) as url, adapter(format, url, **options) as provider:
        try:
            async with aclosing(provider.stream(request)) as batches:
                async for batch in batches:
                    said += batch
                    hears(texts(said))
        except ProviderError as error:
            return said, error
    return said, None


async def sent(format: Format, request: ModelRequest, **options: Any) -> tuple[bytes, dict[str, Any]]:
    """The request as it went over the wire: its head and its JSON."""
    requests: list[bytes] = []

    async def behave(wire: Wire) -> None:
        requests.append(wire.request)
        await streams(format.calls)(wire)

    said, error = await ask(format, behave, request, **options)
    assert error is None
    assert said
    head, _, body = requests[0].partition(b"\r\n\r\n")
    return head, json.loads(body)


def texts(said: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in said if isinstance(chunk, TextChunk))


def thoughts(said: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in said if isinstance(chunk, ReasoningChunk))


def calls(said: Sequence[Chunk]) -> list[tuple[str, str, dict[str, Any]]]:
    names: dict[str, str] = {}
    arguments: dict[str, str] = {}
    for chunk in said:
        if isinstance(chunk, ToolCallChunk):
            names.setdefault(chunk.call_id, chunk.name or "")
            arguments[chunk.call_id] = arguments.get(chunk.call_id, "") + chunk.arguments
    return [(id, name, json.loads(arguments[id])) for id, name in names.items()]


def answers(status: int, body: dict[str, Any], *headers: str) -> Behaviour:
    data = json.dumps(body).encode()
    lines = (f"HTTP/1.1 {status} -", "Content-Type: application/json", *headers, f"Content-Length: {len(data)}")
    return sends("\r\n".join(lines).encode() + b"\r\n\r\n" + data)


# --- what is said -----------------------------------------------------------------------------------------------


@every_format
async def test_reasoning_text_and_parallel_calls_come_through_with_their_usage(format: Format):
    said, error = await ask(format, streams(format.calls))

    assert error is None
    assert (thoughts(said), texts(said)) == (THOUGHT, SAID)
    assert [(name, input) for _, name, input in calls(said)] == [("read", json.loads(text)) for text in ARGUMENTS]
    assert len({id for id, _, _ in calls(said)}) == 2
    finished = said[-1]
    assert isinstance(finished, Finished)
    assert (finished.reason, finished.tokens) == ("tool-calls", format.tokens)
    tokens = format.tokens
    cost = tokens.input + 2 * (tokens.output + tokens.reasoning) + 0.1 * tokens.cache.read + 1.25 * tokens.cache.write
    assert finished.cost == pytest.approx(cost / 1_000_000)


@every_format
async def test_any_split_of_the_bytes_gives_the_same(format: Format):
    whole, _ = await ask(format, streams(format.calls))

    async def byte_by_byte(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(len(format.calls)):
            await wire.chunk(format.calls[at : at + 1])
        await wire.send(b"0\r\n\r\n")

    split, error = await ask(format, byte_by_byte)

    assert error is None
    assert split == whole


@takes_halves
async def test_a_character_whose_halves_come_in_two_pieces_is_one(format: Format):
    cut = format.calls.replace(b'"I look "', b'"I look \\ud83d"').replace(b'"at both"', b'"\\ude00at both"')
    assert cut != format.calls

    said, error = await ask(format, streams(cut))
    assert error is None
    assert texts(said) == "I look \U0001f600at both."


@takes_halves
async def test_half_a_character_is_no_harm(format: Format):
    said, error = await ask(format, streams(format.calls.replace(b'"at both"', b'"\\ude00at both\\ud83d"')))

    assert error is None
    assert texts(said).replace("\ufffd", "") == SAID
    assert all(chunk.text.encode() for chunk in said if isinstance(chunk, TextChunk) and chunk.text)


@every_format
async def test_each_piece_is_passed_on_before_the_next_one_comes(format: Format):
    """The server sends one event, and the next one only when the client has shown that it got the one before."""
    frames = [frame + b"\n\n" for frame in format.calls.split(b"\n\n") if frame]
    got = asyncio.Event()
    waiting: list[bool] = []

    async def step_by_step(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for frame in frames:
            await wire.chunk(frame)
            if b"I look" in frame and not waiting:
                waiting.append(True)
                await got.wait()
        await wire.send(b"0\r\n\r\n")

    async with (
        server(step_by_step) as url,
        adapter(format, url) as provider,
        aclosing(provider.stream(PROMPT)) as batches,
    ):
        async for batch in batches:
            if "I look" in texts(batch):
                got.set()

    assert waiting == [True]


@every_format
async def test_what_the_provider_declines_ends_as_such(format: Format):
    if not format.refusal:
        return  # it has no word for it
    said, error = await ask(format, streams(format.refusal))

    assert error is None
    assert isinstance(said[-1], Finished)
    assert said[-1].reason == "content-filter"
    if format is RESPONSES:
        assert texts(said) == "I cannot help with that."


# --- how it fails -----------------------------------------------------------------------------------------------


@every_format
async def test_an_error_in_mid_answer_keeps_what_came_and_is_worth_another_try(format: Format):
    said, error = await ask(format, streams(format.failure))

    assert texts(said) == SAID
    assert error is not None
    assert (error.failure, error.is_retryable) == ("api", True)
    assert error.message


@every_format
async def test_a_stream_cut_anywhere_keeps_what_came_and_is_worth_another_try(format: Format):
    """Never a completed answer, and never another kind of failure."""
    whole, _ = await ask(format, streams(format.calls))
    frames = format.calls.split(b"\n\n")
    # The last frames are bookkeeping: once the reason to stop was said, an answer may count as whole.
    for at in range(1, len(frames) - 4, 3):
        piece = b"\n\n".join(frames[:at]) + b"\n\n"
        said, error = await ask(
            format,
            sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99999\r\n\r\n" + piece),
        )

        assert error is not None, at
        assert (error.failure, error.is_retryable) == ("api", True), (at, error.message)
        assert SAID.startswith(texts(said))
        assert THOUGHT.startswith(thoughts(said))
        assert not any(isinstance(chunk, Finished) for chunk in said)
    assert isinstance(whole[-1], Finished)


@every_format
async def test_a_stream_that_ends_in_good_order_but_too_early_was_cut(format: Format):
    early = format.calls.split(b"\n\n")[:6]

    _, error = await ask(format, streams(b"\n\n".join(early) + b"\n\n"))

    assert error is not None
    assert error.is_retryable


@every_format
async def test_too_many_requests_say_when_to_come_again(format: Format):
    requests: list[bytes] = []

    async def behave(wire: Wire) -> None:
        requests.append(wire.request)
        await answers(429, format.too_many, "retry-after: 7")(wire)

    _, error = await ask(format, behave)

    assert error is not None
    assert (error.failure, error.status_code, error.is_retryable) == ("api", 429, True)
    assert error.retry_after_ms == 7000
    assert len(requests) == 1, "the SDK tried again by itself"


@every_format
async def test_a_conversation_that_is_too_long_is_told_from_other_errors(format: Format):
    _, error = await ask(format, answers(*format.too_long))

    assert error is not None
    assert (error.failure, error.is_retryable) == ("context_overflow", False)


@every_format
async def test_a_wrong_key_is_an_auth_error(format: Format):
    _, error = await ask(format, answers(*format.wrong_key))

    assert error is not None
    assert (error.failure, error.is_retryable, error.provider_id) == ("auth", False, "p")


@every_format
async def test_no_key_gets_into_an_error(format: Format):
    """The provider echoes it: as the message, in the body, in a header."""
    body = {"error": {"message": f"Bad key {KEY}", "type": "invalid_request_error", "status": KEY}}
    _, error = await ask(format, answers(400, body, f"x-echo: {KEY}"), headers={"x-extra": "another-secret"})

    assert error is not None
    shown = f"{error.message} {error.body} {error.headers} {msgspec.json.encode(error.as_message_error())}"
    assert KEY not in shown
    assert "Bad key ***" in shown


@every_format
async def test_a_page_of_a_gateway_is_an_error_worth_another_try(format: Format):
    page = b"<html><head><title>502 Bad Gateway</title></head></html>"
    head = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(page)
    _, error = await ask(format, sends(head + page))

    assert error is not None
    assert (error.failure, error.status_code, error.is_retryable) == ("api", 502, True)


@every_format
async def test_a_redirect_is_not_followed(format: Format):
    """It would carry the key to wherever it points."""
    requests: list[bytes] = []

    async def behave(wire: Wire) -> None:
        requests.append(wire.request)
        await wire.send(b"HTTP/1.1 307 -\r\nLocation: http://127.0.0.1:1/v1\r\nContent-Length: 0\r\n\r\n")

    _, error = await ask(format, behave)

    assert error is not None
    assert not error.is_retryable
    assert len(requests) == 1


@every_format
async def test_nobody_there(format: Format):
    async with adapter(format, "http://127.0.0.1:1/v1") as provider:
        with pytest.raises(ProviderError) as caught:
            _ = [batch async for batch in provider.stream(PROMPT)]

    assert (caught.value.failure, caught.value.is_retryable) == ("api", True)
    assert "127.0.0.1:1" in caught.value.message


# --- how long it may take ---------------------------------------------------------------------------------------


async def silent(wire: Wire) -> None:
    await wire.outlast(60)


@every_format
async def test_an_answer_that_never_begins_is_given_up(format: Format):
    _, error = await ask(format, silent, headerTimeout=60_000, chunkTimeout=600_000)

    assert error is not None
    assert (error.message, error.is_retryable) == ("The model said nothing for 60 seconds.", True)


@every_format
async def test_a_silence_in_mid_answer_is_given_up(format: Format):
    frames = format.calls.split(b"\n\n")
    until = next(number for number, frame in enumerate(frames) if b"I look" in frame)
    heard = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await wire.chunk(b"\n\n".join(frames[: until + 1]) + b"\n\n")
        await heard.wait()
        await wire.outlast(60)

    said, error = await ask(
        format,
        behave,
        hears=lambda text: text == "I look " and heard.set(),
        headerTimeout=600_000,
        chunkTimeout=60_000,
    )

    assert texts(said) == "I look "
    assert error is not None
    assert (error.message, error.is_retryable) == ("The model said nothing for 60 seconds.", True)


async def test_a_ping_is_a_sign_of_life():
    """Anthropic sends pings while its LLM thinks: nothing for us to pass on, but no silence either."""
    frames = ANTHROPIC.calls.split(b"\n\n")

    async def behave(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await wire.chunk(b"\n\n".join(frames[:2]) + b"\n\n")
        for _ in range(20):
            for _ in range(20):  # turns of the loop, in which the client reads what was sent
                await asyncio.sleep(0.001)
            let_pass(40)
            await wire.chunk(b'event: ping\ndata: {"type": "ping"}\n\n')
        await wire.chunk(b"\n\n".join(frames[2:]))
        await wire.send(b"0\r\n\r\n")

    said, error = await ask(ANTHROPIC, behave, chunkTimeout=60_000)

    assert error is None
    assert texts(said) == SAID


@every_format
async def test_the_whole_answer_has_its_time(format: Format):
    frames = format.calls.split(b"\n\n")

    async def behave(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await wire.chunk(b"\n\n".join(frames[:3]) + b"\n\n")
        await wire.outlast(100)

    _, error = await ask(format, behave, timeout=100_000, chunkTimeout=600_000)

    assert error is not None
    assert (error.message, error.is_retryable) == ("The model took longer than options.timeout allows.", True)


@every_format
async def test_leaving_closes_the_connection(format: Format):
    frames = format.calls.split(b"\n\n")
    gone = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        await wire.chunk(b"\n\n".join(frames[:-4]) + b"\n\n")
        await wire.until_gone()
        gone.set()

    async with server(behave) as url, adapter(format, url) as provider:
        async with aclosing(provider.stream(PROMPT)) as batches:
            await anext(batches)
        await asyncio.wait_for(gone.wait(), 60)


# --- what is asked ----------------------------------------------------------------------------------------------


@every_format
async def test_the_request_has_the_key_the_headers_and_the_path(format: Format):
    request = msgspec.structs.replace(PROMPT, temperature=0.5, output_tokens_max=1000)
    head, body = await sent(format, request, headers={"x-own": "mine"}, queryParams={"q": "1"})

    lines = {line.partition(b":")[0].lower(): line.partition(b":")[2].strip() for line in head.split(b"\r\n")[1:]}
    path = head.split(b" ")[1].decode()
    assert path in (f"{format.path}?q=1", f"{format.path}&q=1")
    assert KEY.encode() in (lines.get(b"authorization", b"") + lines.get(b"x-goog-api-key", b""))
    assert (lines[b"x-own"], lines[b"x-model"]) == (b"mine", b"one")
    assert (lines[b"user-agent"], lines[b"accept-encoding"]) == (b"holdfast/0.1.0", b"identity")
    assert "Be brief." in json.dumps(body)
    assert "Reads a file." in json.dumps(body)
    assert "1000" in json.dumps(body)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("model", "options", "taken"),
    [
        ("gpt-5", {}, False),
        ("gpt-5.1", {}, True),
        ("gpt-5.1", {"reasoningEffort": "none"}, True),
        ("gpt-5.1", {"reasoningEffort": "low"}, False),
        ("gpt-4o", {}, True),
    ],
)
async def test_a_temperature_is_sent_to_those_that_take_one(model: str, options: dict[str, Any], taken: bool):
    """Not to what thinks: pydantic-ai would leave it out, and warn each time."""
    request = msgspec.structs.replace(PROMPT, temperature=0.5, top_p=0.9, options=options)
    _, body = await sent(RESPONSES._replace(model=model), request)

    assert body["model"] == model
    assert ("temperature" in body, "top_p" in body) == (taken, taken)


@every_format
async def test_the_llm_is_told_what_we_say_and_nothing_else(format: Format):
    _, body = await sent(format, PROMPT)

    texts: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for name, item in value.items():
                if name in ("text", "content", "instructions") and isinstance(item, str):
                    texts.append(item)
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(body)
    assert texts == ["hi", "Be brief."] or texts == ["Be brief.", "hi"]


async def told_again(format: Format, **request: Any) -> tuple[dict[str, Any], list[Chunk]]:
    """A second request, after the tools ran: its body, and what was said before."""
    said, _ = await ask(format, streams(format.calls))
    metadata: dict[str | int | None, dict[str, Any]] = {}
    for chunk in said:
        if isinstance(chunk, MetadataChunk):
            metadata[chunk.call_id if chunk.call_id is not None else chunk.block] = chunk.metadata
    asked = tuple(
        ToolCall(call_id=id, name=name, input=input, metadata=metadata.get(id)) for id, name, input in calls(said)
    )
    thought = ReasoningBlock(text=THOUGHT, metadata=metadata.get(0))
    turn = AssistantTurn(
        text=SAID,
        reasoning=THOUGHT,
        calls=asked,
        blocks=(thought, TextBlock(text=SAID, metadata=metadata.get(None)), *asked),
    )
    first, second = (call.call_id for call in asked)
    image = Attachment(mime="image/png", url="data:image/png;base64,aGk=", filename="a.png")
    conversation = (
        UserTurn(text="hi", attachments=(Attachment(mime="application/pdf", url="data:application/pdf;base64,aGk="),)),
        turn,
        ToolOutput(call_id=first, name="read", output="What is in a."),
        ToolOutput(call_id=second, name="read", output="No such file.", is_error=True, attachments=(image,)),
        UserTurn(text="And now?"),
    )
    _, body = await sent(format, msgspec.structs.replace(PROMPT, conversation=conversation, **request))
    return body, said


@every_format
async def test_a_conversation_with_calls_and_files_is_told_whole(format: Format):
    body, said = await told_again(format)

    text = json.dumps(body, ensure_ascii=False)
    for part in ("hi", SAID, "What is in a.", "No such file.", "And now?", "aGk="):
        assert part in text, part
    for id, _, _ in calls(said):
        assert text.count(f'"{id}"') == 2, "a call and its output"
    assert (THOUGHT in text) == format.keeps


async def test_a_summary_of_calls_lists_their_tools_where_the_provider_insists_and_lets_none_be_called():
    body, _ = await told_again(ANTHROPIC, tools=())

    assert ([tool["name"] for tool in body["tools"]], body["tool_choice"]["type"]) == (["read"], "none")


async def test_anthropic_gets_its_signed_reasoning_back_before_what_it_led_to():
    body, _ = await told_again(ANTHROPIC)

    assistant = next(message for message in body["messages"] if message["role"] == "assistant")
    assert [block["type"] for block in assistant["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert assistant["content"][0] == {"type": "thinking", "thinking": THOUGHT, "signature": "c2lnbmVk"}
    results = [block for message in body["messages"] for block in message["content"] if block["type"] == "tool_result"]
    assert [result.get("is_error", False) for result in results] == [False, True]


async def test_anthropic_is_asked_to_cache_the_system_prompt_and_the_conversation():
    body, _ = await told_again(ANTHROPIC)

    assert body["system"][-1]["cache_control"]["type"] == "ephemeral"
    assert body["tools"][-1]["cache_control"]["type"] == "ephemeral"
    assert body["cache_control"]["type"] == "ephemeral"  # of the conversation: up to its newest block


async def test_responses_get_their_sealed_reasoning_back_and_are_not_stored():
    body, _ = await told_again(RESPONSES)

    assert body["store"] is False
    assert body["include"] == ["reasoning.encrypted_content"]
    reasoning = next(item for item in body["input"] if item.get("type") == "reasoning")
    assert (reasoning["id"], reasoning["encrypted_content"]) == ("rs_1", "c2VhbGVk")
    kinds = [item.get("type", item.get("role")) for item in body["input"]]
    assert kinds.index("reasoning") < kinds.index("function_call") < kinds.index("function_call_output")


async def test_gemini_gets_the_signature_of_its_call_back():
    body, _ = await told_again(GEMINI)

    parts = [part for content in body["contents"] for part in content["parts"]]
    signed = [part.get("thoughtSignature") for part in parts if "functionCall" in part]
    assert signed[0] == "c2lnbmVk"


@through_pydantic_ai
async def test_another_providers_reasoning_is_not_shown(format: Format):
    thought = ReasoningBlock(text="A secret thought.", metadata={"elsewhere": {"signature": "eA=="}})
    turn = AssistantTurn(text="Yes.", reasoning=thought.text, blocks=(thought, TextBlock(text="Yes.")))
    request = msgspec.structs.replace(PROMPT, conversation=(UserTurn(text="a"), turn, UserTurn(text="b")))

    _, body = await sent(format, request)

    assert "A secret thought." not in json.dumps(body)
    assert "Yes." in json.dumps(body)


async def test_options_go_out_under_the_names_of_the_provider():
    thinking = {"type": "enabled", "budgetTokens": 2048}
    _, body = await sent(ANTHROPIC, msgspec.structs.replace(PROMPT, options={"thinking": thinking, "speed": "fast"}))
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert body["speed"] == "fast"  # unknown to us: as it is

    options = {"reasoningEffort": "high", "reasoningSummary": "auto", "textVerbosity": "low", "include": ["x"]}
    _, body = await sent(RESPONSES, msgspec.structs.replace(PROMPT, options=options))
    assert body["reasoning"] == {"effort": "high", "summary": "auto"}
    assert body["text"]["verbosity"] == "low"
    assert body["include"] == ["reasoning.encrypted_content"]

    options = {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": "high"}}
    _, body = await sent(GEMINI, msgspec.structs.replace(PROMPT, options=options))
    config = {
        name.replace("_", "").lower(): value for name, value in body["generationConfig"]["thinkingConfig"].items()
    }
    assert config == {"includethoughts": True, "thinkinglevel": "HIGH"}


@through_pydantic_ai
async def test_a_provider_without_a_key_says_so(format: Format):
    async with adapter(format, "http://127.0.0.1:1/v1", apiKey="") as provider:
        with pytest.raises(ProviderError) as caught:
            _ = [batch async for batch in provider.stream(PROMPT)]

    assert (caught.value.failure, caught.value.is_retryable) == ("auth", False)
    assert "has no key" in caught.value.message


async def test_the_event_loop_goes_on_while_an_sdk_is_imported():
    """What is imported takes a second or two; it happens in a thread."""
    async with server(streams(ANTHROPIC.calls)) as url, adapter(ANTHROPIC, url) as provider:
        turns = 0

        async def tick() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        stream = provider.stream(PROMPT)
        await anext(stream)
        await stream.aclose()
        ticking.cancel()

    assert turns > 10
