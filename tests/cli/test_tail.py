"""`holdfast tail`: each recorded event of a session as a line, over restarts of the server."""

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.place import Place, tokens


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place(tmp_path) as place:
        yield place


def lines(out: str) -> list[Any]:
    return [json.loads(line) for line in out.splitlines()]


def said(out: str) -> str:
    deltas = [line["event"] for line in lines(out) if line["event"]["type"] == "message.part.delta"]
    return "".join(delta["properties"]["delta"] for delta in deltas)


async def test_every_event_is_a_line_from_the_beginning_on(place: Place) -> None:
    session = await place.new_session()
    async with place.run("[[tokens=3]]", "--session", session) as run:
        assert await run.exit_code() == 0

    async with place.tail(session) as tail:
        await tail.until_out('"session.idle"')

    assert lines(tail.out)[0]["event"]["type"] == "session.created"
    assert tokens(3) == said(tail.out)


async def test_after_an_offset_only_what_follows_is_printed(place: Place) -> None:
    session = await place.new_session()
    async with place.run("[[tokens=3]]", "--session", session) as run:
        assert await run.exit_code() == 0
    async with place.tail(session) as tail:
        await tail.until_out('"session.idle"')
    whole = tail.out.splitlines(keepends=True)

    for place_in_log in (0, 3, len(whole) - 2):
        async with place.tail(session, "--after", json.loads(whole[place_in_log])["offset"]) as tail:
            await tail.until_out('"session.idle"')

        assert "".join(whole[place_in_log + 1 :]) == tail.out


@pytest.mark.slow
async def test_a_kill_of_the_server_makes_no_gap_and_no_repeat(place: Place) -> None:
    session = await place.new_session()
    async with (
        place.tail(session) as tail,
        place.run("[[tokens=30]] [[stall=10]] [[times=1]]", "--session", session) as run,
    ):
        await run.until_out("tok9 ")
        await tail.until_out('"tok9 "')
        await place.kill()
        await place.start()
        assert await run.exit_code() == 0
        await tail.until_out('"session.idle"')

    offsets = [line["offset"] for line in lines(tail.out)]
    assert offsets == sorted(set(offsets))
    assert tokens(30) == said(tail.out)
    async with place.tail(session) as whole:
        await whole.until_out('"session.idle"')
    assert whole.out == tail.out, "what was followed live is what is recorded"


async def test_it_ends_when_the_session_is_deleted(place: Place) -> None:
    session = await place.new_session()
    async with place.tail(session) as tail:
        await tail.until_out("session.created")
        await place.delete(session)

        assert await tail.exit_code() == 0

    assert lines(tail.out)[-1]["event"]["type"] == "session.deleted"


async def test_ctrl_c_ends_it(place: Place) -> None:
    async with place.tail(await place.new_session()) as tail:
        await tail.until_out("session.created")
        tail.signal(signal.SIGINT)

        assert await tail.exit_code() == 130

    assert tail.err == ""


async def test_what_is_wrong_is_said(place: Place) -> None:
    for options, reason in [((), "not found"), (("--after", "here"), "Not an offset")]:
        async with place.tail("ses_none", *options) as tail:
            assert await tail.exit_code() == 1

        assert reason in tail.err
