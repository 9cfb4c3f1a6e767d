"""The answer to a prompt as a durable stream: read, followed and resumed like any other, and made of records alone."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.server.aisdk.ui_messages import fold
from holdfast.testing.stories import Story
from tests.server.streams.world import JSON, StreamWorld

PATH = "session/ses_story/chat/msg_u1"


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StreamWorld]:
    async with StreamWorld(tmp_path if request.param == "sqlite" else None, page_bytes_max=150) as world:
        yield world


def texts(chunks: list[dict[str, Any]]) -> list[str]:
    return [part["text"] for part in fold("msg_u1", chunks)["parts"] if part["type"] == "text"]


async def tell(world: StreamWorld, story: Story, *deltas: str) -> None:
    await world.store.append(story.id, story.streaming())
    for delta in deltas:
        await world.store.append(story.id, [story.delta("prt_1", delta)])


async def end(world: StreamWorld, story: Story, text: str) -> None:
    closed = story.part(story.text("prt_1", text, closed=True))
    await world.store.append(story.id, [closed, story.message(story.assistant(completed=True)), story.ended()])


async def test_an_answer_is_read_from_every_place_and_is_closed_once_its_turn_is_over(world: StreamWorld) -> None:
    story = Story()
    words = [f"word{n} " for n in range(30)]
    await tell(world, story, *words)
    assert not (await world.request("HEAD", PATH)).closed

    await end(world, story, "".join(words))
    chunks, page = await world.read_all(PATH)
    assert (page.headers["content-type"], page.closed) == ("application/json", True)
    assert texts(chunks) == ["".join(words)]
    assert (await world.request("HEAD", PATH)).next == page.next

    places = ["-1"]
    while not (step := await world.get(PATH, f"offset={places[-1]}")).up_to_date:
        places.append(step.next)
    assert len(places) > 5
    assert places == sorted(places)
    for place in places:
        rest, _ = await world.read_all(PATH, place)
        assert rest == chunks[len(chunks) - len(rest) :]
    assert (await world.get(PATH, f"offset={page.next}")).json == []


async def test_who_comes_back_after_the_deltas_were_compacted_misses_nothing(world: StreamWorld) -> None:
    """The place says how much of the open text was given; the record that closed it has the rest."""
    story = Story()
    await tell(world, story, "one ", "two ")
    first = await world.get(PATH)
    while not first.up_to_date:
        first = await world.get(PATH, f"offset={first.next}")
    before, _ = await world.read_all(PATH)
    for delta in ("three ", "four"):
        await world.store.append(story.id, [story.delta("prt_1", delta)])
    await end(world, story, "one two three four")
    world.clock.advance(10_000)
    while await world.store.compact(closed_before_ms=world.clock.now_ms(), records_max=1):
        after, _ = await world.read_all(PATH, first.next)  # also with only some of them gone
        assert texts([*before, *after]) == ["one two three four"]
        assert texts((await world.read_all(PATH))[0]) == ["one two three four"]
        await world.restart()


async def test_an_answer_is_followed_to_its_end(world: StreamWorld) -> None:
    story = Story()
    await tell(world, story, "one ")
    async with world.sse(PATH, "offset=-1") as reader:
        first = await reader.frame() or ""
        assert '"delta":"one "' in first
        await world.store.append(story.id, [story.updated(title="Nothing to tell")])
        await world.store.append(story.id, [story.delta("prt_1", "two")])
        assert '"delta":"two"' in (await reader.frame() or "")
        await end(world, story, "one two")
        last = await reader.frame() or ""
        assert '"type":"finish"' in last
        assert '"streamClosed":true' in last
        assert await reader.frame() is None


async def test_a_long_poll_waits_for_the_next_chunk(world: StreamWorld) -> None:
    story = Story()
    await tell(world, story, "one ")
    at = (await world.request("HEAD", PATH)).next
    assert (await world.get(PATH, f"live=long-poll&offset={at}")).status == 204
    await world.store.append(story.id, [story.delta("prt_1", "two")])
    answer = await world.get(PATH, f"live=long-poll&offset={at}")

    assert [chunk["delta"] for chunk in answer.json] == ["two"]


async def test_the_answer_to_a_prompt_deep_in_a_long_session_is_found(world: StreamWorld) -> None:
    story = Story()
    await tell(world, story, "one")
    await end(world, story, "one")
    for n in range(2, 80):
        await world.store.append(story.id, [story.message(story.user(f"msg_u{n}")), story.requested(f"msg_u{n}")])

    assert texts((await world.read_all(PATH))[0]) == ["one"]
    assert (await world.get("session/ses_story/chat/msg_u40")).json == []


@pytest.mark.parametrize(
    "path",
    [
        "session/ses_none/chat/msg_u1",
        "session/ses_story/chat/msg_none",
        "session/ses_story/chat/msg_u1/more",
        "session/ses_story/chat",
        "session/ses_story/other/msg_u1",
        "session/ses_story/other/chat/msg_u1",
    ],
)
async def test_what_is_no_prompt_has_no_answer(world: StreamWorld, path: str) -> None:
    await tell(world, Story())
    for query in ("", "live=sse&offset=-1", "live=long-poll&offset=now"):
        assert (await world.get(path, query)).status == 404


async def test_a_message_that_wants_no_answer_and_one_of_the_model_have_none(world: StreamWorld) -> None:
    story = Story()
    await world.store.append(story.id, [story.created(), story.message(story.user())])
    await world.store.append(story.id, [story.message(story.assistant())])
    for message in ("msg_u1", "msg_a1"):
        assert (await world.get(f"session/ses_story/chat/{message}")).status == 404


async def test_it_cannot_be_written(world: StreamWorld) -> None:
    await tell(world, Story())
    for method in ("PUT", "POST", "DELETE"):
        assert (await world.request(method, PATH, JSON, b"[1]" if method != "DELETE" else b"")).status == 405


@pytest.mark.parametrize("place", ["9999999999999999_0000000000000000", "0000000000000000_0000000000000009"])
async def test_places_that_nobody_gave_are_answered(world: StreamWorld, place: str) -> None:
    story = Story()
    await tell(world, story, "one")
    await end(world, story, "one")

    assert (await world.get(PATH, f"offset={place}")).status == 200


async def test_the_second_half_of_a_place_means_nothing_to_other_streams(world: StreamWorld) -> None:
    created = await world.put("plain", JSON, b"[1]")
    place = created.next[:17] + "0000000000000007"

    assert (await world.get("plain", f"offset={place}")).json == []
