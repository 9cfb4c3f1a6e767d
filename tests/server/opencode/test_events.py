import asyncio
import tempfile
import weakref
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.events import PermissionAsked
from holdfast.core.offsets import BEGINNING, to_offset
from holdfast.core.store import ALL, Recorded
from holdfast.server.asgi import PIECE_BYTES_MAX, HttpScope, Message, Receive, Send
from holdfast.server.listener import Listener
from holdfast.server.opencode.events import Connection, Frames
from holdfast.testing.scripted_provider import Stall, call, reasoning, text
from tests.server.harness import Body, Frame, Server, prompt, texts

STORY = [
    [*reasoning("Let me see. "), *text("I look. "), *call("read", {"filePath": "."})],
    text("There is nothing at all."),
]


async def recorded(server: Server) -> list[tuple[str, bytes]]:
    return [(str(r.offset), r.data) for r in await server.application.store.read(ALL, after=BEGINNING, limit=10_000)]


async def test_the_headers_are_those_clients_and_proxies_expect(server: Server):
    await server.listen()
    for path in ("/event", "/global/event"):
        async with server.events(path) as stream:
            headers = stream.response.headers
            assert stream.response.status_code == 200
            assert headers["content-type"] == "text/event-stream"
            assert headers["cache-control"] == "no-cache, no-transform"
            assert headers["x-accel-buffering"] == "no"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["vary"] == "Origin"
            assert headers["transfer-encoding"] == "chunked"


async def test_a_stream_greets_then_tells_what_is_recorded_byte_by_byte(server: Server):
    server.provider.add(text("Hi there."))
    await server.listen()
    async with server.events() as stream:
        assert (await stream.next()).json["type"] == "server.connected"
        await server.prompt(await server.session())
        frames = await stream.until("session.idle")

    assert [(frame.id, frame.data) for frame in frames if frame.id is not None] == await recorded(server)


async def test_the_global_stream_wraps_the_same_bytes(server: Server):
    await server.listen()
    async with server.events("/global/event") as stream:
        hello = await stream.next()
        await server.session()
        frame = await stream.next()

    [(offset, data)] = await recorded(server)
    assert hello.json["payload"]["type"] == "server.connected"
    assert hello.json.keys() == {"payload"}
    assert frame.id == offset
    assert frame.data == b'{"directory":"%b","project":"global","payload":%b}' % (str(server.directory).encode(), data)


async def test_a_stream_is_of_its_directory_and_the_global_one_of_all(server: Server, tmp_path: Path):
    other = tmp_path / "ö ther"
    other.mkdir()
    await server.listen()
    async with (
        server.events(params={"directory": str(other)}) as by_query,
        server.events(headers={"x-opencode-directory": quote(str(other))}) as by_header,
        server.events() as default,
        server.events("/global/event") as everything,
    ):
        here = await server.session()
        there = (await server.api.post("/session", params={"directory": str(other)})).json()["id"]
        for stream, expected in (
            (by_query, [there]),
            (by_header, [there]),
            (default, [here]),
            (everything, [here, there]),
        ):
            await stream.next()
            for id in expected:
                event = (await stream.next()).json
                assert event.get("payload", event)["properties"]["sessionID"] == id


async def test_a_stream_can_be_of_one_session(server: Server):
    mine, _ = await server.session(), await server.session()
    await server.listen()
    async with server.events(params={"session": mine, "after": BEGINNING}) as stream:
        await stream.next()
        assert (await stream.next()).json["properties"]["sessionID"] == mine
        await server.session()
        await server.prompt(mine, noReply=True)
        assert (await stream.next()).json["type"] == "session.updated"
        await server.api.delete(f"/session/{mine}")
        assert [frame.type for frame in await stream.until("session.deleted")][-1] == "session.deleted"
        with pytest.raises(StopAsyncIteration):
            await stream.next()


