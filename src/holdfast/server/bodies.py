"""JSON in and out, once: a body is decoded straight from its bytes into the type a route asks for, and an answer is made
of bytes that are often the stored ones.

Strict: `"5"` is no number. Unknown fields are ignored. Refused with a reason, before anything happens: what is not JSON,
not UTF-8, not the shape, or holds what could not be stored and read back everywhere (NUL characters, deep nesting).
"""

import functools
import re
from collections.abc import Generator, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

import msgspec
from litestar import Response
from litestar.dto import AbstractDTO, DTOConfig, DTOFieldDefinition
from litestar.openapi.spec import Reference, Schema
from litestar.typing import FieldDefinition

from holdfast.core.codec import to_json
from holdfast.core.errors import Invalid

T = TypeVar("T")

NESTING_MAX: Final = 64

_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_STRUCTURE: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


class JsonBody(AbstractDTO[T]):
    """`dto=JsonBody[CreateSession]`: the type of a body, for `routing` to decode and for Litestar to document. A subclass may
    set `decoded_type`, where handlers are given something else than what is documented."""

    decoded_type: ClassVar[Any] = None

    def __class_getitem__(cls, annotation: Any) -> type["JsonBody[Any]"]:
        """Any type that msgspec decodes, unions too: the base class takes only what it can take apart."""
        return type(f"{cls.__name__}[{annotation}]", (cls,), {"config": DTOConfig(), "model_type": annotation})

    @classmethod
    def create_for_field_definition(
        cls, field_definition: FieldDefinition, handler_id: str, backend_cls: Any = None
    ) -> None:
        """Nothing to prepare: the type is used as it is."""

    @classmethod
    def create_openapi_schema(
        cls, field_definition: FieldDefinition, handler_id: str, schema_creator: Any
    ) -> Reference | Schema:
        return schema_creator.for_field_definition(FieldDefinition.from_annotation(cls.model_type))

    @classmethod
    def generate_field_definitions(cls, model_type: type[Any]) -> Generator[DTOFieldDefinition, None, None]:
        yield from ()

    @classmethod
    def detect_nested_field(cls, field_definition: FieldDefinition) -> bool:
        return False


@functools.cache
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type)


def decode_body(type: Any, body: bytes) -> Any:
    """A value of that type. Raises Invalid, saying what is wrong and where."""
    if b"\\u0000" in body and _NUL.search(body):
        raise Invalid("NUL characters cannot be stored.")
    if _is_nested_deeply(body):
        raise Invalid(f"The body is nested more than {NESTING_MAX} levels deep.")
    try:
        return _decoder(type).decode(body)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        field = place.strip("`").lstrip(".")
        raise Invalid(f'{message}\n  at ["{field}"]' if field else message, field=field or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The body is not JSON: {error}") from None


def _is_nested_deeply(body: bytes) -> bool:
    if body.count(b"{") + body.count(b"[") <= NESTING_MAX:
        return False
    depth = 0
    for found in _STRUCTURE.finditer(body):
        character = found[0]
        if character in (b"{", b"["):
            depth += 1
            if depth > NESTING_MAX:
                return True
        elif character in (b"}", b"]"):
            depth -= 1
    return False


def answer(value: Any, *, status: int = 200) -> Response[bytes]:
    return raw_answer(to_json(value), status=status)


def raw_answer(json: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    return Response(json, status_code=status, media_type="application/json", headers=headers)


def list_answer(items: Sequence[bytes]) -> Response[bytes]:
    """A list of values that are JSON already."""
    return raw_answer(b"[%b]" % b",".join(items))
