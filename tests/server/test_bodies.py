import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Invalid
from holdfast.core.messages import Part, TextPart
from holdfast.server.bodies import NESTING_MAX, decode_body

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda below: st.lists(below) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), below),
    max_leaves=30,
)


def depth(value: Any) -> int:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if below is None else 1 + max(map(depth, below), default=0)


def has_nul(value: Any) -> bool:
    if isinstance(value, dict):
        return any(has_nul(item) for pair in value.items() for item in pair)
    return any(map(has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


@given(VALUES, st.booleans())
def test_whatever_is_json_is_read_as_it_is_unless_it_holds_a_nul(value: Any, ascii_only: bool):
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    if has_nul(value):
        with pytest.raises(Invalid):
            decode_body(Any, body)
    else:
        assert decode_body(Any, body) == value


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_json_or_refused(body: bytes):
    with contextlib.suppress(Invalid):
        decode_body(Any, body)


@pytest.mark.parametrize("inner", ["1", '"]]]}}}"', '"\\""', '"[[["'])
def test_nesting_is_counted_outside_of_texts(inner: str):
    deepest = "[" * NESTING_MAX + inner + "]" * NESTING_MAX
    assert depth(decode_body(Any, deepest.encode())) == NESTING_MAX
    with pytest.raises(Invalid):
        decode_body(Any, f"[{deepest}]".encode())


def test_many_brackets_side_by_side_are_no_nesting():
    assert len(decode_body(Any, b"[" + b",".join([b"[{}]"] * 1000) + b"]")) == 1000


def test_a_body_may_be_one_of_several_types():
    part = {"type": "text", "id": "prt_x", "sessionID": "ses_x", "messageID": "msg_x", "text": "x"}

    assert isinstance(decode_body(Part, json.dumps(part).encode()), TextPart)


def test_an_error_names_the_place():
    with pytest.raises(Invalid) as refused:
        decode_body(TextPart, b'{"type":"text","id":5}')
    assert refused.value.field == "id"
