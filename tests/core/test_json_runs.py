import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Invalid
from holdfast.core.json_runs import split, to_array, to_run

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.lists(VALUES), st.sampled_from([None, 1]), st.text(" \t\n", max_size=2))
def test_an_array_gives_its_elements_and_joined_runs_are_an_array_again(
    values: list[Any], indent: int | None, space: str
) -> None:
    run = to_run((space + json.dumps(values, indent=indent) + space).encode())

    assert [json.loads(message) for message in split(run)] == values
    assert json.loads(to_array(run + run)) == values + values


@given(VALUES.filter(lambda value: not isinstance(value, list)))
def test_anything_else_is_one_message(value: Any) -> None:
    assert json.loads(to_array(to_run(json.dumps(value).encode()))) == [value]


@given(st.binary(max_size=30) | st.text('[]{}",:0123456789.eE+-truefalsn \\u', max_size=30).map(str.encode))
def test_what_gets_in_can_be_read_by_anybody(body: bytes) -> None:
    """Whatever is accepted is JSON for another parser too: one bad append must not spoil the stream for every reader."""
    try:
        run = to_run(body)
    except Invalid:
        return
    messages = json.loads(to_array(run)) if run else []

    value = json.loads(body)
    assert messages == (value if isinstance(value, list) else [value])


@pytest.mark.parametrize(
    "body", [b"", b"[1,]", b"[1] 2", b"NaN", b"\xff", b'"\xff"', b'"\x01"', b"[" * 100_000, b"\xef\xbb\xbf1"]
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid):
        to_run(body)
