import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Invalid
from holdfast.core.ids import IdGenerator, check_id

T = 1_795_219_535_462


def generator(times: list[int], not_before_ms: int = 0) -> IdGenerator:
    return IdGenerator(iter(times).__next__, os.urandom, not_before_ms=not_before_ms)


def test_an_id_has_the_format_of_opencode():
    id = generator([T]).new("msg")
    assert len(id) == len("msg_1fb6c365d001c5z61P1ae2h4Mn")
    assert id[:4] == "msg_"
    assert int(id[4:16], 16) == (T * 4096 + 1) & ((1 << 48) - 1)
    assert id[16:].isalnum()


@given(st.lists(st.integers(T, T + 50), min_size=2, max_size=200))
def test_ascending_ids_grow_and_session_ids_fall_whatever_the_clock_does(times: list[int]):
    ids = generator(times)
    made = [ids.new("evt") for _ in times]
    assert sorted(made) == made
    ids = generator(times)
    made = [ids.new("ses") for _ in times]
    assert sorted(made, reverse=True) == made


def test_ids_grow_over_a_restart_when_the_clock_was_set_back():
    before = generator([T]).new("msg")
    after = generator([T - 86_400_000], not_before_ms=T).new("msg")
    assert after > before


def test_the_time_field_wraps_without_an_error():
    wrap = 1 << 36
    assert generator([wrap - 1]).new("msg") > generator([wrap]).new("msg")


@pytest.mark.parametrize(
    "value", ["", "msg", "ses_1", "msg_", "msg_é", "msg_\n", "msg_" + "x" * 200, "../msg_1", "msg_/../x", "msg_\\x"]
)
def test_a_bad_id_from_a_client_is_the_clients_fault(value: str):
    with pytest.raises(Invalid) as raised:
        check_id("msg", value, "messageID")
    assert raised.value.field == "messageID"


def test_an_id_that_a_client_brings_is_taken_as_it_is():
    assert check_id("msg", "msg_mine", "messageID") == "msg_mine"
