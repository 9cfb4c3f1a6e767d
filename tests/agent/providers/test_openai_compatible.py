"""The adapter against real sockets, behind which servers do everything that servers should not."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.agent.providers import openai_compatible
from holdfast.agent.providers.base import (
    AssistantTurn,
    Chunk,
    Finished,
    ModelRequest,
    Provider,
    ProviderError,
    ReasoningChunk,
    TextChunk,
    ToolCall,
    ToolCallChunk,
    ToolOutput,
    UserTurn,
)
from holdfast.agent.providers.connections import Connections
from holdfast.agent.providers.registry import ProviderRegistry
from holdfast.core.config import Config, ModelConfig, ProviderConfig
from holdfast.core.errors import Invalid
from holdfast.testing.loop_time import let_pass
from holdfast.testing.model_server import ModelServer
from tests.agent.providers.wire import HEAD, Behaviour, Wire, sends, server, streams

KEY = "sk-very-secret-key"
PROMPT = ModelRequest(model_id="m", conversation=(UserTurn(text="hi"),))


def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": reason}]}).encode() + b"\n\n"


HELLO = event({"content": "Hel"}) + event({"content": "lo"})
END = event({}, "stop") + b"data: [DONE]\n\n"


@asynccontextmanager
async def adapter(url: str, model: ModelConfig | None = None, **options: Any) -> AsyncIterator[Provider]:
    connections = Connections()
    config = ProviderConfig(options={"baseURL": url, "apiKey": KEY, **options}, models={"m": model or ModelConfig()})
    registry = ProviderRegistry(Config(provider={"p": config}), connections=connections, environ={})
    try:
        yield registry.resolve("p", "m")[0]
    finally:
        await connections.close()


async def batches(behave: Behaviour, request: ModelRequest = PROMPT, **options: Any) -> list[Sequence[Chunk]]:
    async with server(behave) as url, adapter(url, **options) as provider, aclosing(provider.stream(request)) as stream:
        return [batch async for batch in stream]


async def chunks(behave: Behaviour, **options: Any) -> list[Chunk]:
    return [chunk for batch in await batches(behave, **options) for chunk in batch]


async def failure(
    behave: Behaviour, *, heard: asyncio.Event | None = None, **options: Any
) -> tuple[list[Chunk], ProviderError]:
    """What came before the error, and the error. `heard`: whether something came."""
    seen: list[Chunk] = []
    async with server(behave) as url, adapter(url, **options) as provider:
        with pytest.raises(ProviderError) as failed:
            async with aclosing(provider.stream(PROMPT)) as stream:
                async for batch in stream:
                    seen += batch
                    if heard is not None:
                        heard.set()
    return seen, failed.value


def texts(found: Sequence[Chunk]) -> str:
    return "".join(chunk.text for chunk in found if isinstance(chunk, TextChunk))


# --- an answer


async def test_what_is_asked_goes_to_the_right_place_with_the_key() -> None:
    asked = b""

    async def behave(wire: Wire) -> None:
        nonlocal asked
        asked = wire.request
        await streams(HELLO + END)(wire)

    options = {"headers": {"X-Own": "7"}, "queryParams": {"api-version": "1"}}
    async with (
        server(behave) as url,
        adapter(url + "/?a=b", ModelConfig(headers={"X-Model": "8"}), **options) as provider,
        aclosing(provider.stream(PROMPT)) as stream,
    ):
        assert [batch async for batch in stream]

    head, _, body = asked.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions?a=b&api-version=1 HTTP/1.1"
    assert {f"Authorization: Bearer {KEY}", "X-Own: 7", "X-Model: 8", "Accept-Encoding: identity"} <= set(lines)
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("options", [{}, {"apiKey": None}], ids=["with a key", "without one"])
async def test_passwords_for_other_programs_are_not_sent_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    (tmp_path / "netrc").write_text("default login me password for-ftp\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    asked = b""

    async def behave(wire: Wire) -> None:
        nonlocal asked
        asked = wire.request
        await streams(HELLO + END)(wire)

    assert texts(await chunks(behave, **options)) == "Hello"
    sent = [line for line in asked.split(b"\r\n") if line.lower().startswith(b"authorization:")]
    assert sent == ([] if options else [f"Authorization: Bearer {KEY}".encode()])


async def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = b""

    async def behave(wire: Wire) -> None:
        nonlocal asked
        asked = wire.request
        await streams(HELLO + END)(wire)

    async with server(behave) as proxy, adapter("http://models.example/v1") as provider:
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1").replace("//", "//me:pw@"))
        monkeypatch.setenv("no_proxy", "other.example")
        async with aclosing(provider.stream(PROMPT)) as stream:
            assert texts([chunk async for batch in stream for chunk in batch]) == "Hello"

    lines = asked.split(b"\r\n")
    assert lines[0] == b"POST http://models.example/v1/chat/completions HTTP/1.1"
    assert b"Proxy-Authorization: Basic bWU6cHc=" in lines


async def test_the_first_token_passes_before_the_second_is_there() -> None:
    """Nothing is held back: the server only goes on after the client has told that it got the piece before."""
    got = asyncio.Semaphore(0)

    async def behave(wire: Wire) -> None:
        await wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (event({"reasoning": "hm"}), event({"content": "a"}), event({"content": "b"})):
            await wire.chunk(piece)
            await got.acquire()
        await wire.chunk(END)
        await wire.send(b"0\r\n\r\n")

    async with server(behave) as url, adapter(url) as provider, aclosing(provider.stream(PROMPT)) as stream:
        seen: list[Sequence[Chunk]] = []
        async for batch in stream:
            seen.append(tuple(batch))
            got.release()

    assert seen[:3] == [(ReasoningChunk("hm"),), (TextChunk("a"),), (TextChunk("b"),)]


async def test_what_comes_in_one_read_is_one_batch() -> None:
    first, last = await batches(streams(HELLO + END))

    assert list(first) == [TextChunk("Hel"), TextChunk("lo")]
    assert isinstance(last[0], Finished)


async def test_an_answer_in_one_piece_of_json_is_taken_too() -> None:
    message = {"role": "assistant", "reasoning": "hm", "content": "Hello"}
    body = json.dumps(
        {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}}
    ).encode()
    answer = await chunks(
        sends(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    )

    assert answer[:2] == [ReasoningChunk("hm"), TextChunk("Hello")]
    assert isinstance(answer[2], Finished)
    assert answer[2].tokens.input == 3


async def test_compressed_answers_and_trailers_are_understood() -> None:
    packed = gzip.compress(HELLO + END)

    async def behave(wire: Wire) -> None:
        await wire.send(HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n")
        for at in range(0, len(packed), 7):
            await wire.chunk(packed[at : at + 7])
        await wire.send(b"0\r\nX-End: yes\r\n\r\n")

    assert texts(await chunks(behave)) == "Hello"


async def test_an_answer_that_ends_with_the_connection_is_whole_if_it_gave_its_reason() -> None:
    answer = await chunks(sends(HEAD + b"Connection: close\r\n\r\n", HELLO, event({}, "length")))

    assert isinstance(answer[-1], Finished)
    assert answer[-1].reason == "length"


@pytest.mark.parametrize("trouble", [b'data: {"error": {"message": "late"}}\n\n', b"data: {\n\n", b""])
async def test_trouble_after_the_answer_is_none(trouble: bytes) -> None:
    """The chunked body is broken off, after an error object or rubbish."""
    body = HELLO + event({}, "stop") + trouble
    answer = await chunks(sends(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body)))

    assert texts(answer) == "Hello"
    assert isinstance(answer[-1], Finished)


@pytest.mark.parametrize("end", [event({}, "stop"), END])
async def test_signs_of_life_after_the_answer_are_not_waited_for(end: bytes) -> None:
    async def behave(wire: Wire) -> None:
        await wire.send(HEAD + b"\r\n" + HELLO + end)
        while True:
            await wire.send(b": still here\n\n")
            let_pass(1)
            await asyncio.sleep(0)

    async with asyncio.timeout(600):
        answer = await chunks(behave)

    assert texts(answer) == "Hello"
    assert isinstance(answer[-1], Finished)


async def test_connections_are_used_again() -> None:
    async with ModelServer() as model_server, adapter(model_server.url) as provider:
        for _ in range(3):
            async with aclosing(provider.stream(PROMPT)) as stream:
                assert [batch async for batch in stream]
            assert model_server.requests
            assert len(model_server._connections) == 1


async def test_a_call_that_repeats_an_id_of_the_conversation_gets_another() -> None:
    delta = {"tool_calls": [{"index": 0, "id": "call_0", "function": {"name": "read", "arguments": "{}"}}]}
    conversation = (
        AssistantTurn(calls=(ToolCall(call_id="call_0", name="read", input={}),)),
        ToolOutput(call_id="call_0", name="read", output=""),
    )
    [first, _] = await batches(
        streams(event(delta) + event({}, "tool_calls")), ModelRequest(model_id="m", conversation=conversation)
    )

    assert isinstance(first[0], ToolCallChunk)
    assert first[0].call_id.startswith("call_")
    assert first[0].call_id != "call_0"


STREAM = (
    b"\xef\xbb\xbf: hello\r\n\r\n"
    + event({"reasoning_content": "hm é"})
    + event({"content": "€😀"}).replace(b"\n", b"\r\n")
    + event({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "read", "arguments": '{"x"'}}]})
    + event({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}).replace(b"\n", b"\r")
)


@settings(max_examples=60)
@given(
    cuts=st.lists(st.integers(0, len(STREAM) + 200), max_size=25),
    tail=st.sampled_from([END, b"", b"data: {rubbish\n\n" + HELLO, b'data: {"error": "no"}\n\n']),
)
def test_any_split_of_a_stream_gives_the_same_chunks(cuts: list[int], tail: bytes) -> None:
    """However the network splits the bytes, the chunks and the end are the same."""
    whole = STREAM + tail
    places = sorted({cut for cut in cuts if 0 < cut < len(whole)})
    pieces = [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]

    async def outcome(sent: Sequence[bytes]) -> tuple[list[Chunk], str]:
        """Each piece is read before the next one is sent."""
        seen: list[Chunk] = []

        async def behave(wire: Wire) -> None:
            await wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            for piece in sent:
                await wire.chunk(piece)
                await asyncio.sleep(0)
            await wire.send(b"0\r\n\r\n")

        async with server(behave) as url, adapter(url) as provider:
            try:
                async with aclosing(provider.stream(PROMPT)) as stream:
                    async for batch in stream:
                        seen += batch
            except ProviderError as error:
                return seen, error.message
        return seen, ""

    assert asyncio.run(outcome(pieces)) == asyncio.run(outcome([whole]))


# --- trouble


async def test_a_stream_cut_in_the_middle_gives_what_came_and_may_be_tried_again() -> None:
    seen, error = await failure(sends(HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(HELLO), HELLO)))

    assert texts(seen) == "Hello"
    assert (error.is_retryable, error.status_code) == (True, None)


async def test_a_stream_that_ends_in_good_order_but_too_early_was_cut() -> None:
    seen, error = await failure(streams(HELLO + b"data: half a li"))

    assert texts(seen) == "Hello"
    assert "cut off" in error.message
    assert error.is_retryable


async def test_an_error_in_the_stream_comes_after_what_was_said() -> None:
    seen, error = await failure(streams(HELLO + b'data: {"error": {"message": "Overloaded", "code": 503}}\n\n' + HELLO))

    assert texts(seen) == "Hello"
    assert (error.message, error.status_code, error.is_retryable) == ("Overloaded", 503, True)


async def test_a_server_that_says_nothing_is_given_up_after_the_silence_limit() -> None:
    heard = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        await wire.chunk(HELLO)
        await heard.wait()
        await wire.outlast(60)

    seen, error = await failure(behave, heard=heard, chunkTimeout=60_000)

    assert texts(seen) == "Hello"
    assert error.message == "The model said nothing for 60 seconds."
    assert error.is_retryable


async def test_a_server_that_does_not_even_begin_to_answer_is_given_up() -> None:
    async def behave(wire: Wire) -> None:
        await wire.outlast(60)

    _, error = await failure(behave, headerTimeout=60_000)

    assert error.is_retryable


async def test_a_server_that_never_ends_is_given_up_when_the_whole_request_has_a_limit() -> None:
    heard = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.send(HEAD + b"\r\n")
        await wire.send(event({"content": "a"}))
        await heard.wait()
        while True:
            let_pass(20)
            await wire.send(event({"content": "a"}))
            await asyncio.sleep(0)

    seen, error = await failure(behave, heard=heard, timeout=80_000, chunkTimeout=60_000)

    assert seen
    assert error.message == "The model took longer than options.timeout allows."


async def test_429_says_when_to_come_back() -> None:
    body = b'{"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}'
    _, error = await failure(
        sends(
            b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: 7\r\n"
            b"Set-Cookie: a=b\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
    )

    assert (error.message, error.status_code, error.is_retryable, error.retry_after_ms) == (
        "Slow down",
        429,
        True,
        7000,
    )
    assert error.headers == {"content-type": "application/json", "retry-after": "7", "content-length": str(len(body))}
    assert error.body == body.decode()


async def test_a_gateways_html_page_is_told_in_one_line() -> None:
    page = b"<html><title>Bad gateway</title>" + b"x" * 200_000
    _, error = await failure(sends(b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n" + page))

    assert "HTML page titled “Bad gateway”" in error.message
    assert error.is_retryable


async def test_a_page_instead_of_an_answer_is_a_wrong_address() -> None:
    _, error = await failure(sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html><title>Hi</title>"))

    assert "HTML page" in error.message
    assert not error.is_retryable


async def test_an_error_body_that_never_ends_does_not_hold_up_the_error() -> None:
    async def behave(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 500 X\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            await wire.send(b"x" * 10_000)

    _, error = await failure(behave)

    assert error.status_code == 500


async def test_a_redirect_is_not_followed_with_the_key() -> None:
    _, error = await failure(
        sends(b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere.example/v1\r\nContent-Length: 0\r\n\r\n")
    )

    assert "http://elsewhere.example/v1" in error.message
    assert not error.is_retryable


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_what_is_no_http_is_trouble_that_may_pass(answer: bytes) -> None:
    _, error = await failure(sends(answer))

    assert error.is_retryable
    assert "127.0.0.1" in error.message


async def test_a_line_without_end_is_given_up() -> None:
    async def behave(wire: Wire) -> None:
        await wire.send(HEAD + b"\r\n" + HELLO + b"data: ")
        while True:
            await wire.send(b"x" * 1_000_000)

    seen, error = await failure(behave)

    assert texts(seen) == "Hello"
    assert "longer than" in error.message
    assert not error.is_retryable


async def test_an_answer_in_one_piece_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "_WHOLE_BODY_BYTES_MAX", 2 << 20)

    async def behave(wire: Wire) -> None:
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
        while True:
            await wire.send(b" " * 1_000_000)

    seen, error = await failure(behave)

    assert seen == []
    assert error.message == "The answer is longer than 2 MB."
    assert not error.is_retryable


async def test_nobody_listens() -> None:
    async with server(sends()) as url:
        pass
    async with adapter(url) as provider:
        with pytest.raises(ProviderError, match=r"No connection to 127\.0\.0\.1:\d+") as failed:
            await anext(provider.stream(PROMPT))

    assert failed.value.is_retryable


async def test_a_server_without_tls_is_no_secure_connection() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening, adapter(f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}") as provider:
        with pytest.raises(ProviderError, match="No secure connection") as failed:
            await anext(provider.stream(PROMPT))

    assert not failed.value.is_retryable


@pytest.mark.parametrize(
    "behave",
    [
        sends(f"HTTP/1.1 401 Unauthorized\r\nX-Key: {KEY}\r\n\r\nWrong key {KEY}, Bearer own-secret".encode()),
        streams(b'data: {"error": "Wrong key ' + KEY.encode() + b' own-secret"}\n\n'),
        streams(b"data: {rubbish " + KEY.encode() + b" own-secret\n\n"),
        sends(b"HTTP/1.1 302 Found\r\nLocation: /?key=" + KEY.encode() + b"\r\n\r\n"),
    ],
)
async def test_no_secret_of_the_configuration_gets_into_an_error(behave: Behaviour) -> None:
    _, error = await failure(behave, headers={"X-Own": "Bearer own-secret"})

    shown = f"{error.message} {error.body} {error.headers} {error.as_message_error()} {error!r}"
    assert KEY not in shown
    assert "own-secret" not in shown


# --- leaving


async def left(leave: Callable[[AsyncGenerator[Sequence[Chunk], None]], Awaitable[None]]) -> None:
    """Return once the server saw that the client left an answer that it had only begun."""
    gone = asyncio.Event()

    async def behave(wire: Wire) -> None:
        await wire.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        await wire.chunk(HELLO)
        await wire.until_gone()
        gone.set()

    async with server(behave) as url, adapter(url) as provider:
        stream = provider.stream(PROMPT)
        assert texts(await anext(stream)) == "Hello"
        await leave(stream)
        async with asyncio.timeout(60):
            await gone.wait()


async def test_closing_the_stream_stops_the_llm() -> None:
    await left(lambda stream: stream.aclose())


async def test_cancelling_who_reads_stops_the_llm() -> None:
    async def leave(stream: AsyncGenerator[Sequence[Chunk], None]) -> None:
        reading = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    await left(leave)


async def test_cancelling_before_the_answer_begins_stops_the_llm() -> None:
    asked, gone = asyncio.Event(), asyncio.Event()

    async def behave(wire: Wire) -> None:
        asked.set()
        await wire.until_gone()
        gone.set()

    async with server(behave) as url, adapter(url) as provider:
        reading = asyncio.ensure_future(anext(provider.stream(PROMPT)))
        await asked.wait()
        reading.cancel()
        async with asyncio.timeout(60):
            await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await reading


# --- configuration


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "has no address"),
        ({"baseURL": "localhost:11434"}, "not an http or https address"),
        ({"baseURL": "http://[::1"}, "not an http or https address"),
        ({"baseURL": "http://a/v1", "chunkTimeout": "5"}, "provider.p.options"),
        ({"baseURL": "http://a/v1", "headers": {"X": "a\nb"}}, "no HTTP header can hold"),
        ({"baseURL": "http://a/v1", "apiKey": f"{KEY}\n"}, "no HTTP header can hold"),
        ({"baseURL": f"http://u:{KEY}@a/v1", "apiKey": KEY}, "only one can be sent"),
    ],
)
def test_options_that_do_not_do_are_refused_with_their_place(options: dict[str, Any], complaint: str) -> None:
    config = Config(provider={"p": ProviderConfig(options=options, models={"m": ModelConfig()})})

    with pytest.raises(Invalid, match=complaint) as refused:
        ProviderRegistry(config, connections=Connections(), environ={}).resolve("p", "m")

    assert (refused.value.field or "").startswith("provider.p.options")
    assert KEY not in str(refused.value)
