"""Files that begin with settings: YAML between two lines `---`, then a text. So skills, commands and agents are written. Pure."""

import re
from typing import Any, Final, NamedTuple, cast

import yaml

_RULE: Final = "---"
_PLAIN: Final = re.compile(r"([A-Za-z_][\w-]*)[ \t]*:[ \t]+(.*\S)[ \t]*")


class Document(NamedTuple):
    settings: dict[str, Any]
    text: str


def parse(content: str) -> Document:
    """Without settings, all of it is text. Settings that are not YAML only because a value has a colon in it are taken line by
    line. Raises ValueError, with what is wrong."""
    content = content.replace("\r\n", "\n").removeprefix("\ufeff")
    front, separator, text = f"{content}\n".partition(f"\n{_RULE}\n")
    if not front.startswith(f"{_RULE}\n") or not separator:
        if content.startswith(f"{_RULE}\n{_RULE}\n"):
            return Document({}, content.removeprefix(f"{_RULE}\n{_RULE}\n").strip())
        return Document({}, content.strip())
    front = front.removeprefix(f"{_RULE}\n")
    try:
        settings: Any = yaml.safe_load(front)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        settings = _line_by_line(front)
        if settings is None:
            raise ValueError(_why(error)) from None
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise ValueError("its settings are not `name: value` lines")
    return Document({str(name): value for name, value in cast(dict[Any, Any], settings).items()}, text.strip())


def _line_by_line(front: str) -> dict[str, Any] | None:
    settings: dict[str, Any] = {}
    for line in front.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        found = _PLAIN.fullmatch(line)
        if found is None:
            return None
        if ": " in found[2] and found[2][0] not in "{['\"":
            settings[found[1]] = found[2]
            continue
        try:
            settings[found[1]] = yaml.safe_load(found[2])
        except (yaml.YAMLError, ValueError):
            return None
    return settings


def _why(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 2}: " if mark is not None else ""
    return f"{line}{getattr(error, 'problem', None) or 'its settings cannot be read'}"
