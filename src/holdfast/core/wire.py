"""The base of every type that crosses the wire.

OpenCode's JSON is camelCase with `ID` in capitals (`sessionID`, `parentID`), so `session_id` here is `sessionID` there.
Optional fields default to None and are left out of the JSON, never written as null. Unknown fields are ignored when
reading: clients and logs may be newer or older than this code.
"""

from typing import Any, dataclass_transform

import msgspec


def wire_name(field: str) -> str:
    """`session_id` -> `sessionID`, `status_code` -> `statusCode`."""
    head, *rest = field.split("_")
    return head + "".join("ID" if word == "id" else word.capitalize() for word in rest)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class _WireMeta(msgspec.StructMeta):
    """Keyword-only, so that a type's fields stand in the wire's order, whether required or not."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> type:
        config.setdefault("kw_only", True)
        return super().__new__(mcls, name, bases, namespace, **config)


class Wire(msgspec.Struct, metaclass=_WireMeta, frozen=True, omit_defaults=True, rename=wire_name, gc=False):
    """A frozen value with OpenCode's field names. Change one with `msgspec.structs.replace`. The garbage collector does not
    look through them (`gc=False`): a value that cannot change is in no cycle, and long sessions are many."""
