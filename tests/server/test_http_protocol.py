"""What a connection may cost before anybody looks at a request: raw bytes over a socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.server.http_protocol import HEAD_BYTES_MAX, HttpProtocol
from holdfast.testing.loop_time import let_pass
from tests.server.harness import Server

HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
READ = b"GET /v1/stream/s HTTP/1.1\r\n" + HOST
APPEND = b"POST /v1/stream/s HTTP/1.1\r\n" + HOST + JSON
IDLE_SECONDS = 5.0


class Wire:
    """`talk` sends pieces, each by itself, and gives all that comes back until the server closes the connection. `and_no_more`:
    the server has heard them, and then so much time passes."""

    def __init__(self, server: Server, url: str) -> None:
        self.server = server
        self.port = int(url.rpartition(":")[2])

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def talk(self, *pieces: bytes, and_no_more: float = 0) -> bytes:
        reader, writer = await self.open()
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            if and_no_more:
                await heard()
                let_pass(and_no_more)
            async with asyncio.timeout(60):
                return await reader.read()
        except ConnectionError:
            return b"reset"
        finally:
            writer.close()

    async def messages(self) -> list[int]:
        return (await self.server.api.get("/v1/stream/s")).json()


async def heard() -> None:
    """Turns of the loop, in which the server reads what was sent, and answers what can be answered."""
    for _ in range(50):
        await asyncio.sleep(0.001)


@pytest.fixture
async def wire(tmp_path: Path) -> AsyncIterator[Wire]:
    async with Server(tmp_path) as server:
        await server.api.put("/v1/stream/s", headers={"content-type": "application/json"}, content="[1]")
        yield Wire(server, await server.listen())


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpProtocol, "idle_seconds", IDLE_SECONDS)


def head_of(size: int) -> bytes:
    """A request whose head has about that many bytes, in many headers."""
    line = b"X-A: " + b"a" * 500 + b"\r\n"
    return READ + b"Connection: close\r\n" + line * (size // len(line)) + b"\r\n"


async def test_a_head_as_large_as_allowed_is_read(wire: Wire) -> None:
    assert (await wire.talk(head_of(HEAD_BYTES_MAX - 2000))).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("piece", [1000, 50_000, 1 << 20])
async def test_a_head_that_is_too_large_is_refused_however_it_comes(wire: Wire, piece: int) -> None:
    head = head_of(HEAD_BYTES_MAX + 2000)
    pieces = [head[at : at + piece] for at in range(0, len(head), piece)]

    answer = await wire.talk(*pieces)

    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b"reset", answer[:100]


async def test_one_header_without_an_end_is_refused(wire: Wire) -> None:
    answer = await wire.talk(READ + b"X-A: ", *([b"a" * 65_536] * 20))

    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b"reset", answer[:100]


async def test_a_large_body_is_no_head(wire: Wire) -> None:
    """Nor is what follows it on the same connection."""
    text = b'"' + b"x" * 500_000 + b'"'
    request = APPEND + b"Content-Length: %d\r\n\r\n" % len(text) + text
    last = APPEND + b"Connection: close\r\nContent-Length: 1\r\n\r\n5"

    answer = await wire.talk(request + request + last[:30], last[30:60], last[60:])

    assert [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP")] == [b"HTTP/1.1 204 No Content"] * 3
    assert len(await wire.messages()) == 4


@pytest.mark.parametrize(
    "pieces",
    [[READ], [READ[:20]], [APPEND + b"Content-Length: 10\r\n\r\n", b"[1,"],
     [APPEND + b"Transfer-Encoding: chunked\r\n\r\n5\r\n[1"], [READ + b"\r\n", b"GET"]],
    ids=["head", "first line", "body", "chunk", "second request"],
)  # fmt: skip
async def test_a_request_that_does_not_go_on_is_given_up(wire: Wire, impatient: None, pieces: list[bytes]) -> None:
    answer = await wire.talk(*pieces, and_no_more=IDLE_SECONDS)

    assert b"HTTP/1.1 408 Request Timeout" in answer
    assert await wire.messages() == [1]


@pytest.mark.parametrize("pieces", [[], [b"\r\n"]])
async def test_a_connection_without_a_request_is_closed_without_a_word(
    wire: Wire, impatient: None, pieces: list[bytes]
) -> None:
    assert await wire.talk(*pieces, and_no_more=IDLE_SECONDS) == b""


async def test_a_head_that_comes_in_drops_is_given_up(wire: Wire, impatient: None) -> None:
    """With a 408; who writes on after it may see a reset instead."""
    reader, writer = await wire.open()
    answering = asyncio.ensure_future(reader.read())
    async with asyncio.timeout(60):
        for byte in READ + b"X-A: " + b"a" * 2000:
            if answering.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.001)
            let_pass(IDLE_SECONDS / 100)
        with contextlib.suppress(ConnectionError):
            assert b"408" in await answering
    writer.close()


@pytest.mark.parametrize("path", [b"s", b"%2e%2e"], ids=["read", "refused before it was read"])
async def test_a_body_that_comes_in_drops_is_given_up(wire: Wire, impatient: None, path: bytes) -> None:
    """With a 408, if nothing was answered yet; who writes on after it may see a reset instead."""
    reader, writer = await wire.open()
    writer.write(APPEND.replace(b"/s ", b"/" + path + b" ") + b"Content-Length: 5000\r\n\r\n[")
    answering = asyncio.ensure_future(reader.read())
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            while not answering.done():
                writer.write(b" ")
                await asyncio.sleep(0.001)
                let_pass(IDLE_SECONDS / 100)
            assert (b"408" if path == b"s" else b"400") in await answering
    writer.close()
    assert await wire.messages() == [1]


async def test_a_body_that_comes_slowly_but_well_enough_is_read(
    wire: Wire, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpProtocol, "body_bytes_per_second", 10)
    reader, writer = await wire.open()
    writer.write(APPEND + b"Connection: close\r\nContent-Length: 201\r\n\r\n7")
    async with asyncio.timeout(60):
        for _ in range(10):
            writer.write(b" " * 20)
            await heard()
            let_pass(IDLE_SECONDS / 5)
        assert (await reader.read()).startswith(b"HTTP/1.1 204 ")
    writer.close()
    assert await wire.messages() == [1, 7]


async def test_the_body_of_a_slow_reader_of_ours_is_not_given_up(wire: Wire, impatient: None) -> None:
    """A request that waits for its turn behind an answer under way: it is we who do not read on."""
    reader, writer = await wire.open()
    writer.write(b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\n" + HOST + b"\r\n")
    async with asyncio.timeout(60):
        await reader.readuntil(b"upToDate")
        writer.write(APPEND + b"Content-Length: 3\r\n\r\n[")
        await heard()
        let_pass(3 * IDLE_SECONDS)
        await heard()
        await wire.server.api.post("/v1/stream/s", headers={"content-type": "application/json"}, content="2")
        await reader.readuntil(b"[2]")
    writer.close()


@pytest.mark.parametrize(
    "pieces", [[b"0\r\n"] + [b"X-A: " + b"a" * 5000 + b"\r\n"] * 200, [b"0\r\nX-A: "] + [b"a" * 50_000] * 20,
               [b"1;x="] + [b"a" * 50_000] * 20],
    ids=["trailers", "one trailer", "extension of a chunk"],
)  # fmt: skip
async def test_what_comes_with_a_body_is_bounded_like_a_head(wire: Wire, pieces: list[bytes]) -> None:
    answer = await wire.talk(APPEND + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[2]\r\n", *pieces)

    assert answer.startswith(b"HTTP/1.1 431 ") or answer == b"reset", answer[:100]
    assert await wire.messages() == [1]


async def test_a_trailer_is_no_header(wire: Wire) -> None:
    answer = await wire.talk(
        APPEND + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\n[2]\r\n0\r\nStream-Closed: true\r\n\r\n"
    )

    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"stream-closed" not in answer.lower()


async def test_who_waits_for_an_answer_is_not_given_up(wire: Wire, impatient: None) -> None:
    """A long-poll sends nothing; nor does an event stream."""
    reader, writer = await wire.open()
    writer.write(b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\n" + HOST + b"\r\n")
    async with asyncio.timeout(60):
        await reader.readuntil(b"upToDate")
        let_pass(3 * IDLE_SECONDS)
        await heard()
        await wire.server.api.post("/v1/stream/s", headers={"content-type": "application/json"}, content="2")
        await reader.readuntil(b"[2]")
    writer.close()


async def test_garbage_after_a_request_does_not_get_into_its_answer(wire: Wire) -> None:
    answer = await wire.talk(
        b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\n" + HOST + b"\r\n", b"\x00 no request\r\n\r\n"
    )

    assert answer.count(b"HTTP/1.1 ") <= 1


async def test_garbage_after_a_request_that_waits_for_its_turn_does_not_get_into_an_answer_under_way(
    wire: Wire,
) -> None:
    reader, writer = await wire.open()
    writer.write(b"GET /v1/stream/s?offset=-1&live=sse HTTP/1.1\r\n" + HOST + b"\r\n")
    async with asyncio.timeout(60):
        await reader.readuntil(b"upToDate")
        writer.write(READ + b"\r\n" + b"\x00 no request\r\n\r\n")
        assert b"HTTP/1.1 " not in await reader.read()
    writer.close()


@pytest.mark.parametrize(
    "head",
    [b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n", b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\n[1]"],
)  # fmt: skip
async def test_a_body_that_would_have_to_be_decoded_is_refused(wire: Wire, head: bytes) -> None:
    answer = await wire.talk(APPEND + b"Connection: close\r\n" + head)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"gzip" in answer
    assert await wire.messages() == [1]


async def test_two_hosts_are_none(wire: Wire) -> None:
    answer = await wire.talk(b"GET /session HTTP/1.1\r\nHost: evil.example\r\n" + HOST + b"Connection: close\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 400 ")
