"""Events ↔ bytes. A record's bytes are the wire JSON `{"id","type","properties"}`, made once and passed on as they are.

Beside the bytes a record has a *tag*, `message.updated.1`: the type and the version of its shape. `decode` runs the
upcasters from that version to the present one, so every event ever released still loads.
"""

from collections.abc import Callable
from typing import Any, cast

import msgspec

from holdfast.core.errors import StorageError
from holdfast.core.events import EVENT_TYPES, Event, SessionEvent


class _Envelope(msgspec.Struct):
    id: str
    properties: msgspec.Raw


_encoder = msgspec.json.Encoder()
_envelope = msgspec.json.Decoder(_Envelope)
_BY_TYPE = {cls.type: cls for cls in EVENT_TYPES}
_DECODERS = {cls.type: msgspec.json.Decoder(cls) for cls in EVENT_TYPES}
_HEAD = {cls: b'","type":"' + cls.type.encode() + b'","properties":' for cls in EVENT_TYPES}
_TAGS = {cls: f"{cls.type}.{cls.version}" for cls in EVENT_TYPES}

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

UPCASTERS: dict[tuple[str, int], Upcaster] = {}
"""(type, version) → makes properties of that version those of the next. Empty: no shape has changed yet."""


def tag_of(event: Event) -> str:
    """`message.updated.1`: what a store keeps beside the bytes."""
    return _TAGS[type(event)]


def type_of(tag: str) -> str:
    """`message.updated.1` → `message.updated`."""
    return tag.rpartition(".")[0]


def encode(event: Event, event_id: str) -> bytes:
    """The wire JSON of an event."""
    return b'{"id":"' + event_id.encode() + _HEAD[type(event)] + _encoder.encode(event) + b"}"


def decode(tag: str, data: bytes) -> tuple[str, Event]:
    """(event id, event). Raises StorageError for a type or version this code does not know, or bytes that are not its shape."""
    kind, _, version_text = tag.rpartition(".")
    cls = _BY_TYPE.get(kind)
    version = int(version_text) if version_text.isdigit() else 0
    if cls is None or not 1 <= version <= cls.version:
        raise StorageError(f"Unknown event {tag!r}", hint="It was written by a newer Holdfast: start that version.")
    try:
        envelope = _envelope.decode(data)
        if version == cls.version:
            return envelope.id, cast(Event, _DECODERS[kind].decode(envelope.properties))
        properties = msgspec.json.decode(envelope.properties)
        for old in range(version, cls.version):
            properties = UPCASTERS[kind, old](properties)
        return envelope.id, cast(Event, msgspec.convert(properties, cls))
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StorageError(f"Damaged event {tag!r}: {error}", hint="Run `holdfast verify`.") from error


def to_json(value: Any) -> bytes:
    """Wire JSON of any core value."""
    return _encoder.encode(value)


__all__ = ["UPCASTERS", "SessionEvent", "decode", "encode", "tag_of", "to_json", "type_of"]
