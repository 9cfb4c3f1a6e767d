"""Changes to JSON with comments."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.service.jsonc import Document
from holdfast.service.jsonc_edit import merged, patched

keys = st.sampled_from(["a", "b", "c", 'd"e', "ü"])
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(keys, values, max_size=4), st.dictionaries(keys, values, max_size=4), st.data())
def test_a_patched_text_says_what_was_there_and_what_the_patch_says(
    value: dict[str, Any], patch: dict[str, Any], data: st.DataObject
) -> None:
    space = st.sampled_from(["", " ", "\n", "\n  ", "// a, b }\n", "/* , ] } */", " /* x\n */ "])

    def written(value: Any) -> str:
        comma = data.draw(st.sampled_from(["", ","]))
        match value:
            case dict():
                items = [
                    f"{data.draw(space)}{json.dumps(key)}{data.draw(space)}:{data.draw(space)}{written(item)}{data.draw(space)}"
                    for key, item in value.items()
                ]
                return "{" + ",".join(items) + (comma if items else "") + data.draw(space) + "}"
            case list():
                items = [f"{data.draw(space)}{written(item)}{data.draw(space)}" for item in value]
                return "[" + ",".join(items) + (comma if items else "") + data.draw(space) + "]"
            case _:
                return json.dumps(value)

    text = f"{data.draw(space)}{written(value)}{data.draw(space)}"
    result = patched(text, patch)

    assert Document(result).value == merged(value, patch)
    assert patched(result, patch) == result


@given(st.dictionaries(keys, values, max_size=4), st.dictionaries(keys, values, max_size=4))
def test_plain_json_stays_plain_json(value: dict[str, Any], patch: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)

    assert json.loads(patched(text, patch)) == merged(value, patch)


BEFORE = """\
{
  // which one answers
  "model": "a/b", // the large one
  "agent": {
    "build": { "steps": 3 }
  },
  /* the name */
  "username": "me" // that is me
}
"""


@pytest.mark.parametrize(
    ("patch", "before", "after"),
    [
        ({"model": "c/d"}, '"a/b", // the', '"c/d", // the'),
        ({"agent": {"build": {"steps": 4}}}, '{ "steps": 3 }', '{ "steps": 4 }'),
        ({"agent": {"build": {"top_p": 1}}}, '{ "steps": 3 }', '{ "steps": 3, "top_p": 1 }'),
        ({"share": "auto"}, '"me" // that is me', '"me", // that is me\n  "share": "auto"'),
        ({"agent": {"build": None}}, '    "build": { "steps": 3 }\n', ""),
        ({"model": None}, '  "model": "a/b", // the large one', "   // the large one"),
        (
            {"username": None},
            '  },\n  /* the name */\n  "username": "me" // that is me',
            "  }\n  /* the name */\n   // that is me",
        ),
        ({"model": "a/b", "username": "me"}, "", ""),
    ],
)
def test_what_is_not_changed_stays_as_it_was_written(patch: dict[str, Any], before: str, after: str) -> None:
    expected = BEFORE.replace(before, after) if before else BEFORE

    assert patched(BEFORE, patch) == expected


def test_a_new_setting_of_several_lines_is_indented_like_its_neighbours() -> None:
    assert patched('{\n    "a": 1\n}\n', {"b": {"c": [1]}}) == (
        '{\n    "a": 1,\n    "b": {\n      "c": [\n        1\n      ]\n    }\n}\n'
    )


def test_an_empty_text_becomes_an_object() -> None:
    assert patched("", {"a": 1, "b": None}) == '{\n  "a": 1\n}\n'
    assert patched("{}\n", {"a": 1}) == '{\n  "a": 1\n}\n'
    assert patched("{ // nothing yet\n}\n", {"a": 1}) == '{\n  "a": 1 // nothing yet\n}\n'
