"""The keys that webhooks are signed with: sealed on the disk, made when somebody subscribes, the same ones after a restart."""

import asyncio
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from holdfast.core.subscriptions import SigningKey
from holdfast.server.streams import key_id
from holdfast.service.signing import KEY_DAYS, OVERLAP_DAYS
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.files import DATABASE_NAME
from tests.server.streams.test_subscriptions import call, receiving, until, webhook
from tests.server.streams.world import JSON, StreamWorld

DAY_MS = 24 * 3600 * 1000
SEED = bytes(range(100, 132))
PULL = {"type": "pull-wake", "pattern": "jobs/*", "wake_stream": "wakes"}


def public_key(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


async def stored(world: StreamWorld) -> list[SigningKey]:
    return list(await world.store.subscriptions.signing_keys())


async def published(world: StreamWorld) -> list[str]:
    answer = await world.get("__ds/jwks.json")
    assert answer.status == 200, answer
    return [key["kid"] for key in answer.json["keys"]]


async def add_in_clear(world: StreamWorld) -> str:
    """As the first servers stored a key."""
    kid = key_id(public_key(SEED))
    await world.store.subscriptions.save_signing_key(SigningKey(kid, world.clock.now_ms(), SEED))
    return kid


def files_with(directory: Path, data: bytes) -> list[Path]:
    return [file for file in directory.rglob("*") if file.is_file() and data in file.read_bytes()]


async def test_no_key_is_made_before_somebody_subscribes(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("jobs/1", JSON, "[1]")
        assert await published(world) == []
        assert (await world.get("__ds/jwks.json")).headers["cache-control"] == "no-store"
        assert await stored(world) == []

        assert (await call(world, "PUT", "subscriptions/s", PULL))[0] == 201
        assert await published(world) == [key.kid for key in await stored(world)] != []


async def test_a_restart_keeps_the_key(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await call(world, "PUT", "subscriptions/s", webhook("http://localhost:9/"))
        before = (await world.get("__ds/jwks.json")).body
        kid = (await call(world, "GET", "subscriptions/s"))[1]["webhook"]["signing"]["kid"]

        await world.restart()

        assert (await call(world, "GET", "subscriptions/s"))[1]["webhook"]["signing"]["kid"] == kid
        assert (await world.get("__ds/jwks.json")).body == before


async def test_the_seed_of_a_key_is_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with StreamWorld(tmp_path) as world:
        monkeypatch.setattr(world.subscriptions.signer, "_entropy", lambda _: SEED)
        await call(world, "PUT", "subscriptions/s", PULL)
        assert await published(world) == [key_id(public_key(SEED))]
        assert files_with(tmp_path, SEED) == [], "while the server runs"
    assert files_with(tmp_path, SEED) == []


async def test_a_key_that_was_stored_in_clear_is_taken_over_and_sealed(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        kid = await add_in_clear(world)
        await world.store.subscriptions.save_signing_key(SigningKey("another", 1, bytes(60)))
        await world.restart()
        assert len((await stored(world))[1].private) > len(SEED)
        assert await published(world) == [kid]
        assert files_with(tmp_path, SEED) == [], (
            "what was overwritten lies in no corner of the database, nor in its log"
        )

        await world.restart()
        assert await published(world) == [kid]
        await call(world, "PUT", "subscriptions/s", webhook("http://localhost:9/"))
        assert (await call(world, "GET", "subscriptions/s"))[1]["webhook"]["signing"]["kid"] == kid


async def test_a_seed_in_clear_is_gone_after_the_next_start_if_the_server_died_while_it_sealed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit that seals the key, and the check-point that takes what was there before out of the file."""
    died = tmp_path / "died"
    checkpoint = Database.checkpoint

    def die(database: Database, how: str = "PASSIVE", **options: int) -> bool:
        if not died.exists() and database.all("SELECT 1 FROM signing_key WHERE length(private) > 32"):
            shutil.copytree(database.path.parent, died)
        return checkpoint(database, how, **options)

    async with StreamWorld(tmp_path / "data") as world:
        kid = await add_in_clear(world)
        monkeypatch.setattr(Database, "checkpoint", die)
        await world.restart()
    assert files_with(died, SEED) == [died / DATABASE_NAME], "as it was before, and when the server died"
    async with StreamWorld(died) as world:
        assert files_with(died, SEED) == []
        assert await published(world) == [kid]


async def test_without_a_seal_everything_else_is_served(tmp_path: Path) -> None:
    """The configuration directory cannot be written, and has no key of the seal."""
    async with StreamWorld(tmp_path) as world:
        world.environ.clear()
        await world.restart()
        await world.put("jobs/1", JSON, "[1]")
        assert (await world.get("jobs/1")).json == [1]
        assert await published(world) == []

        status, answer = await call(world, "PUT", "subscriptions/s", PULL)
        assert (status, answer["error"]["code"]) == (503, "UNAVAILABLE")
        assert "auth.key" not in answer["error"]["message"]
        assert (await call(world, "GET", "subscriptions/s"))[0] == 404


async def test_a_key_in_clear_works_even_if_it_cannot_be_sealed(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        kid = await add_in_clear(world)
        world.environ.clear()
        await world.restart()
        assert await published(world) == [kid]
        assert (await call(world, "PUT", "subscriptions/s", PULL))[0] == 201


async def test_a_webhook_is_called_once_the_seal_can_be_opened_again(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world, receiving() as receiver:
        await call(world, "PUT", "subscriptions/s", webhook(receiver.url))
        kids = await published(world)
        key = world.environ.copy()
        world.environ.clear()
        await world.restart()
        assert (await world.get("__ds/jwks.json")).status == 503
        await world.put("jobs/1", JSON, "[1]")

        async def failed() -> bool:
            return (await call(world, "GET", "subscriptions/s"))[1]["status"] == "failed"

        await until(failed)
        assert receiver.got.empty()
        world.environ.update(key)
        world.clock.advance(5_000)
        await world.restart()
        async with asyncio.timeout(60):
            _, signature, _ = await receiver.got.get()
        assert f"kid={kids[0]}" in signature


async def test_work_that_cannot_be_claimed_for_want_of_a_key_is_not_claimed(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await call(world, "PUT", "subscriptions/s", PULL)
        await world.put("jobs/1", JSON, "[1]")
        key = world.environ.copy()
        world.environ.clear()
        await world.restart()
        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "me"}))[0] == 503

        world.environ.update(key)
        status, claim = await call(world, "POST", "subscriptions/s/claim", {"worker": "me"})
        assert (status, claim["generation"]) == (200, 1)


async def test_a_key_that_the_seal_does_not_open_gets_a_successor_and_may_come_back(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await call(world, "PUT", "subscriptions/s", PULL)
        (first,) = await published(world)
        right = world.environ["HOLDFAST_AUTH_KEY"]
        world.environ["HOLDFAST_AUTH_KEY"] = "A" * 43 + "="
        world.clock.advance(1000)
        await world.restart()
        assert (await call(world, "PUT", "subscriptions/t", PULL))[0] == 201
        (second,) = await published(world)
        assert second != first

        world.environ["HOLDFAST_AUTH_KEY"] = right
        await world.restart()
        assert await published(world) == [first]


async def test_a_key_is_replaced_when_it_is_old_published_a_while_longer_and_then_removed(tmp_path: Path) -> None:
    """Without a restart: what needs a key looks at its age."""
    async with StreamWorld(tmp_path) as world:
        await world.put("wakes")
        await call(world, "PUT", "subscriptions/s", PULL)
        await world.put("jobs/1", JSON, "[1]")
        (first,) = await published(world)
        world.clock.advance(KEY_DAYS * DAY_MS + 1)

        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "one"}))[0] == 200
        second, still = await published(world)
        assert still == first != second

        world.clock.advance(OVERLAP_DAYS * DAY_MS)
        assert await published(world) == [second]
        world.clock.advance((KEY_DAYS - OVERLAP_DAYS) * DAY_MS + 1)
        status, claimed = await call(world, "POST", "subscriptions/s/claim", {"worker": "two"})
        assert (status, claimed["error"]["code"]) == (409, "ALREADY_CLAIMED")
        assert (await call(world, "PUT", "subscriptions/t", PULL))[0] == 201
        assert [key.kid for key in await stored(world)] == [second, (await published(world))[0]]
