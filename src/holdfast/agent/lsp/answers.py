"""What language servers say, as our own values. Whatever is nonsense is left out; whatever is too much is cut."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import unquote, urlsplit

import msgspec

from holdfast.agent.tools.diagnostics import ERRORS_MAX, CodeError, FileErrors
from holdfast.core.workspace import Symbol, SymbolRange

SYMBOLS_MAX: Final = 10
KINDS: Final = frozenset({5, 6, 10, 11, 12, 13, 14, 23})
"""Class, method, enum, interface, function, variable, constant, struct: those that OpenCode takes."""

_ERROR: Final = 1  # among the severities
_DIAGNOSTICS_MAX: Final = 1000
"""Looked at for one file."""
_ITEM_BYTES_MAX: Final = 16 * 1024
_MESSAGE_CHARACTERS_MAX: Final = 500
_NAME_CHARACTERS_MAX: Final = 100
_POSITION_MAX: Final = 2**31 - 1
_ITEMS_MAX: Final = 1000


class _Item(msgspec.Struct):
    section: str | None = None


class _Items(msgspec.Struct):
    items: list[_Item]


def settings_asked(params: bytes, settings: Mapping[str, Any]) -> list[Any]:
    """What a server wants to know of its settings, by sections as `python.analysis`; null for those that say nothing."""
    try:
        items = msgspec.json.decode(params, type=_Items).items[:_ITEMS_MAX]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [_section(settings, item.section) for item in items]


def _section(settings: Mapping[str, Any], name: str | None) -> Any:
    found: Any = settings
    for key in name.split(".") if name else ():
        found = cast(dict[str, Any], found).get(key) if isinstance(found, dict) else None
    return found


def symbols_of(result: bytes) -> tuple[Symbol, ...]:
    """The first that are of the KINDS and have a place. What is none is left out."""
    found: list[Symbol] = []
    try:
        items: Sequence[msgspec.Raw] = msgspec.json.decode(result, type=list[msgspec.Raw] | None) or ()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()
    for item in items:
        try:
            symbol = msgspec.json.decode(item, type=Symbol) if len(bytes(item)) <= _ITEM_BYTES_MAX else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if symbol is not None and symbol.kind in KINDS and _is_somewhere(symbol):
            found.append(symbol)
            if len(found) == SYMBOLS_MAX:
                break
    return tuple(found)


def _is_somewhere(symbol: Symbol) -> bool:
    return _is_range(symbol.location.range)


def _is_range(range: SymbolRange) -> bool:
    numbers = (range.start.line, range.start.character, range.end.line, range.end.character)
    return all(0 <= number <= _POSITION_MAX for number in numbers)


# --- diagnostics --------------------------------------------------------------------------------------------------


class Published(NamedTuple):
    """What is wrong in a file, of the content with this version, if the server says which."""

    path: str
    version: int | None
    found: FileErrors


class _Published(msgspec.Struct):
    uri: str
    diagnostics: list[msgspec.Raw]
    version: int | None = None


class _Diagnostic(msgspec.Struct):
    range: SymbolRange
    message: str
    severity: int | None = None
    code: int | str | None = None
    source: str | None = None


def published(params: bytes) -> Published | None:
    """The errors in what a server publishes of a file, each once; None if it is of no file."""
    try:
        said = msgspec.json.decode(params, type=_Published)
        address = urlsplit(said.uri)
        path = unquote(address.path, errors="strict")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None
    if address.scheme != "file" or not path.startswith("/") or "\0" in path:
        return None
    errors: dict[CodeError, None] = {}
    for item in said.diagnostics[:_DIAGNOSTICS_MAX]:
        error = _error(item)
        if error is not None:
            errors[error] = None
    return Published(path, said.version, FileErrors(tuple(errors)[:ERRORS_MAX], max(0, len(errors) - ERRORS_MAX)))


def _error(item: msgspec.Raw) -> CodeError | None:
    try:
        read = msgspec.json.decode(item, type=_Diagnostic) if len(bytes(item)) <= _ITEM_BYTES_MAX else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if read is None or read.severity != _ERROR or not _is_range(read.range):
        return None
    return CodeError(
        range=read.range,
        severity=_ERROR,
        message=_cut(read.message, _MESSAGE_CHARACTERS_MAX),
        source=_cut(read.source, _NAME_CHARACTERS_MAX) if read.source is not None else None,
        code=_cut(read.code, _NAME_CHARACTERS_MAX) if isinstance(read.code, str) else read.code,
    )


def _cut(text: str, length_max: int) -> str:
    return text if len(text) <= length_max else f"{text[:length_max]} …"
