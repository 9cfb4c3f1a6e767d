"""Where a page of sessions ends."""

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from holdfast.storage.session_pages import FRACTIONS, Listed, page_of

NOW_MS = 1_795_657_299_696
IN_2105_MS = 4_268_000_000_000

TIMES = st.sampled_from([NOW_MS, NOW_MS + 1, IN_2105_MS])
NUMBERS = st.integers(0, 9 * FRACTIONS) | st.integers(0, 40).map(lambda number: number * FRACTIONS)


def listed(*places: tuple[int, int]) -> list[Listed]:
    found = [Listed(b"%d/%d" % place, *place) for place in places]
    return sorted(found, key=lambda one: (one.updated, one.number), reverse=True)


@given(st.dictionaries(NUMBERS, TIMES, max_size=30), st.integers(1, 9))
def test_pages_give_each_session_once_and_a_cursor_survives_json(found: dict[int, int], limit: int):
    """A page has at most its limit, unless all of it has one place; and never ends before it has begun."""
    sessions = listed(*((updated, number) for number, updated in found.items()))
    seen: list[Listed] = []
    cursor: float | None = math.inf
    while cursor is not None:
        left = [one for one in sessions if one.place < cursor]
        newest = left[: limit + 1]
        page, following = page_of(newest, limit, lambda ms, left=left: [one for one in left if one.updated == ms])
        assert page or not left
        assert len(page) <= limit or len({one.place for one in page}) == 1
        assert [one.updated for one in page] == sorted((one.updated for one in page), reverse=True)
        seen += page
        cursor = None if following is None else json.loads(json.dumps(following))
        assert cursor == following

    assert len(seen) == len(sessions)
    assert set(seen) == set(sessions)


def test_the_cursor_is_a_whole_number_where_a_millisecond_ends():
    newest, second, third = listed((NOW_MS + 1, 1), (NOW_MS, 3), (NOW_MS, 2))

    assert page_of([newest, second], 1, lambda ms: [second, third]) == ([newest], NOW_MS + 1)
    page, following = page_of([newest, second, third], 2, lambda ms: [second, third])
    assert (page, following) == ([newest, second], NOW_MS + 3 / FRACTIONS)


def test_those_that_cannot_be_told_apart_stay_on_one_page():
    """They were updated in the same millisecond, and a multiple of 2048 others was made between them."""
    alike = listed(*((NOW_MS, number * FRACTIONS) for number in (1, 2, 3)))
    [other] = listed((NOW_MS + 1, 7))

    assert page_of([other, *alike][:3], 2, lambda ms: alike) == ([other], NOW_MS + 1)
    assert page_of(alike, 2, lambda ms: alike) == (alike, NOW_MS)


def test_a_page_that_is_not_full_is_the_last():
    assert page_of(listed((NOW_MS, 1)), 1, lambda ms: []) == (listed((NOW_MS, 1)), None)
    assert page_of(listed((NOW_MS, 1)), 0, lambda ms: []) == ([], None)