async def test_the_stream_of_a_session_that_never_was_is_refused(server: Server):
    for after in ("", BEGINNING):
        answer = await server.api.get("/event", params={"session": "ses_none", "after": after})
        assert answer.status_code == 404


@pytest.mark.parametrize("how", ["Last-Event-ID", "after"])
async def test_from_every_id_a_client_resumes_with_exactly_what_follows(server: Server, how: str):
    for script in STORY:
        server.provider.add(script)
    await server.prompt(await server.session())
    log = await recorded(server)
    await server.listen()

    for place, (offset, _) in enumerate([(BEGINNING, b""), *log[:-1]]):
        resume = {how: str(offset)}
        by_header = how == "Last-Event-ID"
        async with server.events(headers=resume if by_header else {}, params={} if by_header else resume) as stream:
            hello = await stream.next()
            assert (hello.type, hello.id) == ("server.connected", None)
            frames = [await stream.next() for _ in log[place:]]
        assert [(frame.id, frame.data) for frame in frames] == log[place:]


async def test_the_header_of_a_reconnect_counts_more_than_the_url_of_the_connect(server: Server):
    for _ in range(3):
        await server.session()
    log = await recorded(server)
    await server.listen()
    async with server.events(params={"after": BEGINNING}, headers={"Last-Event-ID": log[1][0]}) as stream:
        await stream.next()
        assert (await stream.next()).id == log[2][0]


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(min_value=1, max_value=12), max_size=8), on_disk=st.booleans())
async def test_a_client_that_is_cut_off_anywhere_and_resumes_has_every_event_once_and_in_order(
    cuts: list[int], on_disk: bool
):
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder, "work")
        work.mkdir()
        async with Server(work, Path(folder, "data") if on_disk else None, STORY) as server:
            await server.listen()
            session = await server.session()
            turn = asyncio.create_task(server.prompt(session))
            seen: list[Frame] = []
            for cut in [*cuts, 1_000_000]:
                resume = {"Last-Event-ID": seen[-1].id or ""} if seen else {"Last-Event-ID": BEGINNING}
                async with server.events(headers=resume) as stream:
                    await stream.next()
                    for _ in range(cut):
                        if seen and seen[-1].type == "session.idle":
                            break
                        seen.append(await stream.next())
            await turn
            assert [(frame.id, frame.data) for frame in seen] == await recorded(server)


@pytest.mark.parametrize("bad", ["nonsense", "12", "0000000000000042", "-1", "0" * 500, "０" * 16 + "_" + "0" * 16])
async def test_an_id_that_this_server_never_sent_is_refused(server: Server, bad: str):
    answer = await server.api.get("/event", params={"after": bad})

    assert answer.status_code == 400
    assert answer.json()["name"] == "BadRequest"


# --- snapshots --------------------------------------------------------------------------------------------------


async def opening(stream: object) -> list[Frame]:
    """All frames up to the one with an id."""
    frames: list[Frame] = []
    while not frames or frames[-1].id is None:
        frames.append(await stream.next())  # type: ignore[attr-defined]
    return frames


async def test_without_an_id_the_present_state_comes_before_what_happens_next(server: Server):
    stall = Stall()
    server.provider.add([*text("streamed so far "), stall, *text("and the rest")])
    session = await server.session()
    waiting = asyncio.create_task(server.prompt(session))
    await server.recorded("message.part.delta", 3)
    await server.listen()
    async with server.events() as stream:
        frames = await opening(stream)
        stall.release()
        live = await stream.until("session.idle")
    await waiting

    assert [frame.type for frame in frames] == [
        "server.connected",
        "session.updated",
        "message.updated",
        "message.part.updated",
        "message.updated",
        "message.part.updated",
        "message.part.updated",
        "session.status",
        "server.heartbeat",
    ]
    assert frames[-3].json["properties"]["part"]["text"] == "streamed so far "
    assert frames[-2].json["properties"]["status"] == {"type": "busy"}
    assert [(frame.id, frame.data) for frame in live] == [
        e for e in await recorded(server) if e[0] > (frames[-1].id or "")
    ]


