"""kill -9 under load: writers and readers that never give up, and a server that is killed again and again.

    python -m tests.server.streams.kills 50

Every writer is an idempotent producer that repeats an append until it has an answer. Every reader follows a stream from
where it was, by SSE or long-poll. Nothing acknowledged may be lost, nothing may be there twice, no place may be told twice
with another meaning; what was closed, forked or subscribed to stays so.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from holdfast.testing.server_process import ServerProcess, holdfast_command

WRITERS = 16
READERS = 20
STREAMS = 4
JSON = {"content-type": "application/json"}


class Load:
    """`acked` is the newest acknowledged append of each writer."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.acked = [-1] * WRITERS
        self.reads = 0
        self.stopping = False

    def url(self, path: str) -> str:
        return f"{self.server.url}/v1/stream/{path}"

    async def write(self, session: aiohttp.ClientSession, writer: int) -> None:
        n = 0
        while not self.stopping:
            headers = {**JSON, "producer-id": f"w{writer}", "producer-epoch": "0", "producer-seq": str(n)}
            body = json.dumps({"w": writer, "n": n})
            try:
                async with session.post(self.url(f"load/{writer % STREAMS}"), data=body, headers=headers) as response:
                    assert response.status in (200, 204), (response.status, await response.text())
                    self.acked[writer] = n
                    n += 1
            except (TimeoutError, aiohttp.ClientError, OSError):
                await asyncio.sleep(0.02)

    async def follow(self, session: aiohttp.ClientSession, reader: int) -> None:
        path, live = f"load/{reader % STREAMS}", ("sse", "long-poll")[reader % 2]
        offset = "-1"
        seen: dict[int, int] = {}
        while not self.stopping:
            try:
                async with session.get(self.url(path), params={"live": live, "offset": offset}) as response:
                    if live == "long-poll":
                        assert response.status in (200, 204), response.status
                        messages = json.loads(await response.read() or b"[]")
                        offset = self.take(seen, messages, offset, response.headers["stream-next-offset"])
                    else:
                        offset = await self.take_events(seen, response, offset)
            except (TimeoutError, aiohttp.ClientError, OSError):
                await asyncio.sleep(0.02)

    async def take_events(self, seen: dict[int, int], response: aiohttp.ClientResponse, offset: str) -> str:
        """An event that was cut off does not count: the place moves with the control event."""
        messages: list[Any] = []
        event = data = ""
        try:
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    event = line[7:]
                elif line.startswith("data:"):
                    data += line[5:]
                elif not line and event == "data":
                    messages, data = json.loads(data), ""
                elif not line and event == "control":
                    offset = self.take(seen, messages, offset, json.loads(data)["streamNextOffset"])
                    messages, data = [], ""
                    if self.stopping:
                        break
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        return offset

    def take(self, seen: dict[int, int], messages: list[Any], before: str, after: str) -> str:
        assert after > before or (after == before and not messages) or before == "-1", (before, after)
        for message in messages:
            expected = seen.get(message["w"], -1) + 1
            assert message["n"] == expected, f"writer {message['w']}: {message['n']} instead of {expected}"
            seen[message["w"]] = expected
            self.reads += 1
        return after


async def prepare(session: aiohttp.ClientSession, load: Load) -> None:
    for number in range(STREAMS):
        assert (await session.put(load.url(f"load/{number}"), headers=JSON)).status == 201
    await session.put(load.url("kept/closed"), headers={**JSON, "stream-closed": "true"}, data="[1,2]")
    await session.put(load.url("kept/source"), headers=JSON, data="[1,2,3]")
    await session.put(
        load.url("kept/fork"), headers={**JSON, "stream-forked-from": "/v1/stream/kept/source"}, data="[4]"
    )
    assert (await session.delete(load.url("kept/source"))).status == 204
    await session.put(load.url("kept/wakes"), headers=JSON)
    config = {"type": "pull-wake", "pattern": "load/*", "wake_stream": "kept/wakes", "lease_ttl_ms": 1000}
    assert (await session.put(load.url("__ds/subscriptions/kept"), json=config)).status == 201


async def check(session: aiohttp.ClientSession, load: Load) -> None:
    for number in range(STREAMS):
        offset, messages = "-1", []
        while True:
            async with session.get(load.url(f"load/{number}"), params={"offset": offset}) as response:
                messages += await response.json()
                offset = response.headers["stream-next-offset"]
                if "stream-up-to-date" in response.headers:
                    break
        for writer in range(number, WRITERS, STREAMS):
            found = [message["n"] for message in messages if message["w"] == writer]
            assert found == list(range(len(found))), f"writer {writer}: gaps or repeats"
            assert len(found) - 1 in (load.acked[writer], load.acked[writer] + 1), f"writer {writer}: lost"
    async with session.head(load.url("kept/closed")) as response:
        assert response.headers["stream-closed"] == "true"
    assert (await session.head(load.url("kept/source"))).status == 410
    async with session.get(load.url("kept/fork")) as response:
        assert await response.json() == [1, 2, 3, 4]
    async with session.get(load.url("__ds/subscriptions/kept")) as response:
        assert len((await response.json())["streams"]) == STREAMS
    async with session.get(load.url("kept/wakes")) as response:
        generations = [wake["generation"] for wake in await response.json()]
        assert generations == sorted(set(generations)) != []


async def run(directory: Path, kills: int, seed: int) -> Load:
    """Raises AssertionError for what a client should never see."""
    data = directory / "data"
    command = holdfast_command("serve", "--port", "0", "--data", str(data), "--long-poll-seconds", "1")
    environ = {**os.environ, "XDG_CONFIG_HOME": str(directory / "config")}
    with ServerProcess(command, cwd=directory, log=directory / "server.log", env=environ) as server:
        load = Load(server, seed)
        timeout = aiohttp.ClientTimeout(total=10)  # after which a reader comes back, also one to whom nothing is said
        connector = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as patient,
            aiohttp.ClientSession(timeout=timeout, connector=connector, read_bufsize=1 << 22) as session,
        ):
            await prepare(patient, load)
            tasks = [asyncio.ensure_future(load.write(session, writer)) for writer in range(WRITERS)]
            tasks += [asyncio.ensure_future(load.follow(session, reader)) for reader in range(READERS)]
            for _ in range(kills):
                await asyncio.sleep(load.random.uniform(0.05, 0.5))
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                if failed := [task for task in tasks if task.done()]:
                    failed[0].result()
            await asyncio.sleep(0.5)
            load.stopping = True
            await asyncio.wait_for(asyncio.gather(*tasks), 120)
            await check(patient, load)
        server.stop()
    verify = holdfast_command("verify", "--data", str(data))
    verified = await asyncio.to_thread(subprocess.run, verify, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    return load


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    print(f"{kills} kills, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        load = asyncio.run(run(Path(directory), kills, seed))
    print(f"nothing lost, nothing twice: {sum(load.acked) + WRITERS} appends acknowledged, {load.reads} messages read")


if __name__ == "__main__":
    main()
