"""The model server does what its prompts say: kill tests and benchmarks stand on it."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from holdfast.agent.providers.conversation import CONTINUE
from holdfast.testing.model_server import ModelServer


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


async def ask(server: ModelServer, *messages: dict[str, Any]) -> list[Any]:
    """The decoded chunks of an answer; a chunk that is not JSON stays text. Raises httpx.RemoteProtocolError when cut."""
    chunks: list[Any] = []
    body = {"model": "fake-1", "messages": list(messages)}
    async with (
        httpx.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{server.url}/chat/completions", json=body) as response,
    ):
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                try:
                    chunks.append(json.loads(line[6:]))
                except ValueError:
                    chunks.append(line[6:])
    return chunks


def said(chunks: list[Any], field: str = "content") -> str:
    deltas = [choice["delta"] for chunk in chunks if isinstance(chunk, dict) for choice in chunk.get("choices", [])]
    return "".join(delta.get(field) or "" for delta in deltas)


async def test_text_and_reasoning_are_streamed_as_asked() -> None:
    async with ModelServer() as server:
        chunks = await ask(server, user("hello [[tokens=3]] [[reason=2]]"))

    assert said(chunks, "reasoning_content") == "think0 think1 "
    assert said(chunks) == "tok0 tok1 tok2 "
    assert chunks[-1] == "[DONE]"
    assert chunks[-2]["usage"]["completion_tokens"] == 5


async def test_a_conversation_is_continued_after_the_last_token_of_the_assistant() -> None:
    async with ModelServer() as server:
        prompt = user("[[tokens=4]]")
        assistant = {"role": "assistant", "content": "tok0 tok1 "}
        continued = await ask(server, prompt, assistant, user(CONTINUE))
        again = await ask(server, prompt, assistant, user("Something else"))

    assert said(continued) == "tok2 tok3 "
    assert said(again) == "tok0 tok1 tok2 tok3 "


async def test_parallel_tools_are_called_once_and_answered_with_text() -> None:
    async with ModelServer() as server:
        prompt = user('[[tool=bash {"command":"a"}]][[tool=read {"filePath":"b"}]] [[tokens=1]]')
        chunks = await ask(server, prompt)
        calls = [
            call for chunk in chunks if isinstance(chunk, dict) for choice in chunk["choices"]
            for call in choice["delta"].get("tool_calls", [])
        ]  # fmt: skip
        results = [{"role": "tool", "tool_call_id": call["id"], "content": "done"} for call in calls if "id" in call]
        answered = await ask(server, prompt, {"role": "assistant", "content": "Calling. "}, *results)

    by_index = ["".join(c["function"].get("arguments", "") for c in calls if c["index"] == i) for i in (0, 1)]
    assert by_index == ['{"command":"a"}', '{"filePath":"b"}']
    assert len({call["id"] for call in calls if "id" in call}) == 2
    assert said(answered) == "tok0 "


async def test_a_fault_with_times_happens_only_to_the_first_requests() -> None:
    async with ModelServer() as server:
        prompt = user("[[tokens=4]] [[cut=2]] [[times=1]]")
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(server, prompt)
        assert said(await ask(server, prompt)) == "tok0 tok1 tok2 tok3 "


async def test_a_refusal_has_the_status_and_the_time_to_wait() -> None:
    async with ModelServer() as server:
        with pytest.raises(httpx.HTTPStatusError) as refused:
            await ask(server, user("[[status=429]] [[retryms=1200]]"))
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["retry-after-ms"] == "1200"


async def test_an_error_object_and_a_malformed_chunk_come_in_the_middle_of_the_stream() -> None:
    async with ModelServer() as server:
        malformed = await ask(server, user("[[tokens=2]] [[malformed=1]]"))
        assert said(malformed) == "tok0 tok1 "
        assert [chunk for chunk in malformed if isinstance(chunk, str)] == [
            '{"choices":[{"index":0,"delta":{"content":"',
            "[DONE]",
        ]
        failed = await ask(server, user("[[tokens=2]] [[error=1]]"))
        assert said(failed) == "tok0 "
        assert failed[-1]["error"]["type"] == "server_error"


@pytest.mark.parametrize("in_process", [True, False])
async def test_a_stalled_answer_goes_on_when_released(in_process: bool) -> None:
    async with ModelServer() as server:
        answer = asyncio.create_task(ask(server, user("[[tokens=2]] [[stall=1]]")))
        if in_process:
            await server.until_stalled()
            server.release()
        else:
            async with httpx.AsyncClient(base_url=server.url.removesuffix("/v1"), timeout=60) as control:
                await control.get("/control/stalled")
                await control.post("/control/release")
        assert said(await answer) == "tok0 tok1 "


async def test_a_hanging_answer_ends_when_the_client_gives_up() -> None:
    async with ModelServer() as server:
        answer = asyncio.create_task(ask(server, user("[[hang=0]]")))
        await server.until(lambda s: s.requests == 1)
        answer.cancel()
        await server.until(lambda s: s.answers[-1].end != "")


async def test_a_title_is_given_at_once() -> None:
    async with ModelServer() as server:
        chunks = await ask(server, {"role": "system", "content": "You are a title generator."}, user("[[hang=0]]"))
    assert said(chunks) == "Fake title"
