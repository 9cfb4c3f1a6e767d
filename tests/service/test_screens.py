"""What a terminal has shown: cursors count UTF-16 units, and lead back to where a reader was."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.service.screens import Screen


def units(text: str) -> int:
    return len(text.encode("utf-16-le", errors="surrogatepass")) // 2


TEXT = st.text(alphabet="ab\né😀\u4e2d", max_size=30)


@given(pieces=st.lists(st.binary(max_size=8) | TEXT.map(str.encode), max_size=12))
def test_bytes_cut_anywhere_become_the_text_that_they_are_together(pieces: list[bytes]) -> None:
    screen = Screen()
    for piece in pieces:
        screen.show(piece)
    screen.finish()
    assert screen.read(0, 10_000) == (b"".join(pieces).decode(errors="replace"), screen.end)


@given(texts=st.lists(TEXT, max_size=8), sizes=st.lists(st.integers(1, 7), min_size=1, max_size=50))
def test_a_reader_gets_every_character_once_and_its_cursor_counts_what_a_client_counts(
    texts: list[str], sizes: list[int]
) -> None:
    screen = Screen()
    for text in texts:
        screen.show(text.encode())
    whole = "".join(texts)
    read, cursor = "", 0
    for size in sizes * (len(whole) + 1):
        text, cursor = screen.read(cursor, size)
        assert units(text) <= size + 1
        read += text
        assert cursor == units(read)
    assert read == whole


@given(texts=st.lists(TEXT, max_size=10), kept=st.integers(1, 20), cursor=st.integers(0, 400))
def test_only_the_newest_is_kept_and_any_cursor_is_answered(texts: list[str], kept: int, cursor: int) -> None:
    screen = Screen(units_max=kept)
    for text in texts:
        screen.show(text.encode())
    whole = "".join(texts)
    assert screen.end == units(whole)
    assert screen.end - screen.start <= kept
    text, after = screen.read(cursor, 1000)
    assert whole.endswith(text)
    assert "\ufffd" not in text
    assert after == screen.end
