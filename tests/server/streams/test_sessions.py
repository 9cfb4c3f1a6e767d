"""Sessions are streams: what is read there is what was recorded, and folds to what the OpenCode face tells."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.codec import decode
from holdfast.core.events import EVENT_TYPES, Event
from holdfast.core.fold import Fold
from holdfast.service.session_streams import directory_id
from holdfast.testing.stories import Story
from tests.server.streams.world import JSON, StreamWorld

VERSIONS = {cls.type: cls.version for cls in EVENT_TYPES}


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StreamWorld]:
    async with StreamWorld(tmp_path if request.param == "sqlite" else None, page_bytes_max=700) as world:
        yield world


def to_event(message: dict[str, object]) -> Event:
    return decode(f"{message['type']}.{VERSIONS[str(message['type'])]}", msgspec.json.encode(message))[1]


async def tell(world: StreamWorld, story: Story, texts: list[str]) -> None:
    await world.store.append(story.id, [story.created()])
    await world.store.append(story.id, [story.message(story.user())])
    for number, text in enumerate(texts):
        await world.store.append(story.id, [story.part(story.prompt(f"prt_{number}", text))])


async def test_a_sessions_stream_folds_to_the_stored_session_from_any_place(world: StreamWorld) -> None:
    story = Story()
    await tell(world, story, ["one", "two", "three" * 100])
    path = f"session/{story.id}"
    messages, page = await world.read_all(path)
    assert page.headers["content-type"] == "application/json"
    fold = Fold(to_event(message) for message in messages)
    assert fold.messages() == await world.store.history(story.id)
    assert fold.session == await world.store.session(story.id)

    places = ["-1"]
    while not (step := await world.get(path, f"offset={places[-1]}")).up_to_date:
        places.append(step.next)
    assert len(places) > 1
    for place in places:
        rest, _ = await world.read_all(path, place)
        assert rest == messages[len(messages) - len(rest) :]


STEPS = st.lists(st.sampled_from(["delta", "delta", "close", "compact"]) | st.text(min_size=1, max_size=5), max_size=12)


@given(STEPS)
@settings(max_examples=30)
def test_at_every_offset_a_reader_folds_what_the_store_tells_compacted_or_not(steps: list[str]) -> None:
    """Invariant: the fold of the session's stream, read up to now from its beginning or continued from any earlier place,
    equals the stored messages; that deltas were compacted away meanwhile changes nothing."""
    asyncio.run(_fold_at_every_offset(steps))


async def _fold_at_every_offset(steps: list[str]) -> None:
    story = Story()
    with tempfile.TemporaryDirectory() as directory:
        async with StreamWorld(Path(directory), page_bytes_max=500) as world:
            await world.store.append(story.id, story.streaming("prt_0"))
            text, part, folds, place = "", 0, Fold(), "-1"
            for step in steps:
                if step == "close":
                    closing = [story.part(story.text(f"prt_{part}", text, closed=True))]
                    part, text = part + 1, ""
                    await world.store.append(story.id, [*closing, story.part(story.text(f"prt_{part}"))])
                elif step == "compact":
                    world.clock.advance(10_000)
                    await world.store.compact(closed_before_ms=world.clock.now_ms(), records_max=100)
                else:
                    text += step
                    await world.store.append(story.id, [story.delta(f"prt_{part}", step)])
                stored = await world.store.history(story.id)
                whole, _ = await world.read_all(f"session/{story.id}")
                assert Fold(to_event(message) for message in whole).messages() == stored
                later, page = await world.read_all(f"session/{story.id}", place)
                place = page.next
                for message in later:
                    folds.apply(to_event(message))
                assert folds.messages() == stored


async def test_a_session_can_be_followed_to_its_end(world: StreamWorld) -> None:
    story = Story()
    await tell(world, story, [])
    async with world.sse(f"session/{story.id}", "offset=now") as reader:
        assert "upToDate" in (await reader.frame() or "")
        await world.store.append(story.id, [story.message(story.user())])
        assert '"type":"message.updated"' in (await reader.frame() or "")
        await world.store.append(story.id, [story.deleted()])
        last = await reader.frame() or ""
        assert "session.deleted" in last
        assert "streamClosed" in last
        assert await reader.frame() is None
    assert (await world.request("HEAD", f"session/{story.id}")).closed


async def test_a_long_poll_waits_for_the_next_event_of_the_session(world: StreamWorld) -> None:
    one, two = Story("ses_one"), Story("ses_two")
    await tell(world, one, [])
    await tell(world, two, [])
    at = (await world.request("HEAD", f"session/{one.id}")).next
    assert (await world.get(f"session/{one.id}", f"live=long-poll&offset={at}")).status == 204
    await world.store.append(two.id, [two.message(two.user())])
    await world.store.append(one.id, [one.message(one.user())])
    answer = await world.get(f"session/{one.id}", f"live=long-poll&offset={at}")

    assert [message["type"] for message in answer.json] == ["message.updated"]


async def test_wider_streams_hold_every_session_in_order(world: StreamWorld) -> None:
    one, two = Story("ses_one"), Story("ses_two")
    await tell(world, one, ["x"])
    await tell(world, two, ["y"])
    everything, _ = await world.read_all("all")
    directory, _ = await world.read_all(f"directory/{directory_id(one.info.directory)}")

    assert len(everything) == 6
    assert directory == everything


@pytest.mark.parametrize("path", ["session/{id}", "all", "directory/L3g", "session/none"])
async def test_what_holdfast_writes_is_not_written_by_others(world: StreamWorld, path: str) -> None:
    story = Story()
    await tell(world, story, [])
    path = path.format(id=story.id)
    for method in ("PUT", "POST", "DELETE"):
        answer = await world.request(method, path, JSON, b"[1]" if method != "DELETE" else b"")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    fork = await world.put("fork", {"stream-forked-from": f"/v1/stream/{path}"})
    assert fork.status == 405


async def test_a_session_that_does_not_exist_is_not_found(world: StreamWorld) -> None:
    for path in ("session/ses_none", "session/a/b", "directory/none!", "directory/L3g"):
        for query in ("", "live=sse&offset=-1", "live=long-poll&offset=now"):
            assert (await world.get(path, query)).status == 404


async def test_the_stream_of_a_session_ends_in_good_order_when_the_server_stops(world: StreamWorld) -> None:
    """A client whose connection breaks shows an error; one whose response ends comes again."""
    story = Story()
    await tell(world, story, [])
    async with world.sse(f"session/{story.id}", "offset=now") as reader:
        await reader.frame()
        await world.store.append(story.id, [story.message(story.user())])
        await reader.frame()
        await world.store.close()
        assert await reader.frame() is None
