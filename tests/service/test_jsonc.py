"""JSON with comments and trailing commas."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.service.jsonc import Document, JsonError, line_and_column

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.sampled_from([None, 0, 2]))
def test_plain_json_means_what_it_means_elsewhere(value: Any, indent: int | None) -> None:
    assert Document(json.dumps(value, indent=indent, ensure_ascii=indent == 2)).value == value


@given(st.data())
def test_comments_and_trailing_commas_change_nothing(data: st.DataObject) -> None:
    space = st.sampled_from([" ", "\n", "\t", '// it\'s "a" {comment\n', "/* , ] } */", "/***/", ""])

    def written(value: Any) -> str:
        gap, comma = data.draw(space), data.draw(st.sampled_from(["", ","]))
        match value:
            case dict():
                items = [
                    f"{gap}{json.dumps(key)}{data.draw(space)}:{data.draw(space)}{written(item)}{gap}"
                    for key, item in value.items()
                ]
                return "{" + ",".join(items) + (comma if items else "") + gap + "}"
            case list():
                items = [f"{gap}{written(item)}{data.draw(space)}" for item in value]
                return "[" + ",".join(items) + (comma if items else "") + gap + "]"
            case _:
                return json.dumps(value)

    value = data.draw(values)

    assert Document(f"{data.draw(space)}{written(value)}{data.draw(space)}").value == value


@given(st.text(alphabet='{}[]",:/*\\ \nabtrue019.-e', max_size=30) | st.text(max_size=30))
def test_any_text_is_read_or_refused_at_a_place(text: str) -> None:
    try:
        places = Document(text).offsets.values()
    except JsonError as error:
        places = [error.offset]

    assert all(0 <= place <= len(text) for place in places)


def test_every_value_has_its_place() -> None:
    text = '{\n  "a": [1, {"b": "c"}], // x\n}'
    document = Document(text)

    assert {path: text[offset] for path, offset in document.offsets.items()} == {
        (): "{",
        ("a",): "[",
        ("a", 0): "1",
        ("a", 1): "{",
        ("a", 1, "b"): '"',
    }
    assert line_and_column(text, document.offsets["a", 1, "b"]) == (2, 18)


@pytest.mark.parametrize(
    ("text", "place", "complaint"),
    [
        ("", (1, 1), "A value is expected"),
        ('{"a" 1}', (1, 6), '":" is expected'),
        ('{\n"a": 1\n"b": 2}', (3, 1), '"," or "}" is expected'),
        ("{a: 1}", (1, 2), "A key in double quotes"),
        ('{"a": 1,, "b": 2}', (1, 9), "A key in double quotes"),
        ('["a\nb"]', (1, 2), "no closing quote"),
        ('["\\x"]', (1, 2), "an escape that JSON does not know"),
        ("[1] [2]", (1, 5), "Nothing more"),
        ("/* [1]", (1, 1), "This comment has no end"),
        ("[tru]", (1, 2), "A value is expected"),
        ("[NaN]", (1, 2), "A value is expected"),
        ("[01]", (1, 2), "A value is expected"),
        ("[" * 200, (1, 102), "Nested more than 100 deep"),
    ],
)
def test_a_mistake_has_a_line_and_a_column(text: str, place: tuple[int, int], complaint: str) -> None:
    with pytest.raises(JsonError, match=complaint) as refused:
        Document(text)

    assert line_and_column(text, refused.value.offset) == place
