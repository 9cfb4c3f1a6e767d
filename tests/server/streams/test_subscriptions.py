"""Subscriptions over restarts, and webhooks that must not lead where nobody outside could go."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from holdfast.core import subscriptions as rules
from holdfast.core.errors import StorageError, Unavailable
from holdfast.core.streams import Append, StreamAppended
from holdfast.core.subscriptions import WebhookUrlRejected
from holdfast.service import webhook_calls
from holdfast.service.webhooks import ANSWER_BYTES_MAX, WebhookFailed, Webhooks, check_url, is_public
from tests.server.streams.world import JSON, StreamWorld


class Receiver:
    """Somebody's webhook: keeps what it gets, answers what it is told to."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[Any, str, bytes]] = asyncio.Queue()
        self.answers: list[tuple[int, Any]] = []
        self.url = ""
        self.hold: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        status, answer = self.answers.pop(0) if self.answers else (200, {})
        self.got.put_nowait((json.loads(body), request.headers["webhook-signature"], body))
        if self.hold is not None:
            await self.hold.wait()
        return web.json_response(answer, status=status)

    async def next(self) -> Any:
        async with asyncio.timeout(60):
            return (await self.got.get())[0]


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield receiver
    await runner.cleanup()


async def call(world: StreamWorld, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
    headers = {**JSON, **({"authorization": f"Bearer {token}"} if token else {})}
    answer = await world.request(method, f"__ds/{path}", headers, json.dumps(body) if body is not None else b"")
    return answer.status, answer.json if answer.body.startswith(b"{") else None


def webhook(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "webhook", "pattern": "jobs/*", "webhook": {"url": url}, **more}


async def until(condition: Any) -> None:
    """Of what a client can only ask for, again and again."""
    for _ in range(3000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


async def test_a_wake_that_nobody_finished_is_told_again_after_a_restart(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world, receiving() as receiver:
        assert (await call(world, "PUT", "subscriptions/s", webhook(receiver.url)))[0] == 201
        await world.put("jobs/1", JSON, "[1]")
        first = await receiver.next()

        async def answered() -> bool:
            return world.subscriptions.get("s").lease_until_ms is not None

        await until(answered)
        world.clock.advance(31_000)
        await world.restart()
        second = await receiver.next()
        assert second["generation"] == first["generation"] + 1
        assert second["streams"] == first["streams"]

        acks = [{"stream": "jobs/1", "offset": second["streams"][0]["tail_offset"]}]
        body = {"wake_id": second["wake_id"], "generation": second["generation"], "acks": acks, "done": True}
        stale = {**body, "wake_id": first["wake_id"], "generation": first["generation"]}
        assert (await call(world, "POST", "subscriptions/s/callback", stale, first["callback_token"]))[0] == 409
        assert (await call(world, "POST", "subscriptions/s/callback", body, second["callback_token"])) == (
            200,
            {"ok": True, "next_wake": False},
        )


async def test_keys_and_tokens_outlive_a_restart(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world, receiving() as receiver:
        await call(world, "PUT", "subscriptions/s", webhook(receiver.url))
        await world.put("jobs/1", JSON, "[1]")
        async with asyncio.timeout(60):
            told, signature, body = await receiver.got.get()
        await world.restart()
        parts = dict(part.split("=", 1) for part in signature.split(","))
        (key,) = [key for key in (await world.get("__ds/jwks.json")).json["keys"] if key["kid"] == parts["kid"]]
        public = Ed25519PublicKey.from_public_bytes(_decode(key["x"]))
        public.verify(_decode(parts["ed25519"]), f"{parts['t']}.".encode() + body)

        heartbeat = {"wake_id": told["wake_id"], "generation": told["generation"]}
        assert (await call(world, "POST", "subscriptions/s/callback", heartbeat, told["callback_token"]))[0] == 200
        assert (await call(world, "POST", "subscriptions/s/callback", heartbeat, "x.y"))[0] == 401


async def test_a_delivery_that_failed_is_tried_again_even_after_a_restart(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world, receiving() as receiver:
        receiver.answers = [(500, {}), (200, {"done": True})]
        await call(world, "PUT", "subscriptions/s", webhook(receiver.url))
        await world.put("jobs/1", JSON, "[1]")
        first = await receiver.next()

        async def failed() -> bool:
            return (await call(world, "GET", "subscriptions/s"))[1]["status"] == "failed"

        await until(failed)
        await world.restart()
        world.clock.advance(5_000)
        await world.restart()
        again = await receiver.next()
        assert (again["wake_id"], again["generation"]) == (first["wake_id"], first["generation"])

        async def acked() -> bool:
            got = (await call(world, "GET", "subscriptions/s"))[1]
            return got["status"] == "active" and got["streams"][0]["acked_offset"] == again["streams"][0]["tail_offset"]

        await until(acked)


async def test_a_lease_is_lost_when_its_time_is_up_and_the_work_is_offered_again(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("wakes")
        config = {"type": "pull-wake", "pattern": "jobs/**", "wake_stream": "wakes", "lease_ttl_ms": 1000}
        await call(world, "PUT", "subscriptions/s", config)
        await world.put("jobs/1", JSON, "[1]")

        async def woken(times: int) -> bool:
            return len((await world.get("wakes")).json) == times

        await until(lambda: woken(1))
        _, claimed = await call(world, "POST", "subscriptions/s/claim", {"worker": "one"})
        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "two"}))[0] == 409
        world.clock.advance(2_000)
        await world.restart()
        await until(lambda: woken(2))
        ack = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], "done": True}
        assert (await call(world, "POST", "subscriptions/s/ack", ack, claimed["token"]))[1]["error"]["code"] == "FENCED"
        status, second = await call(world, "POST", "subscriptions/s/claim", {"worker": "two"})
        assert (status, second["generation"]) == (200, claimed["generation"] + 1)
        assert [wake["generation"] for wake in (await world.get("wakes")).json] == [1, 2]


async def test_an_acknowledgement_stays_between_what_was_acknowledged_and_the_end(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("wakes")
        config = {"type": "pull-wake", "streams": ["jobs/1"], "wake_stream": "wakes"}
        await call(world, "PUT", "subscriptions/s", config)
        await world.put("jobs/1", JSON, "[1]")
        _, claimed = await call(world, "POST", "subscriptions/s/claim", {"worker": "one"})

        async def ack(stream: str, offset: str) -> int:
            body = {
                "wake_id": claimed["wake_id"],
                "generation": claimed["generation"],
                "acks": [{"stream": stream, "offset": offset}],
            }
            return (await call(world, "POST", "subscriptions/s/ack", body, claimed["token"]))[0]

        tail = claimed["streams"][0]["tail_offset"]
        assert await ack("jobs/2", tail) == 409
        assert await ack("jobs/1", "-1") == 409
        assert await ack("jobs/1", "9999999999999999_0000000000000000") == 409
        assert await ack("jobs/1", tail) == 200
        assert await ack("jobs/1", "0000000000000000_0000000000000000") == 409


def pull(**more: Any) -> dict[str, Any]:
    return {"type": "pull-wake", "pattern": "jobs/*", "wake_stream": "wakes", **more}


async def generations(world: StreamWorld, path: str = "wakes") -> list[int]:
    """Of the wakes in a wake stream."""
    answer = await world.get(path)
    return [wake["generation"] for wake in answer.json] if answer.status == 200 else []


async def status_of(world: StreamWorld) -> str:
    return (await call(world, "GET", "subscriptions/s"))[1]["status"]


async def test_a_wake_stream_that_is_made_late_gets_the_wake_that_waits_for_it(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await call(world, "PUT", "subscriptions/s", pull())
        await world.put("jobs/1", JSON, "[1]")

        async def is_failed() -> bool:
            return await status_of(world) == "failed"

        await until(is_failed)
        await world.put("wakes")

        async def is_told() -> bool:
            return await generations(world) == [1] and await status_of(world) == "active"

        await until(is_told)
        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "one"}))[1]["generation"] == 1


