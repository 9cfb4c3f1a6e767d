"""JSON with comments and trailing commas → values, and where each of them stands. Pure.

What JSON allows is allowed here, and besides: `//` and `/* */` comments, and a comma after the last item. Of a key that
stands twice, the last one counts, as in JavaScript.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

_DEPTH_MAX: Final = 100

_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\r\n]*|/\*.*?\*/)+", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR = re.compile(r"-?\d[\d.eE+-]*|[A-Za-z]+")
_CONSTANTS: Final[Mapping[str, object]] = {"true": True, "false": False, "null": None}

Path = tuple[str | int, ...]


class JsonError(ValueError):
    """`offset` is the place of the character at which reading stopped."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class Document:
    """`value` is what the text says; `offsets` tells where the value at each path begins and `ends` where it is over, () being
    the whole; `keys` where the key of a member of an object begins."""

    def __init__(self, text: str) -> None:
        """Raises JsonError."""
        self._text = text
        self._at = 0
        self.offsets: dict[Path, int] = {}
        self.ends: dict[Path, int] = {}
        self.keys: dict[Path, int] = {}
        self._skip()
        self.value = self._value(())
        self._skip()
        if self._at < len(text):
            raise self._error("Nothing more is expected here")

    def _value(self, path: Path) -> Any:
        if len(path) > _DEPTH_MAX:
            raise self._error(f"Nested more than {_DEPTH_MAX} deep")
        self.offsets[path] = self._at
        match self._text[self._at : self._at + 1]:
            case "{":
                value = self._object(path)
            case "[":
                value = self._array(path)
            case '"':
                value = self._string()
            case _:
                value = self._scalar()
        self.ends[path] = self._at
        return value

    def _object(self, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._at += 1
        while not self._ends_with("}"):
            if not self._text.startswith('"', self._at):
                raise self._error('A key in double quotes, or "}", is expected here')
            start = self._at
            key = self._string()
            self.keys[*path, key] = start
            self._skip()
            if not self._text.startswith(":", self._at):
                raise self._error('":" is expected here')
            self._at += 1
            self._skip()
            result[key] = self._value((*path, key))
            self._separator("}")
        return result

    def _array(self, path: Path) -> list[Any]:
        result: list[Any] = []
        self._at += 1
        while not self._ends_with("]"):
            result.append(self._value((*path, len(result))))
            self._separator("]")
        return result

    def _ends_with(self, bracket: str) -> bool:
        self._skip()
        if self._text.startswith(bracket, self._at):
            self._at += 1
            return True
        return False

    def _separator(self, bracket: str) -> None:
        self._skip()
        if self._text.startswith(",", self._at):
            self._at += 1
        elif not self._text.startswith(bracket, self._at):
            raise self._error(f'"," or "{bracket}" is expected here')

    def _string(self) -> str:
        found = _STRING.match(self._text, self._at)
        if found is None:
            raise self._error("This text has no closing quote, or a line break in it")
        try:
            value: str = json.loads(found[0])
        except ValueError:
            raise self._error("This text has an escape that JSON does not know") from None
        self._at = found.end()
        return value

    def _scalar(self) -> Any:
        found = _SCALAR.match(self._text, self._at)
        word = found[0] if found else ""
        if word in _CONSTANTS:
            value = _CONSTANTS[word]
        else:
            try:
                value = json.loads(word, parse_constant=_refuse)
            except ValueError:
                raise self._error("A value is expected here") from None
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # 1e3 is a whole number, as in JavaScript
        self._at += len(word)
        return value

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self._at)
        if found:
            self._at = found.end()
        if self._text.startswith("/*", self._at):
            raise self._error("This comment has no end")

    def _error(self, message: str) -> JsonError:
        return JsonError(message, self._at)


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """Both count from 1."""
    before = text[:offset]
    return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1


def _refuse(word: str) -> None:
    raise ValueError(word)
