"""A whole turn with each provider's wire format: from the prompt over two tools at once to the answer, as it is recorded."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.agent.providers.recorded import ANTHROPIC, FORMATS, SAID, THOUGHT, Format
from tests.agent.providers.wire import Behaviour, Wire, sends, server, streams
from tests.server.harness import Server

every_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


def configured(format: Format, url: str, **options: Any) -> dict[str, str]:
    model = {
        "id": format.model,
        "reasoning": True,
        "cost": {"input": 1, "output": 2, "cache_read": 0.1, "cache_write": 1.25},
        "limit": {"context": 200_000, "output": 8_000},
    }
    address = url.removesuffix("/v1") + format.address
    provider = {
        "npm": format.npm,
        "options": {"baseURL": address, "apiKey": "sk-very-secret-key", **options},
        "models": {"m": model},
    }
    config = {"model": "p/m", "provider": {"p": provider}, "permission": "allow"}
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}


def one_after_the_other(*behaviours: Behaviour) -> tuple[Behaviour, list[dict[str, Any]]]:
    """The first request gets the first, and so on; and the requests that came."""
    requests: list[dict[str, Any]] = []

    async def behave(wire: Wire) -> None:
        requests.append(json.loads(wire.request.partition(b"\r\n\r\n")[2]))
        await behaviours[len(requests) - 1](wire)

    return behave, requests


def without_calls(format: Format) -> bytes:
    """What the LLM says when it has what it wanted: the same story, told up to the calls, and ended."""
    frames = format.failure.split(b"\n\n")
    ends = {
        "@ai-sdk/anthropic": [
            b'event: content_block_stop\ndata: {"type": "content_block_stop", "index": 0}',
            b'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, '
            b'"usage": {"output_tokens": 5}}',
            b'event: message_stop\ndata: {"type": "message_stop"}',
        ],
        "@ai-sdk/openai": [format.refusal.strip().split(b"\n\n")[-1]],
        "@ai-sdk/google": [b'data: {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}'],
    }
    stop = b'data: {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", '
    end = ends.get(format.npm, [stop + b'"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}'])
    return b"\n\n".join([*frames[:-2], *end, b""])


@every_format
async def test_a_turn_with_two_tools_at_once(tmp_path: Path, format: Format):
    (tmp_path / "a.py").write_text("a = 1\n")
    behave, requests = one_after_the_other(streams(format.calls), streams(without_calls(format)))

    async with server(behave) as url, Server(tmp_path, environ=configured(format, url)) as holdfast:
        session = await holdfast.session()
        answer = (await holdfast.prompt(session)).json()
        messages = await holdfast.messages(session)

    assert answer["info"].get("error") is None
    assert [part["text"] for part in answer["parts"] if part["type"] == "text"] == [SAID]
    step = messages[1]
    assert step["info"]["finish"] == "tool-calls"
    kinds = [part["type"] for part in step["parts"]]
    assert kinds[:5] == ["step-start", "reasoning", "text", "tool", "tool"]
    reasoning, text, *tools = step["parts"][1:5]
    assert (reasoning["text"], text["text"]) == (THOUGHT, SAID)
    assert [tool["state"]["status"] for tool in tools] == ["completed", "error"]  # the second file is not there
    assert step["info"]["cost"] > 0
    assert step["info"]["tokens"]["cache"]["read"] == 400
    assert ("metadata" in reasoning) == format.keeps

    assert len(requests) == 2
    again = json.dumps(requests[1], ensure_ascii=False)
    assert "a = 1" in again
    assert (THOUGHT in again) == format.keeps


async def test_signed_reasoning_survives_a_restart(tmp_path: Path):
    """The signature is recorded with the part, so the next server can send it back."""
    behave, requests = one_after_the_other(
        streams(ANTHROPIC.calls), streams(without_calls(ANTHROPIC)), streams(without_calls(ANTHROPIC))
    )
    data = tmp_path / "data"
    async with server(behave) as url:
        environ = configured(ANTHROPIC, url)
        async with Server(tmp_path, data, environ=environ) as holdfast:
            session = await holdfast.session()
            (await holdfast.prompt(session)).raise_for_status()
        async with Server(tmp_path, data, environ=environ) as holdfast:
            (await holdfast.prompt(session, "And now?")).raise_for_status()

    blocks = [block for message in requests[2]["messages"] for block in message["content"]]
    assert {"type": "thinking", "thinking": THOUGHT, "signature": "c2lnbmVk"} in blocks


@every_format
async def test_an_error_in_mid_answer_is_tried_again_and_loses_no_character(tmp_path: Path, format: Format):
    too_many = json.dumps(format.too_many).encode()
    busy = b"HTTP/1.1 429 -\r\nretry-after-ms: 1\r\nContent-Type: application/json\r\n"
    behave, requests = one_after_the_other(
        sends(busy + b"Content-Length: %d\r\n\r\n" % len(too_many) + too_many), streams(without_calls(format))
    )

    async with server(behave) as url, Server(tmp_path, environ=configured(format, url)) as holdfast:
        session = await holdfast.session()
        answer = (await holdfast.prompt(session)).json()

    assert answer["info"].get("error") is None
    assert [part["text"] for part in answer["parts"] if part["type"] == "text"] == [SAID]
    retry = next(part for part in answer["parts"] if part["type"] == "retry")
    assert (retry["attempt"], retry["error"]["data"]["statusCode"]) == (1, 429)
    assert len(requests) == 2


@every_format
async def test_a_wrong_key_ends_the_turn_and_is_not_told(tmp_path: Path, format: Format):
    status, body = format.wrong_key
    data = json.dumps({**body, "echo": "sk-very-secret-key"}).encode()
    head = b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(data))

    async with server(sends(head + data)) as url, Server(tmp_path, environ=configured(format, url)) as holdfast:
        session = await holdfast.session()
        answer = await holdfast.prompt(session)

    assert answer.json()["info"]["error"]["name"] == "ProviderAuthError"
    assert "sk-very-secret-key" not in answer.text
