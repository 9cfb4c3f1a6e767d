"""Reads: the state that the log gives, and the log itself."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from holdfast.core.errors import NotFound
from holdfast.core.events import Event, SessionUpdated
from holdfast.core.fold import Fold
from holdfast.core.messages import WithParts
from holdfast.core.offsets import BEGINNING
from holdfast.core.permissions import PermissionRule
from holdfast.core.session import BUSY, IDLE, SessionTime, StatusRetry
from holdfast.core.store import (
    ALL,
    Directory,
    DirectoryScope,
    RawMessage,
    Scope,
    SessionQuery,
    SessionScope,
    SessionStore,
)
from holdfast.testing.store_conformance.base import StoreSuite, assert_state_is, collect, log, types
from holdfast.testing.stories import NOW_MS, Story


async def create(store: SessionStore, id: str, *, updated: int = NOW_MS, **info: Any) -> Story:
    story = Story(id, time=SessionTime(created=NOW_MS, updated=updated), **info)
    await store.append(id, [story.created()])
    return story


def names(sessions: Iterable[bytes]) -> str:
    """The last letters of their ids."""
    return "".join(msgspec.json.decode(data)["id"][-1] for data in sessions)


async def found(store: SessionStore, **query: Any) -> str:
    return names(await store.sessions(SessionQuery(**query)))


def as_message(raw: RawMessage) -> WithParts:
    data = b'{"info":' + raw.info + b',"parts":[' + b",".join(raw.parts) + b"]}"
    return msgspec.json.decode(data, type=WithParts)


class Reads(StoreSuite):
    # --- the log

    async def test_the_log_is_read_by_session_by_directory_and_whole(self, store: SessionStore) -> None:
        a = await create(store, "ses_a", directory="/one")
        b = await create(store, "ses_b", directory="/two")
        c = await create(store, "ses_c", directory="/one")
        for story in (a, b, c, b, a):
            await store.append(story.id, [story.status()])
        records = await log(store)

        async def read(scope: Scope, after: str, limit: int = 1000) -> list[str]:
            found = await store.read(scope, after=records[int(after)].offset if after else BEGINNING, limit=limit)
            return [record.session_id[-1] for record in found]

        assert await read(ALL, "") == list("abcabcba")
        assert await read(ALL, "2", 3) == list("abc")
        assert await read(SessionScope(b.id), "") == list("bbb")
        assert await read(SessionScope(b.id), "1") == list("bb")
        assert await read(SessionScope(b.id), "", 2) == list("bb")
        assert await read(DirectoryScope("/one"), "") == list("acaca")
        assert await read(DirectoryScope("/one"), "3", 1) == list("c")
        assert await read(DirectoryScope("/none"), "") == []
        assert await read(ALL, "7") == []

    async def test_what_is_missing_is_what_stands_behind_the_version_that_is_known(self, store: SessionStore) -> None:
        """Of the sessions of a directory, deleted ones too, in the order of the log; those that are not named from the start."""
        a = await create(store, "ses_a", directory="/one")
        await create(store, "ses_b", directory="/two")
        c = await create(store, "ses_c", directory="/one")
        for story in (a, c, a, a, c):
            await store.append(story.id, [story.status()])
        await store.append(c.id, [c.deleted()])
        everything = [record for record in await log(store) if record.directory == "/one"]

        for known in ({}, {"ses_a": 1}, {"ses_a": 3, "ses_c": 2}, {"ses_c": 4, "ses_b": 7}, {"ses_a": 4, "ses_c": 99}):
            expected = [record for record in everything if record.version > known.get(record.session_id, 0)]
            assert list(await store.missing("/one", known, limit=100, bytes_max=1 << 20)) == expected
            assert list(await store.missing("/one", known, limit=2, bytes_max=1 << 20)) == expected[:2]
            assert list(await store.missing("/one", known, limit=100, bytes_max=1)) == expected[:1]
        assert await store.missing("/none", {}, limit=100, bytes_max=1) == []

    async def test_what_is_missing_is_found_where_records_were_compacted_away(self, store: SessionStore) -> None:
        """Versions have gaps then, and every one of them may be what a client knows."""
        story = Story()
        events = [*story.streaming(), *(story.delta("prt_1", "x") for _ in range(20))]
        await store.append(story.id, [*events, story.part(story.text("prt_1", "x" * 20, closed=True)), story.status()])
        before = len(await log(store))
        await store.compact(closed_before_ms=NOW_MS + 1, records_max=100)
        left = await log(store)
        assert 0 < len(left) < before

        for version in range(before + 1):
            found = await store.missing(story.info.directory, {story.id: version}, limit=100, bytes_max=1 << 20)
            assert list(found) == [record for record in left if record.version > version]

    async def test_a_page_of_the_log_ends_with_the_record_that_makes_it_large_enough(self, store: SessionStore) -> None:
        story, other = Story(), Story("ses_other", directory="/elsewhere")
        await store.append(other.id, [other.created()])
        await store.append(story.id, [story.created(), *(story.todo("x" * 1000) for _ in range(5))])
        everything = [record.version for record in await log(store, SessionScope(story.id))]
        for scope in (SessionScope(story.id), DirectoryScope(story.info.directory)):
            after, pages = BEGINNING, list[list[int]]()
            while page := await store.read(scope, after=after, limit=4, bytes_max=1500):
                after = page[-1].offset
                pages.append([record.version for record in page])
            assert [version for page in pages for version in page] == everything
            assert max(len(page) for page in pages[1:]) == 2

    async def test_the_log_of_an_unknown_session_is_not_found(self, store: SessionStore) -> None:
        with pytest.raises(NotFound):
            await store.read(SessionScope("ses_unknown"), after=BEGINNING)

    async def test_the_log_of_a_deleted_session_can_still_be_read(self, store: SessionStore) -> None:
        story = await create(store, "ses_a")
        await store.append(story.id, [story.deleted()])

        assert types(await log(store, SessionScope(story.id))) == ["session.created", "session.deleted"]

    async def test_a_record_stays_in_the_directory_of_its_session_when_the_session_says_another_one(
        self, store: SessionStore
    ) -> None:
        """Who is told of a record cannot change under a subscriber."""
        story = await create(store, "ses_a", directory="/one")
        await store.append(story.id, [story.updated(directory="/two")])

        assert len(await log(store, DirectoryScope("/one"))) == 2
        assert await log(store, DirectoryScope("/two")) == []
        assert (await store.session(story.id)).directory == "/two"

    # --- sessions

    async def test_what_is_not_there_is_not_found(self, store: SessionStore) -> None:
        gone, other = Story("ses_gone"), Story("ses_other")
        await store.append(gone.id, [*gone.streaming(), gone.deleted()])
        await store.append(other.id, other.streaming())
        for session_id in (gone.id, "ses_unknown"):
            for read in (store.session, store.todos, store.message_page, store.history, store.turn_state):
                with pytest.raises(NotFound) as caught:
                    await read(session_id)
                assert (caught.value.kind, caught.value.id) == ("Session", session_id)
            with pytest.raises(NotFound):
                await store.message(session_id, "msg_u1")
        with pytest.raises(NotFound) as caught:
            await store.message(other.id, "msg_unknown")
        assert caught.value.kind == "Message"

    async def test_a_message_of_another_session_is_not_found(self, store: SessionStore) -> None:
        a, b = Story("ses_a"), Story("ses_b")
        await store.append(a.id, a.streaming())
        await store.append(b.id, [b.created(), b.message(b.user("msg_b"))])
        with pytest.raises(NotFound):
            await store.message(a.id, "msg_b")
        with pytest.raises(NotFound):
            await store.message(b.id, "msg_a1")

    async def test_two_sessions_may_use_the_same_ids(self, store: SessionStore) -> None:
        a, b = Story("ses_a"), Story("ses_b")
        for story in (a, b):
            await store.append(story.id, [*story.streaming(), story.permission_asked(), story.question_asked()])
            await store.append(story.id, [story.delta("prt_1", story.id)])
        await store.append(a.id, [a.removed("msg_a1"), a.permission_replied()])

        (_, answer) = await store.history(b.id)
        assert answer.parts == (b.text("prt_1", "ses_b"),)
        assert [entry.request.session_id for entry in await store.pending_permissions()] == ["ses_b"]

    async def test_sessions_are_found_by_what_is_asked_newest_update_first(self, store: SessionStore) -> None:
        await create(store, "ses_a", directory="/one", project_id="p1", title="Fix the ÄPFEL bug", updated=NOW_MS + 3)
        await create(store, "ses_b", directory="/two", project_id="p1", title="100% _done_", updated=NOW_MS + 1)
        await create(store, "ses_c", directory="/one", project_id="p2", parent_id="ses_a", updated=NOW_MS + 2)
        await create(store, "ses_d", directory="/one", project_id="p2", updated=NOW_MS + 2)
        gone = await create(store, "ses_e", directory="/one", project_id="p1", updated=NOW_MS + 9)
        await store.append(gone.id, [gone.deleted()])

        async def find(**query: Any) -> str:
            return await found(store, **query)

        assert await find() == "adcb"
        assert await find(directory="/one") == "adc"
        assert await find(project_id="p1") == "ab"
        assert await find(parent_id="ses_a") == "c"
        assert await find(roots=True) == "adb"
        assert await find(updated_since=NOW_MS + 2) == "adc"
        assert await find(search="äpfel") == "a"
        assert await find(search="100% _D") == "b"
        assert await find(search="_d_") == ""
        assert await find(limit=2) == "ad"
        assert await find(limit=0) == ""
        assert await find(directory="/one", roots=True, updated_since=NOW_MS + 2, limit=1, search="") == "a"
        assert await find(directory="/none") == ""

    async def test_a_session_is_found_by_what_it_says_now(self, store: SessionStore) -> None:
        story = await create(store, "ses_a", title="Before")
        await create(store, "ses_b", updated=NOW_MS + 1)
        await store.append(story.id, [story.updated(at=NOW_MS + 5, title="After", parent_id="ses_b")])

        (data,) = await store.sessions(SessionQuery(search="after", parent_id="ses_b", limit=5))
        assert msgspec.json.decode(data, type=type(story.info)) == story.info == await store.session(story.id)
        assert await store.sessions(SessionQuery(search="before")) == []

    async def test_archived_sessions_are_left_out_or_asked_for(self, store: SessionStore) -> None:
        await create(store, "ses_a")
        story = await create(store, "ses_b", updated=NOW_MS + 1)
        for archived, without, only in ((NOW_MS, "a", "b"), (None, "ba", "")):
            time = SessionTime(created=NOW_MS, updated=NOW_MS + 1, archived=archived)
            await store.append(story.id, [SessionUpdated(session_id=story.id, info=replace(story.info, time=time))])
            assert await found(store) == "ba"
            assert await found(store, archived=False) == without
            assert await found(store, archived=True) == only

    async def test_pages_of_sessions_lose_none_and_repeat_none(self, store: SessionStore) -> None:
        """Whatever was updated in the same millisecond."""
        for name, updated in zip("abcdefg", (1, 2, 2, 2, 3, 3, 4), strict=True):
            await create(store, f"ses_{name}", updated=NOW_MS + updated)
        for limit, pages in ((1, list("gfedcba")), (2, ["gf", "ed", "cb", "a"]), (3, ["gfe", "dcb", "a"])):
            before: int | float | None = None
            for expected in pages:
                page = await store.session_page(SessionQuery(limit=limit, updated_before=before))
                assert names(page.sessions) == expected
                before = page.next
            assert before is None
        assert names((await store.session_page(SessionQuery())).sessions) == "gfedcba"
        empty = await store.session_page(SessionQuery(limit=0))
        assert (empty.sessions, empty.next) == ((), None)
        one = await store.session_page(SessionQuery(limit=1, updated_since=NOW_MS + 3, updated_before=NOW_MS + 4))
        assert (names(one.sessions), one.next is None) == ("f", False)

    async def test_the_cursor_of_a_page_is_a_whole_number_where_a_millisecond_ends(self, store: SessionStore) -> None:
        """So it is for clients that know OpenCode's."""
        for name, updated in zip("abcd", (1, 2, 2, 3), strict=True):
            await create(store, f"ses_{name}", updated=NOW_MS + updated)
        first = await store.session_page(SessionQuery(limit=1))
        second = await store.session_page(SessionQuery(limit=1, updated_before=first.next))
        third = await store.session_page(SessionQuery(limit=1, updated_before=second.next))

        assert isinstance(first.next, int)
        assert first.next == NOW_MS + 3
        assert second.next is not None
        assert NOW_MS + 2 < second.next < NOW_MS + 3
        assert third.next == NOW_MS + 2
        later = await store.session_page(SessionQuery(limit=9, updated_before=NOW_MS + 2))
        assert names(later.sessions) == "a"

    async def test_many_sessions_of_one_millisecond_come_page_by_page(self, store: SessionStore) -> None:
        for number in range(40):
            await create(store, f"ses_{number:02}", updated=NOW_MS)
        seen: list[bytes] = []
        before: int | float | None = None
        while True:
            page = await store.session_page(SessionQuery(limit=7, updated_before=before))
            assert len(page.sessions) <= 7
            seen += page.sessions
            before = page.next
            if before is None:
                break

        assert len(seen) == len(set(seen)) == 40

    # --- search

    @pytest.mark.parametrize(
        ("search", "expected"),
        [
            ("login", "ba"),  # in a title, in a text
            ("LOGIN form", "ba"),
            ("form login", "ba"),  # in any order
            ("ogi", "a"),  # part of a word: in titles only
            ("log for", "ba"),  # the beginning of a word
            ("src/main.py", "b"),
            ("main.p", "b"),
            ("main src", "b"),
            ("py.main", ""),  # not in this order
            ("login Zürich", "b"),
            ("zu\u0308rich", "b"),  # the same character, composed in another way
            ("STRASSE", "b"),
            ("日本", "c"),
            ("本語", "c"),
            ("日語", ""),
            ("👍", "c"),
            ("done 👍", "c"),
            ("answered", "d"),  # by a model
            ("streaming", ""),  # what still grows
            ("synthetic", ""),
            ("thought", ""),
            ("output", ""),
            ("login answered", ""),  # each in another session
        ],
    )
    async def test_sessions_are_found_by_the_words_of_title_and_texts(
        self, store: SessionStore, search: str, expected: str
    ) -> None:
        await create(store, "ses_a", title="Login form")
        b, c, d = [await create(store, f"ses_{name}", updated=NOW_MS + n) for n, name in enumerate("bcd", start=1)]
        for story, text in (
            (b, "The login-form of src/main.py, in Z\u00fcrich, Bahnhofstraße 1 (Strasse)"),
            (c, "日本語のテキスト, done👍"),
        ):
            await store.append(story.id, [story.message(story.user()), story.part(story.prompt("prt_u1", text))])
        await store.append(d.id, [d.message(d.user()), d.message(d.assistant())])
        synthetic = replace(d.prompt("prt_1", "synthetic"), synthetic=True)
        await store.append(d.id, [d.part(synthetic), d.part(d.text("prt_2")), d.delta("prt_2", "answer")])
        await store.append(d.id, [d.part(d.text("prt_2", "answered", closed=True)), d.part(d.text("prt_3"))])
        await store.append(d.id, [d.delta("prt_3", "streaming"), d.part(d.reasoning("prt_4", "thought", closed=True))])
        await store.append(d.id, [d.part(d.tool("prt_5", "completed", "output"))])

        assert await found(store, search=search) == expected
        assert [difference async for difference in store.verify()] == []

    @pytest.mark.parametrize(
        "search",
        [
            *(
                '"',
                "'",
                '"a" OR',
                "a*",
                "NEAR(a b)",
                "a AND NOT b",
                "words: a",
                "^a",
                "{a}",
                "a:b",
                "-a",
                "(",
                "%",
                "_",
            ),
            *("\\", "NOT", "*", "+", ",", "\0"),
            *("a" * 10_000, "a " * 5_000, "é" * 3_000, "👍" * 2_000, '" ' * 5_000),
        ],
    )
    async def test_no_query_is_an_operator_or_an_error(self, store: SessionStore, search: str) -> None:
        await create(store, "ses_a", title=f"x {search} y")
        b = await create(store, "ses_b", title="b")
        await store.append(b.id, [b.message(b.user()), b.part(b.prompt("prt_u1", "zzz"))])

        assert await found(store, search=search) == "a"

    async def test_a_blank_search_leaves_out_nothing(self, store: SessionStore) -> None:
        await create(store, "ses_a")

        assert await found(store, search=" \t\n") == "a"

    async def test_a_search_goes_with_every_other_condition(self, store: SessionStore) -> None:
        for number, name in enumerate("abc"):
            story = await create(store, f"ses_{name}", directory=f"/{number % 2}", updated=NOW_MS + number)
            await store.append(story.id, [story.message(story.user()), story.part(story.prompt("prt_u1", "anchor"))])

        assert await found(store, search="anchor", directory="/0") == "ca"
        assert await found(store, search="anchor", limit=2) == "cb"
        page = await store.session_page(SessionQuery(search="anchor", limit=1))
        assert (names(page.sessions), page.next) == ("c", NOW_MS + 2)

    async def test_what_was_changed_or_removed_is_not_found_any_more(self, store: SessionStore) -> None:
        story = await create(store, "ses_a")
        part = story.prompt("prt_u1", "before")
        await store.append(story.id, [story.message(story.user()), story.part(part)])
        await store.append(story.id, [story.part(story.prompt("prt_u2", "second"))])
        assert await found(store, search="before") == await found(store, search="second") == "a"

        await store.append(story.id, [story.part(replace(part, text="after"))])
        assert await found(store, search="before") == ""
        assert await found(store, search="after") == "a"
        await store.append(story.id, [story.part_removed("prt_u1", "msg_u1")])
        assert await found(store, search="after") == ""
        assert await found(store, search="second") == "a"
        await store.append(story.id, [story.removed("msg_u1")])
        assert await found(store, search="second") == ""
        await store.append(story.id, [story.message(story.user()), story.part(story.prompt("prt_u1", "third"))])
        assert await found(store, search="third") == "a"
        assert [difference async for difference in store.verify()] == []
        await store.append(story.id, [story.deleted()])
        assert await found(store, search="third") == ""
        assert [difference async for difference in store.verify()] == []

    async def test_the_status_of_every_session_that_is_not_idle(self, store: SessionStore) -> None:
        a, b = await create(store, "ses_a", directory="/one"), await create(store, "ses_b", directory="/two")
        c = await create(store, "ses_c", directory="/two")
        retry = StatusRetry(attempt=2, message="Overloaded", next=NOW_MS)
        assert await store.statuses() == {}
        await store.append(a.id, [a.status()])
        await store.append(b.id, [b.status(), b.status(retry)])
        await store.append(c.id, [c.status(), c.status(IDLE)])

        assert await store.statuses() == {"ses_a": BUSY, "ses_b": retry}
        assert await store.statuses("/two") == {"ses_b": retry}

    async def test_a_directory_is_remembered_after_its_last_session(self, store: SessionStore) -> None:
        a = await create(store, "ses_a", directory="/one", project_id="p1", updated=NOW_MS + 1)
        await create(store, "ses_b", directory="/one", project_id="p1", updated=NOW_MS + 7)
        await create(store, "ses_c", directory="/two", project_id="p2", updated=NOW_MS + 3)
        await store.append(a.id, [a.deleted()])

        assert list(await store.directories()) == [
            Directory("/one", "p1", NOW_MS, NOW_MS + 7),
            Directory("/two", "p2", NOW_MS, NOW_MS + 3),
        ]

    # --- messages

    async def test_an_open_part_has_the_text_streamed_so_far(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), story.part(story.reasoning("prt_2", "Well"))])
        for number in range(5):
            await store.append(story.id, [story.delta("prt_1", f"t{number}"), story.delta("prt_2", f"r{number}")])
        parts = (story.text("prt_1", "t0t1t2t3t4"), story.reasoning("prt_2", "Wellr0r1r2r3r4"))

        assert (await store.message(story.id, "msg_a1")).parts == parts
        assert as_message((await store.message_page(story.id)).messages[-1]).parts == parts
        step = (await store.turn_state(story.id)).step
        assert step is not None
        assert step.parts == parts

        await store.append(story.id, [story.part(story.text("prt_1", "other")), story.delta("prt_1", "!")])
        assert (await store.message(story.id, "msg_a1")).parts[0] == story.text("prt_1", "other!")

    async def test_pages_go_back_from_the_newest_message(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        for number in range(5):
            await store.append(
                story.id,
                [
                    story.message(story.user(f"msg_{number}")),
                    story.part(story.prompt(f"prt_{number}", "Hi", f"msg_{number}")),
                ],
            )
        # Neither an id that sorts first nor an update changes the order: it is that of the records that added them.
        await store.append(story.id, [story.message(story.user("msg_0")), story.message(story.user("aaa"))])

        newest = await store.message_page(story.id, limit=2)
        assert [message.id for message in newest.messages] == ["msg_4", "aaa"]
        assert newest.more
        older = await store.message_page(story.id, limit=2, before=newest.messages[0].version)
        assert [message.id for message in older.messages] == ["msg_2", "msg_3"]
        assert older.more
        oldest = await store.message_page(story.id, limit=2, before=older.messages[0].version)
        assert [message.id for message in oldest.messages] == ["msg_0", "msg_1"]
        assert not oldest.more
        whole = await store.message_page(story.id)
        assert not whole.more
        assert tuple(map(as_message, whole.messages)) == await store.history(story.id)
        assert (await store.message_page(story.id, limit=0)).messages == ()
        assert (await store.message_page(story.id, limit=0)).more
        assert (await store.message_page(story.id, limit=6)).messages == whole.messages
        assert not (await store.message_page(story.id, limit=6)).more

    async def test_pages_go_on_from_the_oldest_message(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [story.created()])
        for number in range(5):
            await store.append(
                story.id,
                [
                    story.message(story.user(f"msg_{number}")),
                    story.part(story.prompt(f"prt_{number}", "Hi", f"msg_{number}")),
                ],
            )
        seen: list[str] = []
        after = 0
        for expected in (2, 2, 1):
            page = await store.message_page(story.id, limit=2, after=after)
            assert len(page.messages) == expected
            assert page.more == (expected == 2)
            assert all(message.parts for message in page.messages)
            seen += [message.id for message in page.messages]
            after = page.messages[-1].version
        assert seen == [f"msg_{number}" for number in range(5)]
        assert await store.message_page(story.id, after=0) == await store.message_page(story.id)
        assert (await store.message_page(story.id, after=after)).messages == ()
        one = await store.message_page(story.id, after=0, before=after, limit=4)
        assert ([message.id for message in one.messages], one.more) == (seen[:4], False)

    async def test_a_message_that_was_removed_and_added_again_is_new(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), story.message(story.user("msg_u2"))])
        await store.append(story.id, [story.removed("msg_a1"), story.message(story.assistant())])
        await store.append(story.id, [story.part(story.text("prt_2")), story.part(story.text("prt_1", "again"))])

        history = await store.history(story.id)
        assert [message.info.id for message in history] == ["msg_u1", "msg_u2", "msg_a1"]
        assert [part.id for part in history[-1].parts] == ["prt_2", "prt_1"]

    async def test_removed_messages_and_parts_are_gone(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), story.part(story.tool("prt_2", "pending"))])
        await store.append(story.id, [story.part_removed("prt_1")])
        assert [part.id for part in (await store.message(story.id, "msg_a1")).parts] == ["prt_2"]
        with pytest.raises(NotFound):
            await store.append(story.id, [story.delta("prt_1", "x")])
        await store.append(story.id, [story.removed("msg_a1")])

        assert [message.info.id for message in await store.history(story.id)] == ["msg_u1"]
        with pytest.raises(NotFound):
            await store.append(story.id, [story.part(story.tool("prt_2", "running"))])

    # --- the turn

    async def test_the_state_is_the_fold_of_the_log_at_every_step_of_a_turn(self, store: SessionStore) -> None:
        story = Story()
        turn: list[Event] = [
            *story.streaming(),
            story.delta("prt_1", "Hel"),
            story.delta("prt_1", "lo"),
            story.message(story.user("msg_u2")),
            story.requested("msg_u2"),
            story.part(story.text("prt_1", "Hello", closed=True)),
            story.part(story.tool("prt_2", "pending")),
            story.permission_asked(),
            story.question_asked(),
            story.permission_replied(),
            story.part(story.tool("prt_2", "running")),
            story.message(story.user("msg_u3")),
            story.extended("msg_u3"),
            story.message(story.assistant("msg_a3", "msg_u3")),
            story.part(story.text("prt_4", message="msg_a3")),
            story.delta("prt_4", "on", "msg_a3"),
            story.suspended(),
            story.started(),
            story.started(),
            story.question_rejected(),
            story.part(story.tool("prt_2", "completed", "out")),
            story.message(story.assistant(completed=True)),
            story.message(story.assistant("msg_a2")),
            story.part(story.reasoning("prt_3", message="msg_a2")),
            story.delta("prt_3", "hm", "msg_a2"),
            story.abort_requested(),
            story.todo("a", "b"),
            story.updated(at=NOW_MS + 5, title="New"),
            story.message(story.assistant("msg_a2", completed=True)),
            story.ended(outcome="aborted"),
            story.status(IDLE),
            story.idled(),
            story.started("msg_u2"),
            story.diffed(),
            story.removed("msg_a1"),
            story.ended("msg_u2"),
        ]
        fold = Fold()
        for event in turn:
            assert fold.apply(event)
            await store.append(story.id, [event])
            await assert_state_is(fold, store, story.id)

        assert [type(event).type for event in turn] == types(await log(store))

    async def test_the_sessions_that_a_starting_server_takes_up(self, store: SessionStore) -> None:
        queued, running, done, gone = (Story(f"ses_{name}") for name in ("queued", "running", "done", "gone"))
        await store.append(queued.id, queued.prompted())
        await store.append(running.id, running.streaming())
        await store.append(done.id, [*done.prompted(), done.started(), done.ended()])
        await store.append(gone.id, [*gone.streaming(), gone.deleted()])

        assert sorted(await store.unfinished()) == ["ses_queued", "ses_running"]

    async def test_requests_are_pending_until_they_are_answered(self, store: SessionStore) -> None:
        a, b = Story("ses_a", directory="/one"), Story("ses_b", directory="/two")
        for story in (b, a):
            await store.append(story.id, story.streaming())
        await store.append(b.id, [b.permission_asked("per_2"), b.question_asked("que_2")])
        await store.append(a.id, [a.permission_asked("per_1"), a.question_asked("que_1"), a.question_asked("que_3")])

        async def pending(directory: str | None = None) -> list[str]:
            permissions = await store.pending_permissions(directory)
            questions = await store.pending_questions(directory)
            return [entry.request.id for entry in (*permissions, *questions)]

        assert await pending() == ["per_2", "per_1", "que_2", "que_1", "que_3"], "oldest first"
        assert await pending("/one") == ["per_1", "que_1", "que_3"]
        await store.append(
            a.id, [a.permission_replied("per_1"), a.question_replied("que_1"), a.question_rejected("que_3")]
        )
        assert await pending() == ["per_2", "que_2"]
        answered = await store.turn_state(a.id)
        assert [entry.reply for entry in answered.permissions] == ["once"]
        assert [(entry.answers, entry.rejected) for entry in answered.questions] == [((("Yes",),), False), (None, True)]
        await store.append(b.id, [b.ended()])
        assert await pending() == []
        assert (await store.turn_state(b.id)).permissions == ()

    async def test_a_request_that_is_asked_again_after_its_turn_is_a_new_one(self, store: SessionStore) -> None:
        """Also within one append."""
        a, b = Story("ses_a"), Story("ses_b")
        await store.append(a.id, [*a.streaming(), a.permission_asked(), a.question_asked()])
        await store.append(b.id, [*b.streaming(), b.permission_asked(), b.question_asked()])
        await store.append(
            a.id, [a.permission_replied(), a.question_replied(), a.ended(), a.permission_asked(), a.question_asked()]
        )

        assert [entry.request.session_id for entry in await store.pending_permissions()] == ["ses_b", "ses_a"]
        assert [entry.request.session_id for entry in await store.pending_questions()] == ["ses_b", "ses_a"]
        assert [difference async for difference in store.verify()] == []

    async def test_what_a_user_always_allows_is_remembered_for_the_project(self, store: SessionStore) -> None:
        """Once each, longer than the session, and not what was allowed once."""
        a, b = Story("ses_a", project_id="p1"), Story("ses_b", project_id="p2")
        for story in (a, b):
            await store.append(
                story.id, [*story.streaming(), story.permission_asked(), story.permission_asked("per_2")]
            )
        await store.append(b.id, [b.permission_replied(reply="once"), b.permission_replied("per_2", "reject")])
        assert list(await store.approvals("p1")) == list(await store.approvals("p2")) == []
        await store.append(a.id, [a.permission_replied(reply="always"), a.permission_replied("per_2", "always")])
        await store.append(a.id, [a.deleted()])
        while await store.compact(closed_before_ms=NOW_MS + 1, records_max=100):
            pass

        assert list(await store.approvals("p1")) == [PermissionRule(permission="bash", pattern="ls *", action="allow")]
        assert list(await store.approvals("p2")) == []
        assert [difference async for difference in store.verify()] == []

    # --- snapshots

    async def test_a_snapshot_has_the_sessions_that_are_busy_or_changed_lately(self, store: SessionStore) -> None:
        busy = Story("ses_busy", directory="/one", time=SessionTime(created=NOW_MS, updated=NOW_MS + 1))
        await store.append(busy.id, [*busy.streaming(), busy.delta("prt_1", "Hel")])
        await create(store, "ses_old", directory="/one", updated=NOW_MS + 4)
        await create(store, "ses_new", directory="/one", updated=NOW_MS + 5)
        await create(store, "ses_two", directory="/two", updated=NOW_MS + 6)

        async def snapshot(scope: Scope, sessions_max: int = 10) -> list[str]:
            found = await store.snapshot(scope, changed_since_ms=NOW_MS + 5, sessions_max=sessions_max, messages_max=1)
            assert found.offset == store.head()
            return [msgspec.json.decode(session.session)["id"] for session in found.sessions]

        assert await snapshot(ALL) == ["ses_two", "ses_new", "ses_busy"]
        assert await snapshot(ALL, 1) == ["ses_two"]
        assert await snapshot(DirectoryScope("/one")) == ["ses_new", "ses_busy"]
        assert await snapshot(SessionScope("ses_busy")) == ["ses_busy"]
        assert await snapshot(SessionScope("ses_old")) == []
        with pytest.raises(NotFound):
            await snapshot(SessionScope("ses_unknown"))

        (found,) = (
            await store.snapshot(SessionScope(busy.id), changed_since_ms=0, sessions_max=1, messages_max=1)
        ).sessions
        assert (found.directory, found.project_id, found.status) == ("/one", "global", BUSY)
        (message,) = found.messages
        assert as_message(message) == WithParts(info=busy.assistant(), parts=(busy.text("prt_1", "Hel"),))

    async def test_a_subscription_after_a_snapshot_goes_on_where_it_ends(self, store: SessionStore) -> None:
        story = Story()
        await store.append(story.id, [*story.streaming(), story.delta("prt_1", "Hel")])
        snapshot = await store.snapshot(ALL, changed_since_ms=0, sessions_max=1, messages_max=5)
        await store.append(story.id, [story.delta("prt_1", "lo")])
        records = await collect(store.subscribe(ALL, after=snapshot.offset), 1)

        assert b'"delta":"lo"' in records[0].data
