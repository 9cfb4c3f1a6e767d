"""Any request on streams gets an answer with a reason: never a 500, never a traceback, and what was stored stays readable."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.server.streams.world import JSON, StreamWorld

OFFSETS = st.sampled_from(
    [
        "-1",
        "now",
        "",
        "0" * 16 + "_" + "0" * 16,
        "9" * 16 + "_" + "9" * 16,
        "0000000000000001_0000000000000007",
        "x",
        "-2",
    ]
)
PATHS = st.sampled_from(
    [
        "s",
        "t",
        "a/b",
        "all",
        "session/x",
        "directory/eA",
        "__ds",
        "__ds/x",
        "__ds/jwks.json",
        "__ds/subscriptions/",
        "__ds/subscriptions/s",
        "__ds/subscriptions/s/streams",
        "__ds/subscriptions/s/streams/a%2Fb",
        "__ds/subscriptions/s/claim",
        "__ds/subscriptions/s/ack",
        "__ds/subscriptions/s/release",
        "__ds/subscriptions/s/callback",
        "__ds/subscriptions/s/other",
        "%",
        "%zz",
        "a%2f..%2fb",
        "..;",
    ]
) | st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace").decode("latin-1"))
METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "FOO"])
NUMBERS = st.sampled_from(["0", "1", "2", "-1", "99999999999999999999", "1.5", "", "x"])
LINE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "text/plain", "APPLICATION/JSON; charset=utf-8", "x", ""])
        | LINE,
        "content-length": st.sampled_from(["0", "3"]),
        "stream-closed": st.sampled_from(["true", "TRUE", "no"]),
        "stream-ttl": NUMBERS,
        "stream-expires-at": st.sampled_from(
            ["2030-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "x"]
        ),
        "stream-seq": LINE,
        "stream-forked-from": st.sampled_from(["/v1/stream/s", "/v1/stream/t", "s", "/v1/stream/session/x", "/", "%ff"])
        | LINE,
        "stream-fork-offset": OFFSETS,
        "stream-fork-sub-offset": NUMBERS,
        "producer-id": LINE,
        "producer-epoch": NUMBERS,
        "producer-seq": NUMBERS,
        "if-match": OFFSETS,
        "if-none-match": LINE,
        "last-event-id": OFFSETS,
        "stream-retention": st.sampled_from(["records=1", "bytes=1,seconds=1", "records=", "x=1"]) | LINE,
        "stream-snapshot": LINE,
        "authorization": st.sampled_from(["Bearer x", "Bearer x.y", "Bearer .", "Basic eA==", "Bearer"]) | LINE,
        "accept-encoding": st.just("gzip"),
    },
)
BODIES = st.sampled_from(
    [
        b"",
        b"[]",
        b"1",
        b"[1,[2],{}]",
        b"{",
        b"\xff",
        b'{"type":"pull-wake","pattern":"*","wake_stream":"t"}',
        b'{"worker":"w"}',
        b"null",
        b'{"streams":["a"]}',
        b'{"wake_id":"w","generation":1,"acks":[{"stream":"s","offset":"x"}],"done":true}',
        b'{"acks":1}',
    ]
) | st.binary(max_size=20)
QUERIES = st.tuples(
    OFFSETS,
    st.sampled_from(["", "&live=sse", "&live=long-poll", "&live=x"]),
    st.sampled_from(["", "&cursor=x", "&cursor=9"]),
).map(lambda parts: f"offset={parts[0]}{parts[1]}{parts[2]}") | st.text(st.characters(max_codepoint=127), max_size=10)
REQUESTS = st.lists(st.tuples(METHODS, PATHS, HEADERS, BODIES, QUERIES), min_size=1, max_size=8)


@given(REQUESTS)
@settings(max_examples=200)
def test_no_request_breaks_the_server(requests: list[tuple[str, str, dict[str, str], bytes, str]]) -> None:
    asyncio.run(_no_request_breaks(requests))


async def _no_request_breaks(requests: list[Any]) -> None:
    async with StreamWorld(long_poll_seconds=0.001, sse_seconds=0.001) as world:
        await world.put("s", JSON, "[1]")
        for method, path, headers, body, query in requests:
            answer = await world.request(method, path, headers, body, query=query)
            assert 200 <= answer.status < 500, (method, path, headers, body, query, answer)
        await world.store.byte_streams.upkeep()
        for path, _ in await world.store.byte_streams.paths():
            head = await world.store.byte_streams.head(path)
            if head.is_json:
                assert isinstance((await world.store.byte_streams.read(path, after=0, bytes_max=1 << 20)).data, bytes)
