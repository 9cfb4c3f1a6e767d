"""Two faces, one truth: what a reader of a session's stream folds is what the OpenCode face answers, at every offset."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.codec import decode, to_json
from holdfast.core.errors import HoldfastError
from holdfast.core.events import EVENT_TYPES, Event
from holdfast.core.fold import Fold
from holdfast.core.session import StatusIdle
from holdfast.testing.event_strategies import appends, beginning
from holdfast.testing.stories import Story
from tests.server.harness import Server

VERSIONS = {cls.type: cls.version for cls in EVENT_TYPES}
NUMBERS = itertools.count()
COMPACT = "compact"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place").resolve()


class Running:
    """A server for all examples, each of which has a session of its own."""

    def __init__(self, place: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.place = place
        self.server = Server(place, place / "data")
        self.loop.run_until_complete(self.server.__aenter__())

    def close(self) -> None:
        self.loop.run_until_complete(self.server.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Running]:
    running = Running(place)
    yield running
    running.close()


class Reader:
    """Somebody who reads the stream, now and then, from where he was."""

    def __init__(self, server: Server, session_id: str) -> None:
        self._api = server.api
        self._path = f"/v1/stream/session/{session_id}"
        self._place = "-1"
        self.fold = Fold()

    async def read_on(self) -> Fold:
        while True:
            page = (await self._api.get(self._path, params={"offset": self._place})).raise_for_status()
            for message in page.json():
                self.fold.apply(_event(message))
            self._place = page.headers["stream-next-offset"]
            if page.headers.get("stream-up-to-date"):
                return self.fold


def _event(message: dict[str, Any]) -> Event:
    return decode(f"{message['type']}.{VERSIONS[message['type']]}", json.dumps(message).encode())[1]


def _plain(value: Any) -> Any:
    return json.loads(to_json(value))


async def told(server: Server, session_id: str) -> dict[str, Any]:
    """What the OpenCode face says of a session."""

    async def get(path: str) -> Any:
        return (await server.api.get(path)).raise_for_status().json()

    def own(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [request for request in found if request["sessionID"] == session_id]

    return {
        "session": await get(f"/session/{session_id}"),
        "messages": await get(f"/session/{session_id}/message"),
        "todo": await get(f"/session/{session_id}/todo"),
        "status": (await get("/session/status")).get(session_id, {"type": "idle"}),
        "permissions": own(await get("/permission")),
        "questions": own(await get("/question")),
    }


def folded(fold: Fold) -> dict[str, Any]:
    waiting = [entry.request for entry in fold.permissions() if entry.reply is None]
    asked = [entry.request for entry in fold.questions() if not entry.rejected and entry.answers is None]
    return {
        "session": _plain(fold.session),
        "messages": _plain(fold.messages()),
        "todo": _plain(fold.todos.todos),
        "status": {"type": "idle"} if isinstance(fold.status, StatusIdle) else _plain(fold.status),
        "permissions": _plain(waiting),
        "questions": _plain(asked),
    }


@pytest.mark.slow
@given(data=st.data(), count=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_the_fold_of_a_sessions_stream_is_what_the_opencode_face_answers_at_every_offset(
    running: Running, data: st.DataObject, count: int
) -> None:
    """Invariant: whatever was recorded, and whatever was compacted away of it, a reader who goes on from any earlier place and
    one who begins anew both fold to what the OpenCode face answers now."""
    story = Story(f"ses_{next(NUMBERS)}", directory=str(running.place))
    steps = [data.draw(st.just(COMPACT) | appends(story)) for _ in range(count)]

    async def example() -> None:
        server = running.server
        await server.application.store.append(story.id, beginning(story))
        reader = Reader(server, story.id)
        for step in steps:
            if isinstance(step, str):
                await server.application.store.compact(closed_before_ms=1 << 52, records_max=5)
            else:
                try:
                    await server.application.store.append(story.id, step)
                except HoldfastError:
                    continue
            now = await told(server, story.id)
            assert folded(await reader.read_on()) == now
            assert folded(await Reader(server, story.id).read_on()) == now

    running.loop.run_until_complete(example())
