"""`holdfast run`: one turn on a terminal, over whatever happens to the server in between."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from holdfast.client import Client
from holdfast.core.messages import AssistantMessage, MessageAbortedError
from tests.cli.command import holdfast
from tests.cli.place import Place, text_of, tokens
from tests.client.fake_server import frame
from tests.core import samples as s


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place(tmp_path) as place:
        yield place


async def test_the_answer_is_on_stdout_and_all_else_on_stderr(place: Place) -> None:
    (place.work / "notes.txt").write_text("the content of the notes")

    async with place.run('[[reason=3]] [[tokens=5]] [[tool=read {"filePath": "notes.txt"}]]') as run:
        assert await run.exit_code() == 0

    assert "Calling. \n" + tokens(5) + "\n" == run.out
    assert "think0 think1 think2" in run.err
    assert "read  " in run.err
    assert "the content of the notes" in run.err


@pytest.mark.slow
async def test_a_kill_of_the_server_in_mid_sentence_costs_nothing(place: Place) -> None:
    """The words that were shown stay, the rest follows, each once, with nobody asking."""
    async with place.run("[[tokens=40]] [[stall=20]] [[times=1]]") as run:
        await run.until_out("tok19 ")
        await place.kill()
        await run.until_err("Lost the server")
        await place.start()
        assert await run.exit_code() == 0

    assert tokens(40) + "\n" == run.out
    assert "Connected again" in run.err


@pytest.mark.slow
async def test_a_server_that_stops_in_good_order_and_comes_back_goes_on(place: Place) -> None:
    async with place.run("[[tokens=40]] [[stall=20]] [[times=1]]") as run:
        await run.until_out("tok19 ")
        await place.stop()
        await place.start()
        assert await run.exit_code() == 0

    assert tokens(40) + "\n" == run.out


async def test_a_turn_that_fails_says_why(place: Place) -> None:
    async with place.run("[[status=400]]") as run:
        assert await run.exit_code() == 1

    assert "failed" in run.err
    assert "told to fail" in run.err


async def test_a_provider_that_asks_for_a_pause_is_waited_for(place: Place) -> None:
    async with place.run("[[tokens=3]] [[status=429]] [[retryms=20]] [[times=1]]") as run:
        assert await run.exit_code() == 0

    assert "The model's provider failed" in run.err
    assert tokens(3) + "\n" == run.out


async def test_ctrl_c_aborts_the_turn(place: Place) -> None:
    async with place.run("[[tokens=40]] [[stall=5]]") as run:
        await run.until_out("tok4 ")
        run.signal(signal.SIGINT)
        assert await run.exit_code() == 130

    assert "Aborted" in run.err
    answer = (await place.messages(await place.session()))[-1]
    assert isinstance(answer.info, AssistantMessage)
    assert isinstance(answer.info.error, MessageAbortedError)
    assert tokens(5) == text_of(answer)


async def test_a_session_is_gone_on_with(place: Place) -> None:
    session = await place.new_session()
    for count in (2, 3):
        async with place.run(f"[[tokens={count}]]", "--session", session) as run:
            assert await run.exit_code() == 0
        assert tokens(count) + "\n" == run.out

    assert len(await place.messages(session)) == 4


async def test_a_prompt_behind_another_turn_waits_for_it(place: Place) -> None:
    session = await place.new_session()
    async with place.run("[[tokens=8]] [[stall=4]] [[times=1]]", "--session", session) as first:
        await first.until_out("tok3 ")
        async with place.run("[[tokens=2]]", "--session", session) as second:
            await second.until_err("Another turn")
            place.model.release()
            assert [await first.exit_code(), await second.exit_code()] == [0, 0]

    assert tokens(8) + "\n" == first.out
    assert tokens(2) + "\n" == second.out


async def test_json_is_every_event_of_the_turn_with_its_offset(place: Place) -> None:
    async with place.run("[[tokens=3]]", "--json") as run:
        assert await run.exit_code() == 0

    lines = [json.loads(line) for line in run.out.splitlines()]
    assert [line["offset"] for line in lines] == sorted({line["offset"] for line in lines})
    deltas = [line["event"] for line in lines if line["event"]["type"] == "message.part.delta"]
    assert tokens(3) == "".join(delta["properties"]["delta"] for delta in deltas)
    assert lines[-1]["event"]["type"] == "turn.ended"


async def test_a_prompt_can_come_from_standard_input(place: Place) -> None:
    code, out, _ = await holdfast("run", "-", "--server", place.server.url, cwd=place.work, stdin=b"[[tokens=2]]")

    assert (0, tokens(2) + "\n") == (code, out)


async def test_a_prompt_that_is_no_text_is_refused(place: Place) -> None:
    code, out, err = await holdfast("run", "-", "--server", place.server.url, cwd=place.work, stdin=b"caf\xe9")

    assert (code, out, "not UTF-8" in err, "Traceback" in err) == (1, "", True, False)


async def test_what_is_wrong_is_said_and_the_exit_code_tells(place: Place) -> None:
    for option, value, reason in [
        ("--session", "ses_none", "not found"),
        ("--model", "no-slash", "PROVIDER/MODEL"),
        ("--model", "no/such", "no/such"),
        ("--agent", "nobody", "nobody"),
        ("--directory", "/nowhere", "/nowhere"),
    ]:
        async with place.run("hello", option, value) as run:
            assert await run.exit_code() == 1

        assert run.out == ""
        assert reason in run.err
        assert "Traceback" not in run.err

    async with Client(place.server.url, directory=str(place.work)) as client:
        assert await client.sessions() == (), "a session that was made for a refused prompt stayed"


async def test_a_session_that_was_there_stays_when_its_prompt_is_refused(place: Place) -> None:
    session = await place.new_session()

    async with place.run("hello", "--session", session, "--model", "no/such") as run:
        assert await run.exit_code() == 1

    assert session == await place.session()


async def test_without_a_server_it_says_what_to_do(tmp_path: Path) -> None:
    code, out, err = await holdfast("run", "hello", "--server", "http://127.0.0.1:9", cwd=tmp_path)

    assert (code, out) == (1, "")
    assert "Nobody answers at http://127.0.0.1:9" in err
    assert "holdfast serve" in err


async def test_opencodes_own_server_is_not_waited_for(tmp_path: Path) -> None:
    """It listens on the same port, and its events have no offsets: a turn could not be followed."""
    requests: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).partition(b" HTTP")[0])
        body = b'{"healthy":true,"version":"1.18.33"}'
        if requests[-1].startswith(b"POST"):
            body = msgspec.json.encode(s.session())
        if b"/event" in requests[-1]:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            writer.write(frame(None, "server.connected", None) + frame(None, "server.heartbeat", None))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        code, out, err = await holdfast("run", "hello", "--server", f"http://127.0.0.1:{port}", cwd=tmp_path)

    assert (code, out) == (1, "")
    assert "no Holdfast" in err
    assert not any(b"prompt" in request for request in requests)
