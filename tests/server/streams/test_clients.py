"""Clients that nobody here wrote: the TypeScript ones from npm, the Python one from PyPI."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Literal

import durable_streams
import httpx
import pytest

from tests.server.harness import Server

NODE_TESTS = Path(__file__).parents[2] / "node"


async def run_script(name: str, url: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("node")),
        str(NODE_TESTS / "durable_streams" / name),
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


async def test_the_typescript_clients_write_follow_close_and_fold_state(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data") as server:
        told = await run_script("clients.mjs", f"{await server.listen()}/v1/stream/stock")

    assert sorted(told["read"], key=lambda message: message["n"]) == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert told["followed"] == list(range(100))
    assert told["closed"] is True
    assert told["users"] == {"1": {"name": "Grace"}}


async def test_an_ai_sdk_chat_that_was_cut_off_reads_the_whole_answer_when_it_comes_back(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data") as server:
        told = await run_script("chat.mjs", f"{await server.listen()}/v1/stream/stock")

    assert told == {"text": "The tide comes back."}


async def test_the_python_client_writes_and_reads(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data") as server:
        url = f"{await server.listen()}/v1/stream/stock"
        async with httpx.AsyncClient(timeout=60) as client:
            stream = await durable_streams.AsyncDurableStream.create(
                url, content_type="application/json", client=client
            )
            await asyncio.gather(*(stream.append({"n": n}) for n in range(20)))
            async with durable_streams.astream(url, offset="-1", live=False, client=client) as response:
                found = await response.read_json()

    assert sorted(message["n"] for message in found) == list(range(20))


@pytest.mark.parametrize("live", ["sse", "long-poll"])
async def test_the_python_client_follows_a_stream(tmp_path: Path, live: Literal["sse", "long-poll"]) -> None:
    async with Server(tmp_path) as server:
        url = f"{await server.listen()}/v1/stream/stock"
        async with httpx.AsyncClient(timeout=60) as client:
            stream = await durable_streams.AsyncDurableStream.create(
                url, content_type="application/json", client=client
            )
            seen: list[int] = []
            async with durable_streams.astream(url, offset="-1", live=live, client=client) as response:
                await stream.append({"n": 0})
                async for message in response.iter_json():
                    seen.append(message["n"])
                    if len(seen) == 5:
                        break
                    await stream.append({"n": len(seen)})

    assert seen == [0, 1, 2, 3, 4]
