"""The bounded view of a command's output."""

import asyncio
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.agent.tools.output import BYTES_MAX, LINES_MAX, CommandOutput, OutputWindow

anything = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.lists(st.sampled_from([b"a\n", "é€😀\n".encode(), b"\xff", b"\r\n", b"\n", b"x" * 40]), max_size=200).map(
        b"".join
    ),
)
limits = st.tuples(st.integers(2, 200), st.integers(2, 40))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def window(*chunks: bytes) -> OutputWindow:
    seen = OutputWindow()
    for chunk in chunks:
        seen.add(chunk)
    return seen


@given(anything, st.lists(st.integers(0), max_size=10), limits, st.booleans())
def test_any_cuts_give_the_same_text(data: bytes, places: list[int], limits: tuple[int, int], growing: bool) -> None:
    """However the bytes are cut when they are read, every view of them is the same."""
    bytes_max, lines_max = limits
    views = {
        (seen.text(bytes_max=bytes_max, lines_max=lines_max, growing=growing), seen.bytes_total, seen.lines_total)
        for seen in (window(data), window(*cut(data, places)))
    }

    assert len(views) == 1


@given(st.integers(BYTES_MAX - 3, 4 * BYTES_MAX), st.lists(st.integers(0), max_size=10))
def test_any_cuts_give_the_same_text_when_much_is_left_out(size: int, places: list[int]) -> None:
    """The same for outputs that do not fit into memory."""
    data = "".join(f"line {n} é€😀\n" for n in range(size // 16)).encode()

    assert window(data).text() == window(*cut(data, places)).text()


@given(st.text(max_size=100), st.integers(0))
def test_what_is_shown_of_a_growing_text_is_its_beginning(text: str, place: int) -> None:
    """A prefix of valid UTF-8, cut anywhere, is shown as a prefix of the text."""
    data = text.encode()

    assert text.startswith(window(data[: place % (len(data) + 1)]).text(growing=True))


@given(anything, limits)
def test_what_is_left_out_and_what_is_shown_are_all(data: bytes, limits: tuple[int, int]) -> None:
    """Over a limit, the text is the output's beginning, a note, and the output's end; within it, the whole output."""
    bytes_max, lines_max = limits
    seen = window(data)
    text = seen.text(bytes_max=bytes_max, lines_max=lines_max, omitted="<OMITTED>")
    whole = data.decode(errors="replace")

    if not seen.exceeds(bytes_max, lines_max):
        assert text == whole
        return
    head, _, rest = text.rpartition("<OMITTED>]\n\n")[0].rpartition("\n[")
    tail = text.rpartition("<OMITTED>]\n\n")[2]
    assert whole.startswith(head.rstrip("\n"))
    assert whole.endswith(tail) or "\ufffd" in tail
    assert len(head.encode(errors="ignore")) <= 3 * bytes_max // 2 + 2
    assert text.count("\n") <= lines_max + 4
    assert rest.endswith("lines left out")


@given(st.text(alphabet="aé€😀\n"), st.tuples(st.integers(8, 60), st.integers(2, 20)), st.booleans())
def test_shortening_breaks_no_character(text: str, limits: tuple[int, int], growing: bool) -> None:
    """What is left out never begins or ends in the middle of a character."""
    bytes_max, lines_max = limits

    assert "\ufffd" not in window(text.encode()).text(bytes_max=bytes_max, lines_max=lines_max, growing=growing)


@given(st.lists(st.integers(1, BYTES_MAX), max_size=6))
def test_over_the_limit_the_file_has_every_byte(sizes: list[int]) -> None:
    """The file is exactly what was written if the result is shortened; otherwise there is none."""
    chunks = [bytes([n]) * size for n, size in enumerate(sizes)]
    with tempfile.TemporaryDirectory() as directory:
        output = CommandOutput(Path(directory) / "made" / "prt_1.txt")

        async def take() -> None:
            for chunk in chunks:
                await output.take(chunk)

        asyncio.run(take())
        output.close()

        assert output.path.exists() == output.is_truncated
        if output.is_truncated:
            assert output.path.read_bytes() == b"".join(chunks)
            assert str(output.path) in output.result()


@pytest.mark.parametrize(
    ("data", "is_too_long"),
    [
        (b"", False),
        (b"x" * BYTES_MAX, False),
        (b"x" * (BYTES_MAX + 1), True),
        (b"x\n" * LINES_MAX, False),
        (b"x\n" * LINES_MAX + b"y", True),
    ],
)
def test_the_limits(data: bytes, is_too_long: bool) -> None:
    assert window(data).exceeds(BYTES_MAX, LINES_MAX) is is_too_long
