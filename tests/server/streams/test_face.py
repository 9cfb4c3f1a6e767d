"""What the face promises beyond the official suite, on a disk and in memory."""

import asyncio
import gzip
import json
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.streams import Page, StreamGone
from holdfast.protocols.sse import Decoder, ServerSentEvent
from holdfast.server.asgi import PIECE_BYTES_MAX
from holdfast.server.streams.reads import LARGE_BYTES
from holdfast.service.session_streams import directory_id
from holdfast.service.stream_access import StreamCredential
from holdfast.storage.byte_streams import StreamWatch
from holdfast.testing.stories import Story
from tests.server.streams.world import BYTES, JSON, TEXT, StreamWorld


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StreamWorld]:
    async with StreamWorld(tmp_path if request.param == "sqlite" else None) as world:
        yield world


# --- bad input


@pytest.mark.parametrize(
    ("path", "status"),
    [("a/../b", 400), ("%2e%2e", 400), ("a%00b", 400), ("x" * 10_000, 400), ("", 400), ("a//b", 400), ("%ff", 400)],
)
async def test_a_path_that_names_no_stream_is_the_callers_fault(world: StreamWorld, path: str, status: int) -> None:
    for method in ("PUT", "POST", "GET", "HEAD", "DELETE"):
        assert status == (await world.request(method, path, JSON, b"[1]")).status


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"stream-ttl": "01"}, b""),
        ({"stream-ttl": "1", "stream-expires-at": "2030-01-01T00:00:00Z"}, b""),
        ({"stream-expires-at": "soon"}, b""),
        ({"stream-fork-offset": "x", "stream-forked-from": "/v1/stream/a"}, b""),
        ({"stream-forked-from": "/v1/stream/../a"}, b""),
        ({"stream-retention": "records=0"}, b""),
        ({"stream-retention": "records=1,records=2"}, b""),
        ({"content-type": "json"}, b""),
        ({}, b"{"),
        ({}, b"\xff"),
        ({}, b"[" * 100_000),
    ],
)
async def test_a_malformed_create_stores_nothing(world: StreamWorld, headers: dict[str, str], body: bytes) -> None:
    assert (await world.put("new", {**JSON, **headers}, body)).status == 400
    assert (await world.get("new")).status == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"producer-id": "p"},
        {"producer-id": "", "producer-epoch": "0", "producer-seq": "0"},
        {"producer-id": "p", "producer-epoch": "-1", "producer-seq": "0"},
        {"producer-id": "p", "producer-epoch": "0", "producer-seq": "99999999999999999"},
        {"if-match": "yesterday"},
        {"stream-seq": "x" * 5000},
        {"stream-snapshot": "a b"},
    ],
)
async def test_a_malformed_append_changes_nothing(world: StreamWorld, headers: dict[str, str]) -> None:
    before = await world.put("s", JSON, "[1]")

    assert (await world.post("s", "[2]", headers)).status == 400
    assert (await world.request("HEAD", "s")).next == before.next


async def test_a_body_over_the_limit_is_too_large(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path, body_bytes_max=10) as world:
        await world.put("s", BYTES)
        assert (await world.post("s", b"x" * 11, BYTES)).status == 413
        assert (await world.post("s", b"x" * 11, {**BYTES, "content-length": "11"})).status == 413
        assert (await world.post("s", b"x" * 10, BYTES)).status == 204


# --- reads


async def test_a_read_goes_page_by_page_and_only_the_last_page_says_so(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path, page_bytes_max=30) as world:
        await world.put("s")
        for number in range(20):
            await world.post("s", str(number))
        first = await world.get("s")

        assert not first.up_to_date
        assert first.json == list(range(len(first.json)))
        assert (await world.read_all("s"))[0] == list(range(20))


async def test_an_etag_belongs_to_one_life_of_a_stream(world: StreamWorld) -> None:
    await world.put("s", TEXT)
    tag = (await world.get("s")).headers["etag"]
    assert (await world.get("s", headers={"if-none-match": tag})).status == 304
    await world.request("DELETE", "s")
    await world.put("s", TEXT)

    assert (await world.get("s", headers={"if-none-match": tag})).status == 200


async def test_an_etag_says_whether_the_answer_reached_the_end() -> None:
    """A cache keeps the headers of the answer it has: an older one says that the reader is up to date."""
    async with StreamWorld(page_bytes_max=12) as world:
        await world.put("s", TEXT, "12345")
        first = await world.get("s")
        assert first.up_to_date
        await world.post("s", "6789012345", TEXT)
        again = await world.get("s", headers={"if-none-match": first.headers["etag"]})

        assert (again.status, again.up_to_date, again.body) == (200, False, first.body)
        assert (await world.get("s", headers={"if-none-match": again.headers["etag"]})).status == 304


