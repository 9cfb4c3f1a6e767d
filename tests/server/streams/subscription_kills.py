"""kill -9 while subscriptions are at work: webhooks being told, leases held, wakes pending.

    python -m tests.server.streams.subscription_kills 30

Writers append all the time. A webhook finishes a wake at once, or calls back, or fails, or takes its time; workers claim,
acknowledge, finish, or forget what they claimed. What may not happen, however often the server dies:

 - what was acknowledged (an answer says so) is not acknowledged any more, or a place runs backwards;
 - a generation is claimed twice, finished twice, recorded twice in the wake stream, or stands for two wakes;
 - something that was appended is never told: in the end everything is acknowledged.
"""

import asyncio
import os
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from holdfast.testing.server_process import ServerProcess, free_port, holdfast_command

STREAMS = 3
WORKERS = 3
JSON = {"content-type": "application/json"}
GONE = (TimeoutError, aiohttp.ClientError, OSError)
HOOK, PULL = "hook", "pull"


class Load:
    """`acked` is how far an answer said that a stream was acknowledged."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.acked: dict[tuple[str, str], str] = {}
        self.wakes: dict[tuple[str, int], str] = {}
        self.claimed: set[int] = set()
        self.finished: set[tuple[str, int]] = set()
        self.told = self.appends = 0
        self.writing = self.calm = False
        self.wrong: list[str] = []
        self.calls: list[asyncio.Future[None]] = []
        self.session: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return f"{self.server.url}/v1/stream/{path}"

    async def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Raises one of GONE if there is no answer."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with self.session.request(method, self.url(path), json=body, headers=headers) as response:
            assert response.status < 500, await response.text()
            return response.status, await response.json(content_type=None)

    # --- what comes in

    def see(self, subscription: str, streams: list[dict[str, Any]]) -> None:
        """Wherever the server tells how far it is: never behind what it said before."""
        for stream in streams:
            known = self.acked.get((subscription, stream["path"]), "")
            assert stream["acked_offset"] >= known, f"{subscription}: {stream} is behind {known}"

    def note_wake(self, subscription: str, wake: Mapping[str, Any]) -> None:
        known = self.wakes.setdefault((subscription, wake["generation"]), wake["wake_id"])
        assert known == wake["wake_id"], f"{subscription}: two wakes are generation {wake['generation']}"
        self.see(subscription, wake["streams"])

    async def hook(self, request: web.Request) -> web.Response:
        wake = await request.json()
        self.told += 1
        with self.noting():
            self.note_wake(HOOK, wake)
        way = 0 if self.calm else self.random.randrange(5)
        if way == 1:
            return web.json_response({}, status=500)
        if way == 2:
            await asyncio.sleep(self.random.uniform(0.05, 0.3))
        if way == 3:
            self.calls.append(asyncio.ensure_future(self.call_back(wake)))
            return web.json_response({})
        if way == 4:
            return web.json_response({})  # and never calls back: the lease runs out
        return web.json_response({"done": True})

    async def call_back(self, wake: Mapping[str, Any]) -> None:
        with self.noting():
            await self.work(HOOK, "callback", wake, wake["callback_token"])

    @contextmanager
    def noting(self) -> Generator[None]:
        """What is wrong where nobody would hear of it."""
        try:
            yield
        except AssertionError as error:
            self.wrong.append(str(error))
            raise

    # --- what goes out

    async def work(self, subscription: str, action: str, wake: Mapping[str, Any], token: str) -> None:
        """Acknowledge what is pending, in two steps, or give up in between."""
        path = f"__ds/subscriptions/{subscription}/{action}"
        about = {"wake_id": wake["wake_id"], "generation": wake["generation"]}
        acks = [{"stream": s["path"], "offset": s["tail_offset"]} for s in wake["streams"] if s["has_pending"]]
        try:
            for last in (False, True):
                if not self.calm and self.random.random() < 0.15:
                    return
                given = acks if last else acks[:1]
                status, _ = await self.ask("POST", path, {**about, "acks": given, "done": last}, token)
                assert status in (200, 409), status  # 409: the lease has run out
                if status == 409:
                    return
                if last:
                    key = subscription, wake["generation"]
                    assert key not in self.finished, f"{key} was finished twice"
                    self.finished.add(key)
                for ack in given:
                    place = subscription, ack["stream"]
                    self.acked[place] = max(self.acked.get(place, ""), ack["offset"])
                await asyncio.sleep(self.random.uniform(0, 0.05))
        except GONE:
            return

    async def pull(self, worker: int) -> None:
        while True:
            try:
                status, wake = await self.ask("POST", f"__ds/subscriptions/{PULL}/claim", {"worker": f"w{worker}"})
                assert status in (200, 409), status
                if status == 200:
                    assert wake["generation"] not in self.claimed, f"{wake['generation']} was claimed twice"
                    self.claimed.add(wake["generation"])
                    self.note_wake(PULL, wake)
                    await self.work(PULL, "ack", wake, wake["token"])
            except GONE:
                pass
            await asyncio.sleep(self.random.uniform(0.005, 0.05))

    async def write(self, number: int) -> None:
        while self.writing:
            try:
                async with self.session.post(self.url(f"jobs/{number}"), data="1", headers=JSON) as response:
                    assert response.status == 204, await response.text()
                    self.appends += 1
            except GONE:
                pass
            await asyncio.sleep(self.random.uniform(0, 0.03))

    # --- looking at it

    async def look(self) -> bool:
        """True once everything is acknowledged. Raises AssertionError if something is as it must not be."""
        tails: dict[str, str] = {}
        for number in range(STREAMS):
            async with self.session.head(self.url(f"jobs/{number}")) as response:
                tails[f"jobs/{number}"] = response.headers["stream-next-offset"]
        found: list[dict[str, Any]] = []
        for subscription in (HOOK, PULL):
            status, got = await self.ask("GET", f"__ds/subscriptions/{subscription}")
            assert status == 200, f"{subscription} is gone"
            self.see(subscription, got["streams"])
            found += got["streams"]
        return len(found) == 2 * STREAMS and all(s["acked_offset"] == tails[s["path"]] for s in found)

    async def settled(self) -> None:
        """Return once everything is acknowledged; the server does that by itself."""
        for _ in range(900):
            if await self.look():
                return
            await asyncio.sleep(0.1)
        raise AssertionError("something was never told")


@asynccontextmanager
async def webhook(load: Load) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/", load.hook)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def run(directory: Path, kills: int, seed: int) -> Load:
    """Raises AssertionError for what must not happen."""
    command = holdfast_command("serve", "--port", str(free_port()), "--data", str(directory / "data"))
    environ = {**os.environ, "XDG_CONFIG_HOME": str(directory / "config")}
    with ServerProcess(command, cwd=directory, log=directory / "server.log", env=environ) as server:
        load = Load(server, seed)
        timeout = aiohttp.ClientTimeout(total=60)
        async with webhook(load) as url, aiohttp.ClientSession(timeout=timeout) as load.session:
            await load.session.put(load.url("wakes"), headers=JSON)
            common = {"pattern": "jobs/*", "lease_ttl_ms": 1000}
            hook = {"type": "webhook", "webhook": {"url": url}, **common}
            pull = {"type": "pull-wake", "wake_stream": "wakes", **common}
            assert (await load.ask("PUT", f"__ds/subscriptions/{HOOK}", hook))[0] == 201
            assert (await load.ask("PUT", f"__ds/subscriptions/{PULL}", pull))[0] == 201
            keys = (await load.ask("GET", "__ds/jwks.json"))[1]
            for number in range(STREAMS):
                await load.session.put(load.url(f"jobs/{number}"), headers=JSON)
            load.writing = True
            writers = [asyncio.ensure_future(load.write(number)) for number in range(STREAMS)]
            workers = [asyncio.ensure_future(load.pull(worker)) for worker in range(WORKERS)]
            for _ in range(kills):
                await asyncio.sleep(load.random.uniform(0.05, 0.8))
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await load.look()
                if failed := [task for task in (*writers, *workers) if task.done()]:
                    failed[0].result()
            load.writing, load.calm = False, True
            await asyncio.wait_for(asyncio.gather(*writers), 120)
            await load.settled()
            assert (await load.ask("GET", "__ds/jwks.json"))[1] == keys
            generations = [wake["generation"] for wake in (await load.ask("GET", "wakes?offset=-1"))[1]]
            assert generations == sorted(set(generations)) != []
            for worker in workers:
                if worker.done():
                    worker.result()
                worker.cancel()
            await asyncio.gather(*workers, *load.calls, return_exceptions=True)
            assert load.wrong == []
        assert server.stop() == 0
    assert "Traceback" not in (directory / "server.log").read_text()
    return load


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 30)
    print(f"{kills} kills, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        load = asyncio.run(run(Path(directory), kills, seed))
    print(
        f"{load.appends} appends, webhook told {load.told} times, {len(load.claimed)} claims, "
        f"{len(load.finished)} wakes finished: nothing lost, nothing twice"
    )


if __name__ == "__main__":
    main()
