"""What an LLM wants to replace is found where it is meant, or not at all."""

import textwrap

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.replacing import replacements

FILE = textwrap.dedent("""\
    class A:
        def one(self):
            return 1

        def two(self):
            return 2
    """)


def replaced(text: str, old: str, new: str, *, everywhere: bool = False) -> str:
    for place in reversed(replacements(text, old, new, everywhere=everywhere, name="f")):
        text = text[: place.start] + place.new + text[place.end :]
    return text


@given(st.text("ab \n", max_size=30), st.text("ab \n", max_size=6), st.data())
def test_what_is_there_once_is_replaced_exactly_there(text: str, new: str, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(text)))
    end = draw.draw(st.integers(start, len(text)))
    old = text[start:end]
    assume(old and text.find(old) == start and text.find(old, start + 1) < 0)

    assert replaced(text, old, new) == text[:start] + new + text[end:]


@given(st.text("ab\n", max_size=30), st.text("ab\n", min_size=1, max_size=3), st.text("abc", max_size=3))
def test_everywhere_is_what_replace_does(text: str, old: str, new: str) -> None:
    assume(old in text)

    assert replaced(text, old, new, everywhere=True) == text.replace(old, new)


def test_two_places_are_refused_with_their_lines() -> None:
    with pytest.raises(ToolFailure, match=r"f 2 times, at lines 2, 5\. Add lines .* or set replaceAll"):
        replaced(FILE, "(self):", "(cls):")


def test_white_space_at_line_ends_does_not_matter_for_whole_lines() -> None:
    assert replaced("a \n\tb\t\nc\n", "a\n\tb\n", "x\n") == "x\nc\n"
    assert replaced("a\nb\nc\n", "a  \nb ", "x") == "x\nc\n"


def test_lines_with_another_indentation_are_found_and_the_new_ones_shifted() -> None:
    assert replaced(
        FILE, "def two(self):\n    return 2\n", "def two(self):\n    if True:\n\n        return 3\n"
    ) == FILE.replace("        return 2\n", "        if True:\n\n            return 3\n")
    assert replaced("a:\n  b\n", "    a:\n      b", "    a:\n      c") == "a:\n  c\n"


def test_an_indentation_that_differs_from_line_to_line_is_not_guessed() -> None:
    with pytest.raises(ToolFailure, match="is not in f"):
        replaced(FILE, "def two(self):\n  return 2\n", "pass\n")
    with pytest.raises(ToolFailure, match="is not in f"):
        replaced("a:\n  b\n", "    a:\n      b", "  a:\n  c")


def test_lines_that_fit_at_two_places_are_refused() -> None:
    with pytest.raises(ToolFailure, match="2 times, at lines 1, 4"):
        replaced("  a\n  b\nx\n  a\n  b\n", "a\nb\n", "c\n")


def test_lines_replaced_by_nothing_leave_no_empty_line() -> None:
    assert replaced("a \nb\nc\n", "a\nb", "") == "c\n"
    assert replaced("x\na \nb", "a\nb", "") == "x\n"


def test_a_line_break_that_would_vanish_is_not_guessed() -> None:
    with pytest.raises(ToolFailure):
        replaced("a \nb\n", "a\n", "x")


def test_blank_lines_alone_are_found_only_exactly() -> None:
    with pytest.raises(ToolFailure):
        replaced("a\n  \nb\n", "\n\n", "")


def test_what_is_not_there_is_answered_with_what_is_closest() -> None:
    with pytest.raises(ToolFailure) as failure:
        replaced(FILE, "        def two(self):\n            return 22\n", "")

    assert "4: \n5:     def two(self):\n6:         return 2\n" in failure.value.message
    with pytest.raises(ToolFailure, match="Read the file again"):
        replaced(FILE, "something else entirely", "")


@given(st.text("a \n", max_size=40), st.text("a \n", min_size=1, max_size=10), st.text("a \n", max_size=10))
def test_whatever_is_asked_there_is_an_answer(text: str, old: str, new: str) -> None:
    """Either one place, inside the text, or a failure."""
    try:
        places = replacements(text, old, new, everywhere=False, name="f")
    except ToolFailure:
        return
    assert len(places) == 1
    assert 0 <= places[0].start <= places[0].end <= len(text)