async def test_a_fork_of_a_deleted_stream_is_a_conflict_with_or_without_a_body(world: StreamWorld) -> None:
    await world.put("s", JSON, "[1]")
    await world.put("fork", {"stream-forked-from": "/v1/stream/s"})
    await world.request("DELETE", "s")
    for body in ("", "[2]"):
        assert (await world.put("other", {"stream-forked-from": "/v1/stream/s"}, body)).status == 409
    assert (await world.put("other", {"stream-forked-from": "/v1/stream/none"}, "[2]")).status == 404


@pytest.mark.parametrize("becomes", ["given up", "another"])
async def test_an_sse_answer_ends_in_good_order_if_its_place_is_lost(
    world: StreamWorld, monkeypatch: pytest.MonkeyPatch, becomes: str
) -> None:
    """Retention has passed a slow reader, or the path was made again: the client comes back, and is told."""
    await world.put("s", JSON, "[1]")
    await world.put("t", TEXT, "x")
    other = await world.store.byte_streams.read("t", after=0, bytes_max=100)

    async def next_page(watch: object, *, bytes_max: int) -> Page:
        if becomes == "another":
            return other
        raise StreamGone("s")

    monkeypatch.setattr(StreamWatch, "next", next_page)
    messages = [message async for message in world.messages("GET", "s", query="live=sse&offset=-1")]

    assert [message["type"] for message in messages] == ["http.response.start"] + ["http.response.body"] * 2
    assert b"data:[1]" in messages[1]["body"]
    assert (messages[2]["body"], messages[2].get("more_body", False)) == (b"", False)


async def test_no_offset_comes_again_when_a_path_does(world: StreamWorld) -> None:
    """Not after a delete, nor a restart: a reader with an old place finds the new stream from its beginning."""
    await world.put("s", JSON, "[1]")
    old = (await world.post("s", "2")).next
    await world.request("DELETE", "s")
    await world.restart()
    new = await world.put("s", JSON, "[3]")

    assert new.next > old
    assert (await world.get("s", f"offset={old}")).json == [3]


@pytest.mark.parametrize(
    ("kind", "body"), [(JSON, json.dumps("\u00e4 " * 400_000)), (TEXT, " x\r\n" * 400_000), (BYTES, bytes(1_000_001))]
)
async def test_a_large_record_is_sent_as_fast_as_it_is_taken(
    world: StreamWorld, kind: dict[str, str], body: str | bytes
) -> None:
    """Piece by piece: a reader who takes none costs no more than one of them."""
    await world.put("s", kind, body)
    sizes: list[int] = []
    events = Decoder()
    found: list[ServerSentEvent] = []
    async for message in world.messages("GET", "s", query="live=sse&offset=-1"):
        if message["type"] == "http.response.body":
            sizes.append(len(message["body"]))
            found += events.feed(message["body"])
            if len(found) == 2:
                break

    assert max(sizes) <= 3 * LARGE_BYTES  # base64, and `data:` before each line
    data, control = found
    expected = (body.encode() if isinstance(body, str) else body) if kind != JSON else f"[{body}]".encode()
    if kind == BYTES:
        assert b64decode(data.data) == expected
    else:
        assert data.data.encode() == expected.replace(b"\r\n", b"\n")
    assert control.event == "control"


@pytest.mark.parametrize("query", ["offset=-1", "offset=-1&live=long-poll"])
@pytest.mark.parametrize("more", [-3, -2, -1, 0, 1, 5])
@pytest.mark.parametrize("kind", [JSON, TEXT])
async def test_a_large_answer_is_sent_whole_in_pieces(kind: dict[str, str], more: int, query: str) -> None:
    async with StreamWorld() as world:
        text = json.dumps("x" * (2 * PIECE_BYTES_MAX - 2 + more))
        await world.put("s", kind, text)
        messages = [message async for message in world.messages("GET", "s", query=query)]
        pieces = [message["body"] for message in messages[1:]]

        assert b"".join(pieces).decode() == (f"[{text}]" if kind == JSON else text)
        assert int(dict(messages[0]["headers"])[b"content-length"]) == sum(map(len, pieces))
        assert max(map(len, pieces)) <= PIECE_BYTES_MAX + 2
        assert [message["more_body"] for message in messages[1:]] == [True] * (len(pieces) - 1) + [False]


async def test_a_large_answer_is_compressed_for_who_can_read_it(world: StreamWorld) -> None:
    await world.put("s", TEXT, "x" * 5000)
    plain = await world.get("s")
    packed = await world.get("s", headers={"accept-encoding": "gzip"})

    assert packed.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"