async def test_a_client_that_missed_the_end_of_a_turn_sees_it_whole_and_idle_when_it_comes_back(server: Server):
    """What heals the stock TUI: it knows the message with half its text, and never asks again."""
    server.provider.add(text("All of it."))
    session = await server.session()
    await server.prompt(session)
    await server.listen()
    async with server.events("/global/event") as stream:
        frames = await opening(stream)

    payloads = [frame.json["payload"] for frame in frames[1:-1]]
    assert {frame.json["directory"] for frame in frames[1:-1]} == {str(server.directory)}
    [answer] = [p["properties"]["info"] for p in payloads if p["type"] == "message.updated"][1:]
    assert answer["time"]["completed"]
    parts = [p["properties"]["part"] for p in payloads if p["type"] == "message.part.updated"]
    assert [part["text"] for part in parts if part["type"] == "text"] == ["Hello", "All of it."]
    assert payloads[-1] == {
        "id": payloads[-1]["id"],
        "type": "session.status",
        "properties": {"sessionID": session, "status": {"type": "idle"}},
    }


async def test_only_the_last_frame_before_the_live_ones_is_a_place_to_resume_from(server: Server):
    await server.prompt(await server.session(), noReply=True)
    await server.listen()
    async with server.events() as stream:
        frames = await opening(stream)
        resume = frames[-1].id
    await server.session()
    async with server.events(headers={"Last-Event-ID": resume or ""}) as stream:
        await stream.next()
        assert (await stream.next()).type == "session.created"

    assert all(frame.id is None for frame in frames[:-1])
    assert resume == (await recorded(server))[-2][0]


async def test_with_nothing_to_show_the_greeting_itself_is_a_place_to_resume_from(server: Server):
    await server.listen()
    async with server.events() as stream:
        hello = await stream.next()
    await server.session()
    async with server.events(headers={"Last-Event-ID": hello.id or ""}) as stream:
        await stream.next()
        assert (await stream.next()).type == "session.created"


async def test_an_id_from_beyond_the_end_of_the_log_gets_the_present_state(server: Server):
    await server.session()
    await server.listen()
    async with server.events(headers={"Last-Event-ID": "9999999999999999_0000000000000000"}) as stream:
        assert [frame.type for frame in await opening(stream)][1] == "session.updated"


async def test_what_waits_for_the_user_is_shown_again(server: Server):
    session = await server.session()
    asked = PermissionAsked(
        session_id=session, id="per_1", permission="bash", patterns=("ls",), metadata={}, always=("ls *",)
    )
    await server.application.store.append(session, [asked])
    await server.listen()
    async with server.events() as stream:
        frames = await opening(stream)

    [again] = [frame.json for frame in frames if frame.type == "permission.asked"]
    assert again["properties"] == (await server.api.get("/permission")).json()[0]


# --- the life of a stream ---------------------------------------------------------------------------------------


async def test_nothing_gets_into_a_large_event():
    """It is sent piece by piece; a heartbeat waits for its end."""
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message["body"])
        await asyncio.sleep(0)

    connection = Connection(send, ALL, Frames(lambda event, directory, project: event))
    large = b"x" * (3 * PIECE_BYTES_MAX)
    await asyncio.gather(connection.send(large), connection.tell(b"{}"))

    assert len(sent) > 3
    assert b"".join(sent) == large + b"data: {}\n\n"


async def test_slow_readers_share_a_large_event_for_as_long_as_it_is_sent():
    frames = Frames(lambda event, directory, project: event)
    record = Recorded(to_offset(1), "ses_a", "/d", "p", 1, "t", b"x" * (2 * Frames.BATCH_BYTES_MAX))
    first = frames.of(ALL, [record])
    assert frames.of(ALL, [record]) is first

    gone = weakref.ref(first)
    del first
    assert gone() is None