async def test_a_wake_that_could_not_be_recorded_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RETRY_MS_MIN", 1)
    async with StreamWorld() as world:
        await world.put("wakes")
        await call(world, "PUT", "subscriptions/s", pull())
        append, refusals = world.store.byte_streams.append, 3

        async def append_at_last(command: Append) -> StreamAppended:
            nonlocal refusals
            if command.path == "wakes" and refusals:
                refusals -= 1
                raise Unavailable("Not now.")
            return await append(command)

        monkeypatch.setattr(world.store.byte_streams, "append", append_at_last)
        await world.put("jobs/1", JSON, "[1]")

        async def is_told() -> bool:
            world.clock.advance(10)
            return await generations(world) == [1] and await status_of(world) == "active"

        await until(is_told)
        assert refusals == 0


async def test_a_claim_ends_the_tries_to_tell_of_it(tmp_path: Path) -> None:
    """Its lease counts from now on, over restarts, and not the schedule of a wake that somebody has found without it."""
    async with StreamWorld(tmp_path) as world:
        await call(world, "PUT", "subscriptions/s", pull())
        await world.put("jobs/1", JSON, "[1]")

        async def is_failed() -> bool:
            return await status_of(world) == "failed"

        await until(is_failed)
        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "one"}))[0] == 200
        subscription = world.subscriptions.get("s")
        assert (subscription.attempts, subscription.next_attempt_ms) == (0, None)
        await world.put("wakes")
        world.clock.advance(29_000)
        await world.restart()
        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "two"}))[1]["error"]["code"] == (
            "ALREADY_CLAIMED"
        )
        assert await generations(world) == []