async def test_an_append_can_ask_for_the_tail_it_knows(world: StreamWorld) -> None:
    tail = (await world.put("s", JSON, "[1]")).next
    assert (await world.post("s", "2", {"if-match": f'"{tail}"'})).status == 204
    refused = await world.post("s", "3", {"if-match": tail})

    assert refused.status == 412
    assert refused.next == (await world.request("HEAD", "s")).next


async def test_an_append_for_a_tail_that_is_repeated_is_the_same_append(world: StreamWorld) -> None:
    """Its answer was lost: the tail has moved since, but by this very append."""
    tail = (await world.put("s", JSON, "[1]")).next
    headers = {"if-match": tail, "producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
    first = await world.post("s", "2", headers)
    await world.restart()
    again = await world.post("s", "2", headers)

    assert (first.status, again.status) == (200, 204)
    assert (await world.get("s")).json == [1, 2]


async def test_of_two_appends_for_one_tail_one_is_made(world: StreamWorld) -> None:
    tail = (await world.put("s", JSON, "[0]")).next
    answers = await asyncio.gather(*(world.post("s", str(number), {"if-match": tail}) for number in range(1, 6)))

    assert sorted(answer.status for answer in answers) == [204, 412, 412, 412, 412]
    assert len((await world.get("s")).json) == 2


async def test_a_duplicate_is_told_where_the_stream_ends(world: StreamWorld) -> None:
    producer = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}
    await world.put("s")
    first = await world.post("s", "1", producer)
    await world.restart()
    again = await world.post("s", "1", producer)

    assert (first.status, again.status) == (200, 204)
    assert first.next == again.next


async def test_retention_lets_the_oldest_go_and_says_so(world: StreamWorld) -> None:
    await world.put("s", {**JSON, "stream-retention": "records=3"})
    places = [(await world.post("s", str(number), {"stream-snapshot": "/snapshots/7"})).next for number in range(10)]
    await world.store.byte_streams.upkeep()
    gone = await world.get("s", f"offset={places[2]}")

    assert gone.status == 410
    assert gone.headers["stream-snapshot"] == "/snapshots/7"
    assert gone.headers["stream-earliest-offset"] == places[6]
    assert (await world.get("s", f"offset={places[6]}")).json == [7, 8, 9]
    assert (await world.get("s")).json == [7, 8, 9]
    await world.restart()
    assert (await world.get("s")).json == [7, 8, 9]


async def test_retention_by_time_counts_from_the_append(world: StreamWorld) -> None:
    await world.put("s", {**JSON, "stream-retention": "seconds=10"})
    await world.post("s", "1")
    world.clock.advance(11_000)
    await world.post("s", "2")
    await world.store.byte_streams.upkeep()

    assert (await world.get("s")).json == [2]


