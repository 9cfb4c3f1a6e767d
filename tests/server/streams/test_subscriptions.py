"""Subscriptions over restarts, and webhooks that must not lead where nobody outside could go."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from holdfast.core.subscriptions import WebhookUrlRejected
from holdfast.service.webhooks import WebhookFailed, Webhooks, check_url, is_public
from tests.server.streams.world import JSON, StreamWorld


class Receiver:
    """Somebody's webhook: keeps what it gets, answers what it is told to."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[tuple[Any, str, bytes]] = asyncio.Queue()
        self.answers: list[tuple[int, Any]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        status, answer = self.answers.pop(0) if self.answers else (200, {})
        self.got.put_nowait((json.loads(body), request.headers["webhook-signature"], body))
        return web.json_response(answer, status=status)

    async def next(self) -> Any:
        async with asyncio.timeout(10):
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
    for _ in range(1000):
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
        async with asyncio.timeout(10):
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


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"type":"mail"}', b'{"type":"webhook","pattern":"a"}', b'{"type":"pull-wake","pattern":"a"}',
     b'{"type":"pull-wake","wake_stream":"w"}', b'{"type":"pull-wake","wake_stream":"w","pattern":"a","lease_ttl_ms":1}',
     b'{"type":"pull-wake","wake_stream":"../w","pattern":"a"}', b'{"type":"pull-wake","wake_stream":"w","streams":[1]}',
     b'{"type":"pull-wake","wake_stream":"w","pattern":"**/a/**/a/**/a/**/a/**"}'],
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
     "https://a.internal/", "https://user:pw@example.com/", "https://[fd00::1]/", "https://100.64.0.1/", "https://", "nonsense"],
)  # fmt: skip
def test_a_webhook_leads_to_a_public_address_by_https(url: str) -> None:
    with pytest.raises(WebhookUrlRejected):
        check_url(url, allow_local=True)


def test_localhost_is_for_development_where_the_operator_says_so() -> None:
    check_url("http://localhost:8080/", allow_local=True)
    with pytest.raises(WebhookUrlRejected):
        check_url("http://localhost:8080/", allow_local=False)
    assert not is_public("192.168.1.1")
    assert is_public("1.1.1.1")


async def test_a_redirect_into_a_private_network_is_not_followed() -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("http://10.0.0.1/")

    app = web.Application()
    app.router.add_post("/", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    webhooks = Webhooks(allow_local=True)
    with pytest.raises(WebhookFailed, match="localhost"):
        await webhooks.post(f"http://127.0.0.1:{runner.addresses[0][1]}/", b"", {})
    await webhooks.close()
    await runner.cleanup()


def _decode(text: str) -> bytes:
    from base64 import urlsafe_b64decode

    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
