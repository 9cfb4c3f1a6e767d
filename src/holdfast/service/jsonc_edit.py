"""Changes to JSON with comments that leave everything else in the text as it is: comments, order, spacing. Pure.

A change is a merge patch: an object is merged into an object, key by key, `null` takes a key out, and anything else replaces
what was there. Only what differs is touched.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from holdfast.service.jsonc import Document, Path

_REST_OF_LINE: Final = re.compile(r"([ \t]*,)?([ \t]*(?://[^\r\n]*|/\*(?:(?!\*/)[^\r\n])*\*/))*[ \t]*(?=\r?\n)")
_SPACE: Final = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STEP: Final = "  "


def patched(text: str, patch: Mapping[str, Any]) -> str:
    """The text with the patch merged into it. Raises JsonError if the text cannot be read. A text without an object
    becomes one."""
    value = Document(text).value if text.strip() else None
    if not isinstance(value, dict):
        return json.dumps(merged({}, patch), indent=2, ensure_ascii=False) + "\n"
    return _patched(text, (), cast(dict[str, Any], value), patch)


def merged(value: Any, patch: Any) -> Any:
    """What the patch makes of a value."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(cast(dict[str, Any], value)) if isinstance(value, dict) else {}
    for key, item in cast(Mapping[str, Any], patch).items():
        if item is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), item)
    return result


def _patched(text: str, path: Path, value: dict[str, Any], patch: Mapping[str, Any]) -> str:
    for key, item in patch.items():
        there = (*path, key)
        if item is None:
            while there in Document(text).offsets:  # a key may stand twice
                text = _removed(text, there)
        elif key not in value:
            text = _inserted(text, path, key, merged(None, item))
        elif isinstance(item, Mapping) and isinstance(value[key], dict):
            text = _patched(text, there, value[key], cast(Mapping[str, Any], item))
        elif (new := merged(value[key], item)) != value[key] or type(new) is not type(value[key]):
            text = _replaced(text, there, new)
    return text


def _replaced(text: str, path: Path, value: Any) -> str:
    document = Document(text)
    start, end = document.offsets[path], document.ends[path]
    return text[:start] + _written(value, _indentation(text, start)) + text[end:]


def _inserted(text: str, path: Path, key: str, value: Any) -> str:
    document = Document(text)
    start, end = document.offsets[path], document.ends[path]
    members = [document.ends[child] for child in document.ends if len(child) == len(path) + 1 and child[:-1] == path]
    if not members:
        inside = text[start + 1 : end - 1]
        base = _indentation(text, start)
        indent = base + _STEP
        closing = "" if inside.strip(" \t").endswith("\n") else f"\n{base}"
        member = f"\n{indent}{json.dumps(key, ensure_ascii=False)}: {_written(value, indent)}"
        return text[: start + 1] + member + (inside.rstrip(" \t") if inside.strip() else "") + closing + text[end - 1 :]
    last = max(members)
    first = min(document.keys[child] for child in document.keys if child[:-1] == path)
    if "\n" not in text[start:first]:
        return f"{text[:last]}, {json.dumps(key, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}{text[last:]}"
    indent = _indentation(text, first)
    member = f"\n{indent}{json.dumps(key, ensure_ascii=False)}: {_written(value, indent)}"
    rest = _REST_OF_LINE.match(text, last, end)
    if rest is None:  # the object goes on, or ends, on the same line
        return f"{text[:last]},{member}{text[last:]}"
    if rest[1]:  # the comma that the last member already had is ours now, and we have one as well
        return f"{text[: rest.end()]}{member},{text[rest.end() :]}"
    return f"{text[:last]},{text[last : rest.end()]}{member}{text[rest.end() :]}"


def _removed(text: str, path: Path) -> str:
    document = Document(text)
    start, end = document.keys[path], document.ends[path]
    after = _after_space(text, end)
    if text.startswith(",", after):
        end = after + 1
    else:
        before = [stop for child, stop in document.ends.items() if child[:-1] == path[:-1] and child and stop <= start]
        if before:
            comma = _after_space(text, max(before))
            text = text[:comma] + text[comma + 1 :]
            start, end = start - 1, end - 1
    line = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    if stop >= 0 and not text[line:start].strip() and not text[end:stop].strip():
        return text[:line] + text[stop + 1 :]
    return text[:start] + text[end:]


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _written(value: Any, indent: str) -> str:
    return json.dumps(value, indent=len(_STEP), ensure_ascii=False).replace("\n", f"\n{indent}")


def _indentation(text: str, at: int) -> str:
    line = text.rfind("\n", 0, at) + 1
    content = text[line:at]
    return content[: len(content) - len(content.lstrip(" \t"))]