async def test_reads_keep_a_stream_alive_over_a_restart_and_cost_no_write(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("s", {**JSON, "stream-ttl": "20"})
        written = world.store._database.changes
        world.clock.advance(15_000)
        await world.get("s")
        assert world.store._database.changes == written
        await world.store.byte_streams.upkeep()
        await world.restart()
        world.clock.advance(15_000)
        assert (await world.request("HEAD", "s")).status == 200
        world.clock.advance(20_000)
        assert (await world.request("HEAD", "s")).status == 404


async def test_retention_by_size_keeps_at_least_so_many_bytes(world: StreamWorld) -> None:
    await world.put("s", {**TEXT, "stream-retention": "bytes=10"})
    for letter in "abcdef":
        await world.post("s", letter * 4, TEXT)
    await world.store.byte_streams.upkeep()

    assert (await world.get("s")).body == b"ddddeeeeffff"


@pytest.mark.parametrize("query", ["", "&live=long-poll", "&live=sse"])
async def test_a_place_that_was_given_up_is_gone_in_every_way_of_reading(world: StreamWorld, query: str) -> None:
    first = await world.put("s", {**JSON, "stream-retention": "records=1"}, "[1]")
    await world.post("s", "2")
    await world.post("s", "3")
    await world.store.byte_streams.upkeep()

    gone = await world.get("s", f"offset={first.next}{query}")
    assert (gone.status, "stream-earliest-offset" in gone.headers) == (410, True)
    fork = {"stream-forked-from": "/v1/stream/s", "stream-fork-offset": first.next}
    assert (await world.put("f", fork)).status == 410


async def test_what_a_fork_inherits_is_kept_while_it_lives(world: StreamWorld) -> None:
    await world.put("s", {**JSON, "stream-retention": "records=1"}, "[1]")
    await world.post("s", "2")
    await world.put("f", {"stream-forked-from": "/v1/stream/s"})
    await world.post("s", "3")
    await world.post("s", "4")
    await world.store.byte_streams.upkeep()
    assert (await world.get("f")).json == [1, 2]

    await world.request("DELETE", "f")
    await world.post("s", "5")
    await world.store.byte_streams.upkeep()
    assert (await world.get("s")).json == [5]


# --- live reads


async def test_a_live_reader_gets_the_last_data_before_the_end(world: StreamWorld) -> None:
    await world.put("s")
    async with world.sse("s", "offset=now") as reader:
        assert "upToDate" in (await reader.frame() or "")
        await world.post("s", "1", {"stream-closed": "true"})
        frame = await reader.frame() or ""
        assert frame.startswith("event: data\ndata:[1]\n\nevent: control\n")
        assert "streamClosed" in frame
        assert await reader.frame() is None


async def test_a_reader_that_fell_behind_gets_everything_once(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path) as world:
        await world.put("s", BYTES)
        async with world.sse("s", "offset=-1") as reader:
            await reader.frame()
            for number in range(40):
                await world.post("s", bytes([number]) * 60_000, BYTES)
            import base64

            got = b""
            while len(got) < 40 * 60_000:
                frame = await reader.frame() or ""
                got += base64.b64decode(frame.split("data:", 1)[1].split("\n", 1)[0])
        assert got == b"".join(bytes([number]) * 60_000 for number in range(40))


async def test_an_sse_read_ends_by_itself_and_an_event_source_resumes(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path, sse_seconds=0.05) as world:
        await world.put("s", JSON, "[1]")
        async with world.sse("s", "offset=-1") as reader:
            first = await reader.frame() or ""
            while await reader.frame() is not None:
                pass
        await world.post("s", "2")
        last_id = first.split("\nid:")[1].split("\n")[0]
        async with world.sse("s", "offset=-1", {"last-event-id": last_id}) as reader:
            assert "data:[2]\n" in (await reader.frame() or "")


async def test_a_deleted_stream_lets_its_readers_go(world: StreamWorld) -> None:
    await world.put("s")
    async with world.sse("s", "offset=now") as reader:
        await reader.frame()
        waiting = asyncio.ensure_future(world.get("s", "live=long-poll&offset=now"))
        await asyncio.sleep(0)
        await world.request("DELETE", "s")
        assert await reader.frame() is None
        assert (await waiting).status == 404


@pytest.mark.parametrize("bytes_max", [1000, 1])
async def test_readers_at_the_same_place_share_one_page(world: StreamWorld, bytes_max: int) -> None:
    """Also of a record that is larger than a page."""
    await world.put("s")
    streams = world.store.byte_streams
    first, second = [await streams.watch("s", after=0) for _ in range(2)]
    await world.post("s", "1")

    assert await first.next(bytes_max=bytes_max) is await second.next(bytes_max=bytes_max)
    first.close()
    second.close()


# --- who may


def credential(token: str, **rights: Any) -> StreamCredential:
    from hashlib import sha256

    return StreamCredential(name=token, token_sha256=sha256(token.encode()).hexdigest(), **rights)


async def test_a_credential_is_good_for_its_paths_and_rights_only(tmp_path: Path) -> None:
    credentials = (credential("reader", read=("logs/",)), credential("writer", append=("logs/a",), create=("logs/",)))
    async with StreamWorld(tmp_path, credentials=credentials) as world:

        async def status(token: str, method: str, path: str, **headers: str) -> int:
            headers = {**JSON, "authorization": f"Bearer {token}", **headers}
            return (await world.request(method, path, headers, b"[1]" if method == "POST" else b"")).status

        assert await status("writer", "PUT", "logs/a") == 201
        assert await status("writer", "POST", "logs/a") == 204
        assert await status("writer", "GET", "logs/a") == 403
        assert await status("writer", "PUT", "other") == 403
        assert await status("reader", "GET", "logs/a") == 200
        assert await status("reader", "POST", "logs/a") == 403
        assert await status("reader", "DELETE", "logs/a") == 403
        assert await status("reader", "GET", "__ds/subscriptions/x") == 403
        forking = {"stream-forked-from": "/v1/stream/logs/a"}
        assert await status("writer", "PUT", "logs/b", **forking) == 403


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "__ds/links"), ("PUT", "__ds/subscriptions/x"), ("GET", "__ds/jwks.json")]
)
async def test_no_credential_is_good_for_subscriptions_keys_and_links(tmp_path: Path, method: str, path: str) -> None:
    """Whoever may delete every stream may not read one, so may not have a link to read it, nor be sent what is in it."""
    rights: dict[str, Any] = {"append": ("",), "create": ("",), "delete": ("",)}
    async with StreamWorld(tmp_path, credentials=(credential("all but read", **rights),)) as world:
        headers = {**JSON, "authorization": "Bearer all but read"}
        assert (await world.request("PUT", "s", headers)).status == 201

        answer = await world.request(method, path, headers, b'{"path": "s", "type": "pull-wake", "wake_stream": "s"}')

        assert (answer.status, b"password" in answer.body) == (403, True)