async def test_a_wake_stream_that_is_made_again_has_the_wake_that_nobody_claimed(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("wakes")
        await call(world, "PUT", "subscriptions/s", pull())
        await world.put("jobs/1", JSON, "[1]")

        async def is_told() -> bool:
            return await generations(world) == [1]

        await until(is_told)
        assert (await world.request("DELETE", "wakes")).status == 204
        await world.put("wakes")
        await until(is_told)
        await call(world, "POST", "subscriptions/s/claim", {"worker": "one"})
        assert (await world.request("DELETE", "wakes")).status == 204
        await world.put("wakes")
        await world.put("jobs/2", JSON, "[1]")
        assert await generations(world) == [], "somebody is at it"


async def test_a_subscription_that_is_made_again_wakes_on_the_same_stream() -> None:
    """Its generations begin anew, and are not taken for repetitions of those of the one before."""
    async with StreamWorld() as world:
        await world.put("wakes")
        for times in (1, 2, 3):
            await call(world, "PUT", "subscriptions/s", pull())
            await world.post("jobs/1", "[1]") if times > 1 else await world.put("jobs/1", JSON, "[1]")

            async def is_told(times: int = times) -> bool:
                return await generations(world) == [1] * times

            await until(is_told)
            await call(world, "DELETE", "subscriptions/s")


async def test_a_wake_stream_does_not_wake_for_itself() -> None:
    async with StreamWorld() as world:
        await world.put("wakes")
        await call(world, "PUT", "subscriptions/s", pull(pattern="**"))
        await world.put("jobs/1", JSON, "[1]")

        async def is_told() -> bool:
            return await generations(world) == [1]

        await until(is_told)
        _, claimed = await call(world, "POST", "subscriptions/s/claim", {"worker": "one"})
        assert [stream["path"] for stream in claimed["streams"]] == ["jobs/1"]
        acks = [{"stream": "jobs/1", "offset": claimed["streams"][0]["tail_offset"]}]
        body = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], "acks": acks, "done": True}
        assert (await call(world, "POST", "subscriptions/s/ack", body, claimed["token"]))[1]["next_wake"] is False

        assert (await call(world, "PUT", "subscriptions/t", pull(streams=["wakes"])))[0] == 400
        assert (await call(world, "POST", "subscriptions/s/streams", {"streams": ["wakes"]}))[0] == 400


