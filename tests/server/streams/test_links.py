"""Links to read one stream with: all that a client needs, for this stream, for a while."""

import base64
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.service.signing import KEY_DAYS
from holdfast.service.stream_links import LINK_SECONDS, StreamLinks
from holdfast.testing.server_process import ServerProcess, holdfast_command
from tests.server.harness import Server
from tests.server.streams.test_clients import run_script
from tests.server.streams.world import JSON, StreamWorld

PASSWORD = {"authorization": "Basic " + base64.b64encode(b"opencode:pw").decode()}
LINKS = "/v1/stream/__ds/links"


async def link_to(api: httpx.AsyncClient, path: str, **more: Any) -> str:
    answer = await api.post(LINKS, json={"path": path, **more}, headers=PASSWORD)
    assert answer.status_code == 201, answer.text
    return answer.json()["url"]


async def test_a_link_reads_its_stream_in_every_way_and_does_nothing_else(tmp_path: Path) -> None:
    async with Server(tmp_path, password="pw") as server:
        api = server.api
        await api.put("/v1/stream/a%20b/c", headers={**JSON, **PASSWORD, "stream-closed": "true"}, content="[1]")
        url = await link_to(api, "a b/c")
        assert url.startswith("http://127.0.0.1:4096/v1/stream/a%20b/c?link=")

        assert (await api.get(url)).json() == [1]
        assert (await api.get(f"{url}&live=long-poll&offset=now")).status_code == 204
        assert "streamClosed" in (await api.get(f"{url}&live=sse&offset=-1")).text
        assert (await api.head(url)).headers["stream-closed"] == "true"
        for method in ("PUT", "POST", "DELETE"):
            assert (await api.request(method, url, headers=JSON, content="[2]")).status_code == 401
        assert (await api.post(f"{LINKS}?{url.partition('?')[2]}", json={"path": "a b/c"})).status_code == 401
        assert (await api.get(f"/session?{url.partition('?')[2]}")).status_code == 401


@pytest.mark.parametrize("forge", ["another stream", "a longer time", "another end", "no mac", "nonsense", "nothing"])
async def test_a_forged_link_is_refused(tmp_path: Path, forge: str) -> None:
    async with Server(tmp_path, password="pw") as server:
        for path in ("mine", "yours"):
            await server.api.put(f"/v1/stream/{path}", headers={**JSON, **PASSWORD}, content="[1]")
        url = await link_to(server.api, "mine")
        token = url.partition("link=")[2]
        until, _, mac = token.partition(".")
        wrong = {
            "another stream": url.replace("/mine?", "/yours?"),
            "a longer time": url.replace(until, str(int(until) + 1)),
            "another end": url[:-1] + ("A" if url[-1] != "A" else "E"),
            "no mac": url.removesuffix(mac),
            "nonsense": url.replace(token, "%00%ff'\"<" + "9" * 5000),
            "nothing": url.replace(token, ""),
        }[forge]

        answer = await server.api.get(wrong)

        assert (answer.status_code, answer.text) == (403, "This link is not for this stream, or was taken back.")
        assert (await server.api.get(wrong, headers=PASSWORD)).status_code == 200, "whoever has the password needs none"


async def test_a_link_is_good_until_its_time_is_up(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("s", JSON, "[1]")
        answer = await world.request("POST", "__ds/links", JSON, '{"path": "s"}')
        query = answer.json["url"].partition("?")[2]
        until = datetime.fromisoformat(answer.json["expires_at"]).timestamp()
        assert until == world.clock.now_ms() // 1000 + LINK_SECONDS

        world.clock.advance(LINK_SECONDS * 1000)
        assert (await world.request("GET", "s", query=query, is_known=False)).json == [1]
        world.clock.advance(1000)
        late = await world.request("GET", "s", query=query, is_known=False)
        assert (late.status, b"was good until" in late.body, query.encode() in late.body) == (403, True, False)


async def test_links_outlive_a_restart_and_a_change_of_keys_but_not_of_the_password(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        links = StreamLinks(world.signer, password="pw", clock=world.clock)
        token = (await links.make("s", seconds=7 * 24 * 3600)).token
        world.clock.advance((KEY_DAYS * 24 - 24) * 3600 * 1000)
        late = (await links.make("s", seconds=7 * 24 * 3600)).token
        world.clock.advance(2 * 24 * 3600 * 1000)
        await links.make("other")
        await world.restart()

        links = StreamLinks(world.signer, password="pw", clock=world.clock)
        await links.check("s", late)
        assert await refusal(links, "s", token) == "This link was good until "
        other = StreamLinks(world.signer, password="new", clock=world.clock)
        assert await refusal(other, "s", late) == "This link is not for this"


async def refusal(links: StreamLinks, path: str, token: str) -> str:
    with pytest.raises(Exception) as caught:
        await links.check(path, token)
    return str(caught.value)[:25]


async def test_a_stranger_with_a_made_up_link_makes_no_key() -> None:
    async with StreamWorld() as world:
        answer = await world.request("GET", "s", query="link=1." + "A" * 43, is_known=False)
        assert answer.status == 403
        assert await world.store.subscriptions.signing_keys() == []


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", '{"path": 1}', '{"path": "../x"}', '{"path": "__ds/jwks.json"}', '{"path": "s", "seconds": 0}',
             '{"path": "s", "seconds": "60"}', '{"path": "s", "seconds": 1e9}', '{"path": "s", "seconds": true}',
             '{"path": "s", "seconds": 99999999999999999999999}', "[" * 10_000],
)  # fmt: skip
async def test_a_malformed_wish_for_a_link_is_refused(body: str) -> None:
    async with StreamWorld() as world:
        answer = await world.request("POST", "__ds/links", JSON, body)
        assert (answer.status, answer.json["error"]["code"]) == (400, "INVALID_REQUEST")
        assert (await world.request("GET", "__ds/links")).status == 405


async def test_the_stock_client_follows_a_session_by_a_link(tmp_path: Path) -> None:
    async with Server(tmp_path, tmp_path / "data", password="pw") as server:
        url = await server.listen()
        async with httpx.AsyncClient(base_url=url, headers=PASSWORD, timeout=60) as api:
            session = (await api.post("/session", json={"title": "Tides"})).json()["id"]
            link = await link_to(api, f"session/{session}")
            await api.delete(f"/session/{session}")
        told = await run_script("follow.mjs", link)

    assert [event["type"] for event in told["sse"]] == ["session.created", "session.deleted"]
    assert told["longPoll"] == told["sse"]


def test_links_are_in_no_log(tmp_path: Path) -> None:
    command = holdfast_command("serve", "--port", "0", "--data", str(tmp_path / "data"), "--password", "pw")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
    log = tmp_path / "log"
    with ServerProcess(command, cwd=tmp_path, log=log, env=environ) as server, httpx.Client(timeout=60) as client:
        client.put(f"{server.url}/v1/stream/s", headers={**JSON, **PASSWORD}, content="[1]").raise_for_status()
        url = client.post(f"{server.url}{LINKS}", json={"path": "s"}, headers=PASSWORD).json()["url"]
        token = url.partition("link=")[2]
        assert client.get(url).json() == [1]
        refused = [client.get(url.replace("/s?", "/t?")), client.get(f"{url}&live=sse"), client.get(f"{url}%00")]
        assert [answer.status_code for answer in refused] == [403, 400, 403]
        assert not any(token in answer.text for answer in refused)
        assert server.stop() == 0
    assert token not in log.read_text()
