import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from holdfast.bootstrap import Application, Settings, open_application, serve
from holdfast.core.codec import type_of
from holdfast.core.errors import Denied, StorageError, StorageLocked, Unavailable
from holdfast.core.offsets import BEGINNING
from holdfast.core.store import ALL
from holdfast.storage.sqlite import SqliteStore
from holdfast.testing.scripted_provider import Stall, text
from holdfast.testing.server_process import free_port
from holdfast.testing.store_conformance import StoreClock
from holdfast.testing.stories import Story
from tests.server.harness import Server, texts


async def started(settings: Settings) -> tuple[asyncio.Task[None], str]:
    """A server as `holdfast serve` runs it, and its URL."""
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(settings, listening=listening.set_result))
    await asyncio.wait((task, listening), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    return task, listening.result()


async def test_a_server_says_where_it_listens_and_ends_on_sigterm(tmp_path: Path):
    task, url = await started(Settings(data=tmp_path / "data", directory=tmp_path, port=0))
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.get(f"{url}/global/health")).json()["healthy"] is True
    os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(60):
        await task


async def test_a_server_ends_soon_though_streams_are_open_prompts_wait_and_a_reader_takes_nothing(tmp_path: Path):
    stall = Stall()
    async with Server(tmp_path, tmp_path / "data", [[*text("so far "), stall]]) as server:
        url = await server.listen()
        session = await server.session()
        async with server.events() as stream, httpx.AsyncClient(base_url=url, timeout=60) as client:
            await stream.next()
            body = {"parts": [{"type": "text", "text": "x"}]}
            waiting = asyncio.create_task(client.post(f"/session/{session}/message", json=body))
            await stall.reached.wait()
            _, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
            writer.write(b"GET /event?after=" + BEGINNING.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await writer.drain()
            began = asyncio.get_running_loop().time()
            await server.__aexit__()
            assert asyncio.get_running_loop().time() - began < 45
            assert (await waiting).status_code == 503
            assert (await stream.until("turn.suspended"))[-1].type == "turn.suspended"
            writer.close()


async def test_a_store_that_its_disk_lets_down_ends_the_server_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    failures: list[Callable[[StorageError], None]] = []
    open_store = SqliteStore.open

    async def open_and_remember(data: Path, *, on_failure: Callable[[StorageError], None], **rest: Any) -> SqliteStore:
        failures.append(on_failure)
        return await open_store(data, on_failure=on_failure, **rest)

    monkeypatch.setattr(SqliteStore, "open", open_and_remember)
    task, _ = await started(Settings(data=tmp_path / "data", directory=tmp_path, port=0))
    await asyncio.to_thread(failures[0], StorageError("The disk is full."))

    with pytest.raises(StorageError, match="The disk is full"):
        async with asyncio.timeout(60):
            await task


async def test_a_second_server_on_the_same_data_is_refused(tmp_path: Path):
    settings = Settings(data=tmp_path / "data", directory=tmp_path)
    async with open_application(settings):
        with pytest.raises(StorageLocked):
            async with open_application(settings):
                pass


async def test_an_address_that_is_taken_is_an_error_that_names_it(tmp_path: Path):
    task, url = await started(Settings(data=None, directory=tmp_path, port=0))
    port = int(url.rpartition(":")[2])
    with pytest.raises(Unavailable, match=str(port)):
        await started(Settings(data=None, directory=tmp_path, port=port))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_server_that_cannot_have_its_address_takes_up_no_turn(tmp_path: Path):
    """It would begin a turn, and then stop in the middle of it; with a supervisor that starts it again, for ever."""
    data = tmp_path / "data"
    story = Story()
    store = await SqliteStore.open(data, now_ms=StoreClock(), entropy=os.urandom)
    await store.append(story.id, story.prompted())
    head = store.head()
    await store.close()
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(Unavailable):
        await started(Settings(data=data, directory=tmp_path, port=other.getsockname()[1]))

    store = await SqliteStore.open(data, now_ms=StoreClock(), entropy=os.urandom)
    assert store.head() == head
    await store.close()


async def test_whoever_comes_while_a_server_starts_is_served_when_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    port = free_port()  # not one that the system may give to somebody else meanwhile
    early: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    start = Application.start

    async def start_late(self: Application) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /global/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        early.append((reader, writer))
        await start(self)

    monkeypatch.setattr(Application, "start", start_late)
    task, _ = await started(Settings(data=None, directory=tmp_path, port=port))

    assert b'"healthy":true' in await early[0][0].read()
    early[0][1].close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("unsafe", [{"host": "0.0.0.0"}, {"cors": ("*",)}])
async def test_unsafe_settings_are_refused_before_anything_is_opened(tmp_path: Path, unsafe: dict[str, Any]):
    with pytest.raises(Denied):
        await started(Settings(data=tmp_path / "data", directory=tmp_path, port=0, **unsafe))

    assert not (tmp_path / "data").exists()


async def test_deltas_go_away_in_the_background_once_their_text_is_closed(tmp_path: Path):
    scripts = [text("All of these words stay.")]
    async with Server(tmp_path, None, scripts, delta_age_ms=-1, compact_every_seconds=0.01) as server:
        session = await server.session()
        await server.prompt(session)

        async def kinds() -> set[str]:
            records = await server.application.store.read(ALL, after=BEGINNING)
            return {type_of(record.tag) for record in records}

        async with asyncio.timeout(60):
            while "message.part.delta" in await kinds():  # noqa: ASYNC110 - what goes away tells nobody
                await asyncio.sleep(0.01)
        assert texts((await server.messages(session))[-1]) == "All of these words stay."


async def test_a_stop_may_be_asked_for_more_than_once(tmp_path: Path):
    async with open_application(Settings(data=None, directory=tmp_path)) as application:
        await asyncio.gather(application.stop(), application.stop())