async def test_a_stream_that_is_deleted_and_made_again_at_once_still_wakes() -> None:
    """While the subscription is busy with the deletion, the new stream appears, and then grows."""
    async with StreamWorld() as world:
        await world.put("wakes")
        for subscription_id, links in (("s", {"pattern": "jobs/*"}), ("t", {"pattern": None, "streams": ["jobs/1"]})):
            await call(world, "PUT", f"subscriptions/{subscription_id}", pull(**links))
        await world.put("jobs/1", JSON)
        for active in world.subscriptions._active.values():
            await active.lock.acquire()
        await world.request("DELETE", "jobs/1")
        await world.put("jobs/1", JSON)
        for active in world.subscriptions._active.values():
            active.lock.release()
        await asyncio.gather(*world.subscriptions._tasks)
        await world.post("jobs/1", "[1]")

        async def are_told() -> bool:
            return len(await generations(world)) == 2

        await until(are_told)


async def test_a_wake_whose_stream_is_gone_is_not_in_the_way_of_the_next_one() -> None:
    async with StreamWorld() as world:
        await world.put("wakes")
        await call(world, "PUT", "subscriptions/s", pull())
        await world.put("jobs/1", JSON, "[1]")
        await asyncio.gather(*world.subscriptions._tasks)
        await world.request("DELETE", "jobs/1")
        await asyncio.gather(*world.subscriptions._tasks)
        assert await generations(world) == [1]
        _, refused = await call(world, "POST", "subscriptions/s/claim", {"worker": "one"})
        assert refused["error"]["code"] == "NO_PENDING_WORK"
        await world.put("jobs/2", JSON, "[1]")

        async def is_told() -> bool:
            return await generations(world) == [1, 2]

        await until(is_told)


@pytest.mark.parametrize("linked", ["by its pattern", "by name", "later"])
async def test_what_is_appended_while_a_subscription_is_saved_wakes_it(
    monkeypatch: pytest.MonkeyPatch, linked: str
) -> None:
    async with StreamWorld() as world:
        await world.put("wakes")
        await world.put("jobs/1", JSON)
        links = {"by its pattern": {}, "by name": {"pattern": None, "streams": ["jobs/1"]}, "later": {"pattern": "x"}}
        if linked == "later":
            await call(world, "PUT", "subscriptions/s", pull(**links[linked]))
        save, saving, may_save = world.store.subscriptions.save, asyncio.Event(), asyncio.Event()

        async def slow(subscription: object) -> None:
            saving.set()
            await may_save.wait()
            await save(subscription)

        monkeypatch.setattr(world.store.subscriptions, "save", slow)
        subscribing = asyncio.ensure_future(
            call(world, "POST", "subscriptions/s/streams", {"streams": ["jobs/1"]})
            if linked == "later"
            else call(world, "PUT", "subscriptions/s", pull(**links[linked]))
        )
        await saving.wait()
        await world.post("jobs/1", "[1]")
        may_save.set()
        assert (await subscribing)[0] in (201, 204)

        async def is_told() -> bool:
            return await generations(world) == [1]

        await until(is_told)


async def test_a_worker_may_keep_its_lease_for_as_long_as_it_asks_for_more_time() -> None:
    """Its token is good for as long as the wake."""
    async with StreamWorld() as world:
        await call(world, "PUT", "subscriptions/s", pull())
        await world.put("jobs/1", JSON, "[1]")
        _, claimed = await call(world, "POST", "subscriptions/s/claim", {"worker": "one"})
        body = {"wake_id": claimed["wake_id"], "generation": claimed["generation"]}
        for _ in range(200):
            world.clock.advance(29_000)
            assert (await call(world, "POST", "subscriptions/s/ack", body, claimed["token"]))[0] == 200
        assert (await call(world, "POST", "subscriptions/s/release", body, claimed["token"]))[0] == 204
        status, answer = await call(world, "POST", "subscriptions/s/ack", body, claimed["token"])
        assert (status, answer["error"]["code"]) == (409, "FENCED")