async def test_a_credential_may_be_for_sessions(tmp_path: Path) -> None:
    credentials = (credential("one", read=("session/ses_one",)), credential("all", read=("session/", "all")))
    async with StreamWorld(tmp_path, credentials=credentials) as world:
        for id in ("ses_one", "ses_two"):
            await world.store.append(id, Story(id).prompted())

        async def status(token: str, path: str) -> int:
            return (await world.get(path, headers={"authorization": f"Bearer {token}"})).status

        assert [await status("one", f"session/{id}") for id in ("ses_one", "ses_two")] == [200, 403]
        assert [await status("one", path) for path in ("session/ses_one/chat/msg_u1", "all")] == [200, 403]
        assert [await status("all", path) for path in ("session/ses_two", "all")] == [200, 200]
        assert await status("all", f"directory/{directory_id(Story().info.directory)}") == 403


@pytest.mark.parametrize(
    ("path", "vouched"),
    [
        ("__ds/subscriptions/s/callback", True),
        ("__ds/subscriptions/s/ack", True),
        ("__ds/subscriptions/s/claim", False),
        ("__ds/subscriptions/s/streams/a/callback", False),
        ("__ds/subscriptions/s", False),
        ("s/callback", False),
    ],
)
async def test_only_what_checks_a_token_itself_goes_without_the_password(path: str, vouched: bool) -> None:
    async with StreamWorld() as world:
        scope = {"method": "POST", "raw_path": f"/v1/stream/{path}".encode(), "query_string": b"link=x"}
        assert world.face.vouches_for(scope, {b"authorization": b"Bearer x"}) == vouched
        assert not world.face.vouches_for(scope, {b"authorization": b"Basic eDp4"})
        assert not world.face.vouches_for(scope, {})


async def test_a_page_of_another_origin_can_read_the_headers(world: StreamWorld) -> None:
    await world.put("s")
    answer = await world.get("s", headers={"origin": "https://app.example"})

    assert "Stream-Next-Offset" in answer.headers["access-control-expose-headers"]
    assert "Stream-SSE-Data-Encoding" in answer.headers["access-control-expose-headers"]


async def test_a_watched_stream_does_not_expire(world: StreamWorld) -> None:
    await world.put("s", {**JSON, "stream-ttl": "5"})
    async with world.sse("s", "offset=now") as reader:
        await reader.frame()
        for _ in range(3):
            world.clock.advance(4_000)
            await world.store.byte_streams.upkeep()
        world.clock.advance(6_000)
        assert (await world.request("HEAD", "s")).status == 200
    world.clock.advance(4_000)
    assert (await world.request("HEAD", "s")).status == 200
    world.clock.advance(2_000)
    assert (await world.request("HEAD", "s")).status == 404


async def test_a_client_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with StreamWorld(tmp_path, requests_per_second=2) as world:
        answers = [await world.get("s") for _ in range(4)]

        assert [answer.status for answer in answers] == [404, 404, 429, 429]
        assert int(answers[-1].headers["retry-after"]) >= 1


async def test_each_credential_has_a_rate_of_its_own(tmp_path: Path) -> None:
    credentials = (credential("one", read=("",)), credential("two", read=("",)))
    async with StreamWorld(tmp_path, requests_per_second=1, credentials=credentials) as world:
        answers = [
            await world.get("s", headers={"authorization": f"Bearer {token}"}) for token in ("one", "one", "two")
        ]

        assert [answer.status for answer in answers] == [404, 429, 404]


async def test_every_answer_has_the_security_headers(world: StreamWorld) -> None:
    await world.put("s")
    for answer in (await world.get("s"), await world.get("none"), await world.get("a//b"), await world.post("s", "[")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_json_is_stored_as_it_came(world: StreamWorld) -> None:
    await world.put("s")
    await world.post("s", '[ {"a" : 1.0e1 },\n 2 ]')

    assert (await world.get("s")).body == b'[{"a" : 1.0e1 },\n 2]'
    assert json.loads((await world.get("s")).body) == [{"a": 10.0}, 2]