async def test_heartbeats_come_at_their_pace_and_are_no_place_to_resume_from(tmp_path: Path):
    async with Server(tmp_path, heartbeat_seconds=0.01) as server:
        await server.listen()
        async with server.events("/global/event") as stream:
            await stream.next()
            beats = [await stream.next() for _ in range(3)]

    assert [beat.json["payload"]["type"] for beat in beats] == ["server.heartbeat"] * 3
    assert [beat.id for beat in beats] == [None] * 3


async def test_a_reader_that_takes_nothing_holds_up_nobody_and_loses_nothing(server: Server):
    await server.listen()
    reader, writer = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"), limit=1024)
    writer.write(b"GET /event HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    await writer.drain()
    body = Body()
    body.feed(await reader.readuntil(b"\r\n\r\n"))
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    session = await server.session()
    async with server.events() as quick:
        await opening(quick)
        for _ in range(40):
            await server.prompt(session, "x" * 100_000, noReply=True)
            await quick.until("message.part.updated")
    writer.transport.resume_reading()  # type: ignore[attr-defined]
    log = await recorded(server)
    seen: list[bytes] = []
    while len(seen) < len(log):
        data = await reader.read(1 << 16)
        assert data, "the stream is over"
        body.feed(data)
        *whole, _ = body.read.split(b"\n\n")
        seen = [frame for frame in whole if frame.startswith(b"id: ") and b'"type":"server.' not in frame]
    writer.close()

    assert seen == [b"id: %b\ndata: %b" % (offset.encode(), data) for offset, data in log]


async def test_a_stream_whose_client_went_away_is_over(server: Server):
    over = asyncio.Event()

    async def app(scope: HttpScope, receive: Receive, send: Send) -> None:
        await server.application.asgi(scope, receive, send)
        over.set()

    async with Listener(app, "127.0.0.1", 0) as listener:
        server.url = listener.url
        async with server.events() as stream:
            await stream.next()
            assert not over.is_set()
        async with asyncio.timeout(60):
            await over.wait()


async def test_a_stop_of_the_server_ends_streams_in_good_order_after_their_last_event(server: Server):
    stall = Stall()
    server.provider.add([*text("so far "), stall])
    await server.listen()
    async with server.events() as stream:
        await stream.next()
        session = await server.session()
        await server.api.post(f"/session/{session}/prompt_async", json=prompt())
        await stall.reached.wait()
        await server.application.stop()
        frames = await stream.until("turn.suspended")
        with pytest.raises(StopAsyncIteration):
            await stream.next()

    assert [(frame.id, frame.data) for frame in frames][-1][1].find(session.encode()) > 0


async def test_head_answers_the_headers_of_a_stream_and_ends(server: Server):
    answer = await server.api.head("/event")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.content == b""


async def test_streams_are_only_read(server: Server):
    answer = await server.api.post("/event")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_those_who_follow_a_directory_hear_that_its_configuration_is_read_again(server: Server, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    await server.listen()
    async with server.events() as own, server.events(params={"directory": str(other)}) as foreign:
        await own.next()
        await foreign.next()
        assert (await server.api.post("/instance/dispose")).json() is True
        assert (await server.api.post("/global/dispose")).json() is True
        disposed = await own.next()
        assert disposed.json["type"] == "server.instance.disposed"
        assert disposed.json["properties"] == {"directory": str(server.directory)}
        assert (await own.next()).type == (await foreign.next()).type == "global.disposed"


async def test_the_texts_of_a_turn_are_the_sum_of_its_deltas(server: Server):
    for script in STORY:
        server.provider.add(script)
    await server.listen()
    async with server.events() as stream:
        await stream.next()
        session = await server.session()
        answer = (await server.prompt(session)).json()
        frames = await stream.until("session.idle")

    deltas = [f.json["properties"] for f in frames if f.type == "message.part.delta"]
    told = "".join(d["delta"] for d in deltas if d["messageID"] == answer["info"]["id"])
    assert told == texts(answer) == "There is nothing at all."