async def test_what_is_acknowledged_of_a_stream_that_was_deleted_meanwhile_does_not_hold_up_the_rest() -> None:
    async with StreamWorld() as world:
        await call(world, "PUT", "subscriptions/s", pull(streams=["named"]))
        for path in ("jobs/1", "jobs/2", "named"):
            await world.put(path, JSON, "[1]")
        await asyncio.gather(*world.subscriptions._tasks)
        _, claimed = await call(world, "POST", "subscriptions/s/claim", {"worker": "one"})
        await world.request("DELETE", "jobs/1")
        await world.request("DELETE", "named")
        await asyncio.gather(*world.subscriptions._tasks)
        acks = [{"stream": stream["path"], "offset": stream["tail_offset"]} for stream in claimed["streams"]]
        assert len(acks) == 3
        body = {"wake_id": claimed["wake_id"], "generation": claimed["generation"], "acks": acks, "done": True}
        assert (await call(world, "POST", "subscriptions/s/ack", body, claimed["token"])) == (
            200,
            {"ok": True, "next_wake": False},
        )
        await world.put("named", JSON, "[2]")
        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "one"}))[0] == 200, "it is new"


async def test_a_delivery_that_ends_after_its_subscription_does_not_touch_the_next_of_that_name(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world, receiving() as receiver:
        receiver.hold = asyncio.Event()
        await call(world, "PUT", "subscriptions/s", webhook(receiver.url))
        await world.put("jobs/1", JSON, "[1]")
        await receiver.next()
        assert (await call(world, "DELETE", "subscriptions/s"))[0] == 204
        other = {"type": "pull-wake", "streams": ["other"], "wake_stream": "wakes"}
        assert (await call(world, "PUT", "subscriptions/s", other))[0] == 201
        delivering = list(world.subscriptions._tasks)
        assert delivering
        receiver.hold.set()
        await asyncio.wait(delivering, timeout=60)
        await world.restart()

        assert (await call(world, "GET", "subscriptions/s"))[1]["type"] == "pull-wake"


async def test_a_subscription_is_confirmed_once_it_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    async with StreamWorld() as world:
        config = {"type": "pull-wake", "pattern": "jobs/*", "wake_stream": "wakes"}
        await call(world, "PUT", "subscriptions/other", config)
        save, may_save, saving = world.store.subscriptions.save, asyncio.Event(), asyncio.Event()

        async def slow(subscription: object) -> None:
            saving.set()
            await may_save.wait()
            await save(subscription)

        monkeypatch.setattr(world.store.subscriptions, "save", slow)
        first = asyncio.ensure_future(call(world, "PUT", "subscriptions/s", config))
        await saving.wait()
        second = asyncio.ensure_future(call(world, "PUT", "subscriptions/s", config))
        await asyncio.wait([second], timeout=0.2)
        assert not second.done()
        may_save.set()
        assert [(await first)[0], (await second)[0]] == [201, 200]


async def test_a_webhook_that_does_not_answer_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_calls, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(webhook_calls, "CONNECTIONS_OF_ONE_MAX", 2)
    async with StreamWorld() as world, receiving() as dead, receiving() as receiver:
        dead.hold = asyncio.Event()
        for number in range(4):
            await call(world, "PUT", f"subscriptions/dead{number}", webhook(dead.url))
        await world.put("jobs/1", JSON, "[1]")
        for _ in range(2):
            await dead.next()
        await call(world, "PUT", "subscriptions/s", webhook(receiver.url, pattern="others/*"))
        await world.put("others/1", JSON, "[1]")

        assert (await receiver.next())["subscription_id"] == "s"
        dead.hold.set()


async def test_a_stream_that_appeared_while_nobody_looked_is_found_at_the_start(tmp_path: Path) -> None:
    """As if the server had been killed between the commit of a stream and that of its link."""
    async with StreamWorld(tmp_path) as world:
        await world.put("wakes")
        config = {"type": "pull-wake", "pattern": "jobs/*", "wake_stream": "wakes"}
        await call(world, "PUT", "subscriptions/s", config)
        world.store.byte_streams.heard = None
        await world.put("jobs/1", JSON, "[1]")
        await world.restart()

        assert (await call(world, "POST", "subscriptions/s/claim", {"worker": "one"}))[0] == 200


async def test_a_subscription_that_could_not_be_saved_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with StreamWorld() as world:
        await world.put("jobs/1", JSON, "[1]")
        config = {"type": "pull-wake", "pattern": "jobs/*", "wake_stream": "wakes"}

        async def fail(_: object) -> None:
            raise StorageError("The disk is full.")

        with monkeypatch.context() as patch:
            patch.setattr(world.store.subscriptions, "save", fail)
            assert (await world.request("PUT", "__ds/subscriptions/s", JSON, json.dumps(config))).status == 500
        assert (await call(world, "GET", "subscriptions/s"))[0] == 404
        assert (await call(world, "PUT", "subscriptions/s", config))[0] == 201


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"type":"mail"}', b'{"type":"webhook","pattern":"a"}', b'{"type":"pull-wake","pattern":"a"}',
     b'{"type":"pull-wake","wake_stream":"w"}', b'{"type":"pull-wake","wake_stream":"w","pattern":"a","lease_ttl_ms":1}',
     b'{"type":"pull-wake","wake_stream":"../w","pattern":"a"}',
     b'{"type":"pull-wake","wake_stream":"__ds/w","pattern":"a"}', b'{"type":"pull-wake","wake_stream":"all","pattern":"a"}',
     b'{"type":"pull-wake","wake_stream":"w","streams":["a","__ds/x"]}',
     b'{"type":"pull-wake","wake_stream":"w","streams":["session/ses_x"]}',
     b'{"type":"pull-wake","wake_stream":"w","streams":["w"]}', b'{"type":"pull-wake","wake_stream":"w","streams":[1]}',
     b'{"type":"pull-wake","wake_stream":"w","pattern":"**/a/**/a/**/a/**/a/**"}',
     b'{"type":"pull-wake","wake_stream":"w","pattern":"\\ud800"}',
     b'{"type":"pull-wake","wake_stream":"w","streams":["\\uDfff"]}',
     b'{"type":"pull-wake","wake_stream":"w","pattern":"a","description":"\\ud800"}'],
)  # fmt: skip
async def test_a_malformed_subscription_is_refused(body: bytes) -> None:
    async with StreamWorld() as world:
        answer = await world.request("PUT", "__ds/subscriptions/s", JSON, body)
        assert (answer.status, answer.json["error"]["code"]) == (400, "INVALID_REQUEST")
        assert (await call(world, "GET", "subscriptions/s"))[0] == 404


