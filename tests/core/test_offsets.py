import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Invalid
from holdfast.core.offsets import BEGINNING, Offset, parse_offset, split_place, to_offset, to_place, to_position

positions = st.integers(0, 10**16 - 1)


@given(positions, positions)
def test_offsets_sort_as_their_positions_do(a: int, b: int):
    assert (a < b) == (to_offset(a) < to_offset(b))


@given(positions)
def test_an_offset_survives_the_client(position: int):
    assert position == to_position(parse_offset(to_offset(position)))


def test_the_beginning_is_before_everything():
    assert to_offset(0) == BEGINNING < to_offset(1)


@given(positions, positions)
def test_a_place_is_in_the_record_that_its_first_half_names(position: int, inner: int):
    """There is none at 0: a place in it, which only a client can make up, is the beginning."""
    place = to_place(Offset(f"{position:016d}_{inner:016d}"))
    assert split_place(place) == (position, inner if position else 0)


@pytest.mark.parametrize(
    "text", ["", "-1", "now", "1", "0" * 33, "0000000000000042", "0000000000000042_00000000000000000", "٠" * 16]
)
def test_an_offset_that_was_made_up_is_refused(text: str):
    with pytest.raises(Invalid):
        parse_offset(text)
