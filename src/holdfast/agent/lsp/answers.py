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

DIAGNOSTIC: Final = "textDocument/diagnostic"

_NULL: Final = b"null"
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


class _Report(msgspec.Struct):
    items: list[msgspec.Raw]


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
    return Published(path, said.version, _errors(said.diagnostics))


def reported(result: bytes) -> FileErrors | None:
    """The same in the answer of a server that was asked; None if it is no answer."""
    try:
        return _errors(msgspec.json.decode(result, type=_Report).items)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _errors(items: Sequence[msgspec.Raw]) -> FileErrors:
    errors: dict[CodeError, None] = {}
    for item in items[:_DIAGNOSTICS_MAX]:
        error = _error(item)
        if error is not None:
            errors[error] = None
    return FileErrors(tuple(errors)[:ERRORS_MAX], max(0, len(errors) - ERRORS_MAX))


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


# --- who wants to be asked for them -------------------------------------------------------------------------------


class Asked(msgspec.Struct, frozen=True):
    """How a server is asked for diagnostics. `identifier` goes with each question."""

    identifier: str | None = None
    inter_file_dependencies: bool = msgspec.field(default=False, name="interFileDependencies")


class _Capabilities(msgspec.Struct):
    diagnostic_provider: msgspec.Raw = msgspec.field(default=msgspec.Raw(_NULL), name="diagnosticProvider")


class _Initialized(msgspec.Struct):
    capabilities: _Capabilities


class _Registration(msgspec.Struct):
    id: str
    method: str
    options: msgspec.Raw = msgspec.field(default=msgspec.Raw(_NULL), name="registerOptions")


class _Registrations(msgspec.Struct):
    registrations: list[_Registration]


class _Unregistrations(msgspec.Struct):
    unregistrations: list[_Registration] = msgspec.field(name="unregisterations")  # so the protocol spells it


def asked_from_the_start(result: bytes) -> Asked | None:
    """What a server says of that when it is initialised."""
    try:
        options = msgspec.json.decode(result, type=_Initialized).capabilities.diagnostic_provider
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _asked(options) if bytes(options) not in (_NULL, b"false") else None


def registered(params: bytes) -> dict[str, Asked]:
    """What it says of that later, by the id of what it says."""
    try:
        items = msgspec.json.decode(params, type=_Registrations).registrations[:_ITEMS_MAX]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return {item.id: _asked(item.options) for item in items if item.method == DIAGNOSTIC}


def unregistered(params: bytes) -> list[str]:
    try:
        items = msgspec.json.decode(params, type=_Unregistrations).unregistrations[:_ITEMS_MAX]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    return [item.id for item in items if item.method == DIAGNOSTIC]


def _asked(options: msgspec.Raw) -> Asked:
    try:
        return msgspec.json.decode(options, type=Asked)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Asked()


def _cut(text: str, length_max: int) -> str:
    return text if len(text) <= length_max else f"{text[:length_max]} …"