@pytest.mark.parametrize(
    "url",
    ["http://example.com/", "http://10.0.0.1/", "https://10.1.2.3/", "https://127.0.0.1/", "https://localhost/", "ftp://example.com/",
     "https://169.254.169.254/latest", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://0x7f.1/", "https://2130706433/",
     "https://a.internal/", "https://user:pw@example.com/", "https://[fd00::1]/", "https://100.64.0.1/", "https://", "nonsense",
     "https://[::10.0.0.1]/", "https://[64:ff9b::10.0.0.1]/", "https://[64:ff9b:1::1]/", "https://[2002:a00:1::1]/", "https://[fec0::1]/"],
)  # fmt: skip
def test_a_webhook_leads_to_a_public_address_by_https(url: str) -> None:
    with pytest.raises(WebhookUrlRejected):
        check_url(url, allow_local=True)


def test_localhost_is_for_development_where_the_operator_says_so() -> None:
    check_url("http://localhost:8080/", allow_local=True)
    with pytest.raises(WebhookUrlRejected):
        check_url("http://localhost:8080/", allow_local=False)
    assert not is_public("192.168.1.1")
    for public in ("1.1.1.1", "2606:4700:4700::1111", "64:ff9b::1.1.1.1", "::ffff:1.1.1.1"):
        assert is_public(public)


