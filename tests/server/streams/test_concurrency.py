"""Whatever is asked of streams side by side, each request has one of the answers of the protocol, and the store stays whole."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.server.streams.world import Answer, StreamWorld

PATHS = ("a", "b", "c", "d")
TYPES = ("application/json", "application/json", "text/plain")
CLIENTS = 10
REQUESTS = 120


class Client:
    """Asks for anything, at places that were answered before to whomever."""

    def __init__(self, world: StreamWorld, seed: int, offsets: list[str]) -> None:
        self._world = world
        self._random = random.Random(seed)
        self._offsets = offsets

    async def run(self) -> None:
        for _ in range(REQUESTS):
            answer = await self._ask()
            assert answer.status < 500, answer
            if answer.status == 200 and answer.body and answer.headers["content-type"] == "application/json":
                assert isinstance(answer.json, list)
            self._offsets += [answer.next] if "stream-next-offset" in answer.headers else []

    async def _ask(self) -> Answer:
        chance, world = self._random, self._world
        path, offset = chance.choice(PATHS), chance.choice(self._offsets[-8:])
        kind = {"content-type": chance.choice(TYPES)}
        match chance.randrange(9):
            case 0:
                more = chance.choice(({}, {"stream-ttl": "1"}, {"stream-retention": "records=2"}))
                return await world.put(path, {**kind, **more}, chance.choice((b"", b"[1]")))
            case 1:
                sub = {"stream-fork-sub-offset": str(chance.randrange(4))} if chance.random() < 0.5 else {}
                place = {"stream-fork-offset": offset, **sub} if chance.random() < 0.7 else {}
                fork = {"stream-forked-from": f"/v1/stream/{chance.choice(PATHS)}", **place}
                return await world.put(path, fork, chance.choice((b"", b"[7]")))
            case 2:
                return await world.request("DELETE", path)
            case 3:
                closing = {"stream-closed": "true"} if chance.random() < 0.3 else {}
                return await world.post(path, "[1,2]", {**kind, **closing})
            case 4:
                seq, epoch = str(chance.randrange(4)), str(chance.randrange(2))
                producer = {"producer-id": "p", "producer-epoch": epoch, "producer-seq": seq}
                return await world.post(path, "[3]", {**kind, **producer})
            case 5:
                return await world.get(path, f"live=long-poll&offset={chance.choice((offset, 'now'))}")
            case 6:
                world.clock.advance(chance.randrange(300))
                await world.store.byte_streams.upkeep()
                return await world.request("HEAD", path)
            case _:
                return await world.get(path, f"offset={offset}")


@pytest.mark.parametrize("seed", range(3))
async def test_any_requests_side_by_side_are_answered_and_leave_a_whole_store(tmp_path: Path, seed: int) -> None:
    async with StreamWorld(tmp_path) as world:
        offsets = ["0000000000000000_0000000000000000"]
        clients = [Client(world, seed * CLIENTS + number, offsets) for number in range(CLIENTS)]
        await asyncio.gather(*(client.run() for client in clients))
        await world.store.byte_streams.upkeep()
        await world.restart()

        assert [difference async for difference in world.store.verify()] == []
