"""Sessions as files. What a file says is what the log says; a file that is not whole is not imported."""

import itertools
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.core import codec
from holdfast.core import events as e
from holdfast.core.errors import Conflict, Invalid, NotFound
from holdfast.core.ids import IdGenerator
from holdfast.core.offsets import BEGINNING
from holdfast.core.session import Session, SessionTime
from holdfast.core.store import SessionScope
from holdfast.service.transfer import export_session, import_session, read_lines
from holdfast.storage.memory import MemoryStore
from tests.core import samples as s

STORY: list[e.Event] = [
    s.created(),
    s.message(s.user()),
    s.part(s.prompt_text("prt_u", "Hello")),
    s.requested(),
    s.started(),
    s.message(s.assistant()),
    s.part(s.text("prt_1")),
    s.delta("prt_1", "Hel"),
    s.delta("prt_1", "lo"),
    s.part(s.text("prt_1", "Hello", end=s.NOW)),
    s.message(s.completed(s.assistant())),
    s.ended(),
]

MakeStore = Callable[[], MemoryStore]


def make_store() -> MemoryStore:
    ticks = itertools.count(s.NOW)
    return MemoryStore(lambda: s.NOW, IdGenerator(lambda: next(ticks), bytes))


async def store_with(events: list[e.Event]) -> MemoryStore:
    store = make_store()
    for event in events:
        await store.append(s.SESSION, [event])
    return store


async def export(store: MemoryStore) -> bytes:
    return b"".join([piece async for piece in export_session(store, s.SESSION)])


async def log(store: MemoryStore) -> list[tuple[str, int, object]]:
    """What an import keeps of each record: everything but its offset and its id."""
    records = await store.read(SessionScope(s.SESSION), after=BEGINNING)
    return [(record.tag, record.version, msgspec.json.decode(record.data)["properties"]) for record in records]


async def test_an_imported_session_has_the_same_log_and_the_same_state() -> None:
    one, other = await store_with(STORY), make_store()

    imported = await import_session(other, (await export(one)).splitlines())

    assert (s.SESSION, len(STORY), False) == (imported.session_id, imported.records, imported.unfinished)
    assert await log(one) == await log(other)
    assert await one.history(s.SESSION) == await other.history(s.SESSION)
    assert [difference async for difference in other.verify()] == []


async def test_an_unfinished_turn_is_imported_as_unfinished() -> None:
    one, other = await store_with(STORY[:8]), make_store()

    assert (await import_session(other, (await export(one)).splitlines())).unfinished
    assert list(await other.unfinished()) == [s.SESSION]


async def test_a_log_without_its_compacted_deltas_gives_the_same_state() -> None:
    one, other = await store_with(STORY), make_store()
    assert await one.compact(closed_before_ms=s.NOW + 1, records_max=100)

    await import_session(other, (await export(one)).splitlines())

    assert await one.history(s.SESSION) == await other.history(s.SESSION)


async def test_a_session_that_exists_is_not_touched() -> None:
    store = await store_with(STORY)
    lines = (await export(store)).splitlines()

    with pytest.raises(Conflict):
        await import_session(store, lines)

    assert len(STORY) == len(await log(store))


async def test_records_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(Invalid, match="do not belong together"):
        await import_session(make_store(), lines(s.created(), s.part(s.text("prt_1"))))


async def test_a_session_that_was_deleted_does_not_come_back() -> None:
    store = await store_with(STORY)
    lines = (await export(store)).splitlines()
    await store.append(s.SESSION, [e.SessionDeleted(session_id=s.SESSION, info=s.session())])

    with pytest.raises(Conflict):
        await import_session(store, lines)
    with pytest.raises(NotFound):
        await export(store)


@given(data=st.data())
async def test_a_file_that_is_not_whole_is_refused_and_leaves_nothing(data: st.DataObject) -> None:
    """Any file that lost its end, or has a byte changed, is either refused as Invalid or says the same as before."""
    whole = await export(await store_with(STORY))
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    store = make_store()

    try:
        await import_session(store, damaged.split(b"\n"))
    except Invalid:
        with pytest.raises(NotFound):
            await store.session(s.SESSION)
    else:
        assert len(STORY) == len(await log(store))


def lines(*events: e.Event, session_id: str = s.SESSION, version: int = 1) -> list[bytes]:
    head = msgspec.json.encode({"format": "holdfast-session", "version": version, "sessionID": session_id})
    records = [
        msgspec.json.encode({"tag": codec.tag_of(event), "event": msgspec.Raw(codec.encode(event, "evt_1"))})
        for event in events
    ]
    return [head, *records, msgspec.json.encode({"records": len(records)})]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ([], "empty"),
        ([b'{"format":"other","version":1,"sessionID":"ses_1"}'], "not an exported session"),
        (lines(s.created(), version=2), "newer Holdfast"),
        (lines(s.created(), session_id="ses_2"), "another session"),
        (lines(s.message(s.user())), "first record"),
        (lines(s.created(), s.created()), "first record"),
        (lines(), "cut off"),
        ([*lines(s.created()), b"{}"], "after the last line"),
        (lines(s.created(), e.SessionDeleted(session_id=s.SESSION, info=s.session())), "deleted"),
        ([b"[" * 100_000], "Line 1"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(file: list[bytes], reason: str) -> None:
    with pytest.raises(Invalid, match=reason):
        read_lines(file)


@pytest.mark.parametrize(
    "session",
    [
        s.session(directory="relative"),
        s.session(time=SessionTime(created=s.NOW, updated=10**20)),
        s.session(time=SessionTime(created=-1, updated=s.NOW)),
    ],
)
def test_a_session_that_no_server_could_have_made_is_refused(session: Session) -> None:
    """A time of 67 bits was a 500."""
    with pytest.raises(Invalid, match="Line 2"):
        read_lines(lines(e.SessionCreated(session_id=s.SESSION, info=session)))


def test_ids_that_lead_out_of_a_directory_are_refused() -> None:
    """Output of tools is kept in files that are named by them."""
    away = replace(s.user(), id="msg_/../../x")
    part = replace(s.prompt_text("prt_u", "Hello"), id="prt_/../../x")
    for event in (s.message(away), s.part(part)):
        with pytest.raises(Invalid, match="Line 3"):
            read_lines(lines(s.created(), event))
    with pytest.raises(Invalid, match="Line 1"):
        read_lines(lines(s.created(), session_id="ses_/../x"))