@asynccontextmanager
async def redirecting(to: str) -> AsyncIterator[str]:
    """A webhook that says it is somewhere else."""

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(to)

    app = web.Application()
    app.router.add_post("/", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


@asynccontextmanager
async def calling(*, allow_local: bool) -> AsyncIterator[Webhooks]:
    webhooks = Webhooks(allow_local=allow_local)
    yield webhooks
    await webhooks.close()


async def test_a_redirect_into_a_private_network_is_not_followed() -> None:
    async with redirecting("http://10.0.0.1/") as url, calling(allow_local=True) as webhooks:
        with pytest.raises(WebhookFailed, match="localhost"):
            await webhooks.post(url, b"", {})


class Names:
    """A name server that says something else each time it is asked. `asked` is what for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = {name.replace("_", "."): addresses for name, addresses in answers.items()}
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)

    def _getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        addresses = self._answers[host]
        address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]


async def test_a_name_that_leads_into_a_private_network_is_no_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, evil_example=["10.0.0.1"])
    async with StreamWorld() as world:
        status, answer = await call(world, "PUT", "subscriptions/s", webhook("https://evil.example/"))

        assert (status, answer["error"]["code"]) == (400, "WEBHOOK_URL_REJECTED")
        assert (await call(world, "GET", "subscriptions/s"))[0] == 404


async def test_a_name_that_is_turned_round_after_the_check_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: public when the subscription is made, the server's own machine when it is called."""
    connections = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    victim = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = victim.sockets[0].getsockname()[1]
    names = Names(monkeypatch, evil_example=["1.1.1.1", "127.0.0.1"])
    async with calling(allow_local=True) as webhooks:
        await webhooks.check(f"https://evil.example:{port}/")
        with pytest.raises(WebhookFailed, match="could not be reached"):
            await webhooks.post(f"https://evil.example:{port}/", b"", {})
    victim.close()

    assert names.asked == ["evil.example"] * 2
    assert connections == 0


async def test_a_redirect_to_a_name_that_leads_into_a_private_network_is_not_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, evil_example=["192.168.0.1"])
    async with redirecting("https://evil.example/") as url, calling(allow_local=True) as webhooks:
        with pytest.raises(WebhookFailed, match="could not be reached"):
            await webhooks.post(url, b"", {})


async def test_nobody_is_redirected_to_localhost_from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`localhost` is for whoever subscribed with it."""
    called: list[str] = []

    class Nothing:
        async def read(self, size: int) -> bytes:
            return b""

    class Elsewhere:
        status = 307
        content = Nothing()
        headers: ClassVar = {"location": "http://127.0.0.1:1/"}

        async def __aenter__(self) -> "Elsewhere":
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

    def post(self: object, url: str, **_: Any) -> Elsewhere:
        called.append(url)
        return Elsewhere()

    monkeypatch.setattr(aiohttp.ClientSession, "post", post)
    async with calling(allow_local=True) as webhooks:
        with pytest.raises(WebhookFailed, match="must use https"):
            await webhooks.post("https://public.example/", b"", {})

    assert called == ["https://public.example/"]


@pytest.mark.parametrize(
    ("pieces", "taken"), [([b'{"done"', b":true}"], 13), ([b"x" * ANSWER_BYTES_MAX] * 3, ANSWER_BYTES_MAX)]
)
async def test_a_short_answer_is_read_whole_and_of_a_long_one_the_beginning(pieces: list[bytes], taken: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):  # nobody reads on
            for piece in pieces:
                await response.write(piece)
                await asyncio.sleep(0.05)
        return response

    app = web.Application()
    app.router.add_post("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with calling(allow_local=True) as webhooks:
        got = await webhooks.post(f"http://127.0.0.1:{runner.addresses[0][1]}/", b"", {})
    await runner.cleanup()

    assert got.body == b"".join(pieces)[:taken]


def _decode(text: str) -> bytes:
    from base64 import urlsafe_b64decode

    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
