"""Line breaks, byte order marks and everything that is not replaced stay as they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.source_text import Replacement, SourceText

lines = st.lists(st.tuples(st.text("ab é\r", max_size=6), st.sampled_from(["\n", "\r\n"])), max_size=8)
files = st.builds(
    lambda mark, lines, last: (mark + "".join(line + end for line, end in lines) + last).encode(),
    st.sampled_from(["", "\ufeff"]),
    lines,
    st.text("ab", max_size=4),
)


@given(files)
def test_a_file_that_is_decoded_and_encoded_is_the_same(data: bytes) -> None:
    source = SourceText.decode(data, "a.txt")

    assert source.encode() == data
    assert source.text == data.decode().removeprefix("\ufeff").replace("\r\n", "\n")


@given(files, st.data())
def test_a_replacement_gives_the_text_asked_for_and_leaves_the_other_bytes(data: bytes, draw: st.DataObject) -> None:
    """The text is as if it had been replaced in `text`; what is before and after keeps every byte."""
    source = SourceText.decode(data, "a.txt")
    start = draw.draw(st.integers(0, len(source.text)))
    end = draw.draw(st.integers(start, len(source.text)))
    new = draw.draw(st.text("ab\n", max_size=6))

    changed = source.replaced([Replacement(start, end, new)])

    after = SourceText.decode(changed, "a.txt")
    if "\r" not in source.text:  # a lone CR before a new line break would make a pair of them
        assert after.text == source.text[:start] + new + source.text[end:]
    before = SourceText(source.text[:start], tuple(at for at in source.crlf if at < start), source.has_mark).encode()
    assert changed.startswith(before)
    rest = SourceText(source.text[end:], tuple(at - end for at in source.crlf if at >= end)).encode()
    assert changed.endswith(rest)


@given(st.lists(st.text("ab", max_size=4), min_size=2, max_size=6), st.text("ab\n", max_size=6), st.data())
def test_a_file_with_one_kind_of_line_break_keeps_it(texts: list[str], new: str, draw: st.DataObject) -> None:
    source = SourceText.decode("\r\n".join(texts).encode(), "a.txt")
    start = draw.draw(st.integers(0, len(source.text)))

    changed = source.replaced([Replacement(start, start, new)]).decode()

    assert changed.replace("\r\n", "").count("\n") == 0


def test_new_lines_take_the_break_of_the_line_they_are_put_into() -> None:
    source = SourceText.decode(b"unix\nwindows\r\nunix\n", "a.txt")
    at = source.text.index("windows")

    assert source.replaced([Replacement(at, at, "x\n")]) == b"unix\nx\r\nwindows\r\nunix\n"
    assert source.replaced([Replacement(0, 0, "x\n")]) == b"x\nunix\nwindows\r\nunix\n"


def test_lines_of_the_context_that_do_not_change_keep_their_breaks() -> None:
    source = SourceText.decode(b"a\r\nb\nc\r\n", "a.txt")

    assert source.replaced([Replacement(0, 6, "a\nB\nc\n")]) == b"a\r\nB\nc\r\n"


def test_a_whole_new_content_takes_mark_and_line_breaks_of_the_old_one() -> None:
    assert SourceText.decode(b"\xef\xbb\xbfa\r\nb\r\n", "f").rewritten("x\ny\n") == b"\xef\xbb\xbfx\r\ny\r\n"
    assert SourceText.decode(b"a\nb\r\nc\n", "f").rewritten("x\ny\n") == b"x\ny\n"
    assert SourceText.decode(b"a\nb\n", "f").rewritten("x\r\ny\r\n") == b"x\r\ny\r\n"


@pytest.mark.parametrize("data", [b"\xff\xfea\x00", b"caf\xe9", b"a\0b"])
def test_what_is_not_utf_8_text_is_refused(data: bytes) -> None:
    with pytest.raises(ToolFailure, match="f is not UTF-8 text"):
        SourceText.decode(data, "f")


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ToolFailure, match="surrogate"):
        SourceText.decode(b"a", "f").rewritten("\ud800")
