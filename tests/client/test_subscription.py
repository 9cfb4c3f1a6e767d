"""An event stream that outlives its connections."""

from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client import Client, Interrupted, Received, Refused
from holdfast.client.backoff import FIRST_S, LONGEST_S, Backoff
from holdfast.core.events import SessionIdled
from holdfast.core.offsets import Offset, to_offset, to_position
from tests.client.fake_server import Transport, frame, stream

LAST = 12


async def no_sleep(seconds: float) -> None:
    pass


def client(transport: httpx.AsyncBaseTransport) -> Client:
    return Client("http://127.0.0.1:1", transport=transport, sleep=no_sleep)


def resumed_after(request: httpx.Request) -> int | None:
    id = request.headers.get("last-event-id")
    return to_position(Offset(id)) if id else None


async def read(
    answer: Callable[[httpx.Request], httpx.Response], *, until: int = LAST, after: int | None = None
) -> list[Received | Interrupted]:
    """Everything that comes until the event at a position."""
    items: list[Received | Interrupted] = []
    async with client(Transport(answer)) as it:
        async for item in it.events(after=to_offset(after) if after is not None else None):
            items.append(item)
            if isinstance(item, Received) and item.offset == to_offset(until):
                break
    return items


def positions(items: list[Received | Interrupted]) -> list[int]:
    return [to_position(item.offset) for item in items if isinstance(item, Received) and item.offset]


@given(data=st.data())
async def test_every_later_event_comes_once_and_in_order_wherever_connections_break(data: st.DataObject) -> None:
    """From any place, over any connections that are refused or break at any byte, the events after it come once, in order."""
    start = data.draw(st.integers(0, LAST - 1), "start")

    def answer(request: httpx.Request) -> httpx.Response:
        if data.draw(st.integers(0, 3), "refused") == 0:
            return httpx.Response(data.draw(st.sampled_from([429, 502, 503, 504])))
        after = resumed_after(request)
        assert after is not None
        frames = [frame(None, "server.connected", None)]
        for position in range(after + 1, LAST + 1):
            frames.append(frame(position, "session.idle"))
            if data.draw(st.booleans(), "heartbeat"):
                frames.append(frame(None, "server.heartbeat", None))
        body = b"".join(frames)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=3), "cuts"))
        return stream([body[a:b] for a, b in zip([0, *cuts], cuts, strict=False)])

    # A connection that never gets further does not count as a run: the last one goes through.
    tries = iter(range(50))
    items = await read(
        lambda request: (
            answer(request)
            if next(tries, None) is not None
            else stream([frame(p, "session.idle") for p in range((resumed_after(request) or 0) + 1, LAST + 1)])
        ),
        after=start,
    )

    assert list(range(start + 1, LAST + 1)) == positions(items)


@pytest.mark.parametrize("greeting", ["server.connected", "session.status"])
async def test_without_a_place_it_starts_after_the_state_that_the_server_begins_with(greeting: str) -> None:
    """Only the last frame of that state has an id, and it is no event's."""
    begin = [frame(None, "session.updated"), frame(7, greeting)]
    answers = iter([stream(begin[:1]), stream(begin), stream([frame(8, "session.idle")])])
    asked: list[int | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(resumed_after(request))
        return next(answers)

    items = await read(answer, until=8)

    assert asked == [None, None, 7]
    assert positions(items) == [8]


async def test_a_log_that_was_restored_from_an_older_copy_is_followed_from_where_it_is() -> None:
    begin = [frame(None, "server.connected", None), frame(None, "session.updated"), frame(3, "session.status")]

    items = await read(lambda _: stream([*begin, frame(10, "session.idle")]), until=10, after=5)

    assert positions(items) == [10]
    assert len(items) == 4


async def test_what_a_server_sends_again_is_not_passed_on_again() -> None:
    items = await read(
        lambda _: stream([frame(position, "session.idle") for position in (1, 2, 1, 2, 3)]), until=3, after=0
    )

    assert positions(items) == [1, 2, 3]


async def test_snapshots_and_heartbeats_have_no_offset() -> None:
    pieces = [frame(1, "session.idle"), frame(None, "session.status"), frame(None, "server.heartbeat", None)]

    items = await read(lambda _: stream([*pieces, frame(2, "session.idle")]), until=2, after=0)

    assert [to_offset(1), None, None, to_offset(2)] == [item.offset for item in items if isinstance(item, Received)]


async def test_it_says_when_it_lost_the_server_and_how_long_it_waits() -> None:
    answers = iter([stream([], whole=True), stream([]), httpx.Response(503), stream([frame(1, "session.idle")])])

    items = await read(lambda _: next(answers), until=1, after=0)

    lost = [item for item in items if isinstance(item, Interrupted)]
    assert [item.attempt for item in lost] == [1, 2, 3]
    assert [item.reason for item in lost] == ["The server ended the stream.", "reset by peer", "HTTP 503"]


async def test_events_are_read_as_what_they_are() -> None:
    items = await read(lambda _: stream([frame(1, "session.idle"), frame(2, "of.tomorrow")]), until=2, after=0)

    known, unknown = items
    assert isinstance(known, Received)
    assert isinstance(unknown, Received)
    assert SessionIdled(session_id="ses_1") == known.event()
    assert unknown.event() is None
    assert unknown.session_id == "ses_1"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(401), "password"),
        (httpx.Response(400, json={"name": "BadRequest", "data": {"message": "Not an offset"}}), "Not an offset"),
        (httpx.Response(200, headers={"content-type": "text/html"}, text="<html>"), "not an event stream"),
    ],
)
async def test_a_no_ends_it(answer: httpx.Response, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        await read(lambda _: answer)


def test_waits_double_up_to_a_limit_and_half_of_each_is_chance() -> None:
    longest, shortest = Backoff(lambda: 1.0), Backoff(lambda: 0.0)

    waits = [longest.next_s() for _ in range(8)]

    assert waits[:3] == [FIRST_S, FIRST_S * 2, FIRST_S * 4]
    assert waits[-1] == LONGEST_S
    assert [wait / 2 for wait in waits] == [shortest.next_s() for _ in range(8)]
    longest.reset()
    assert longest.next_s() == FIRST_S
