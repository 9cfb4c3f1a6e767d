"""The form that a prompt wants its answer to have: which JSON schemas can be one."""

from collections.abc import Iterator
from typing import Any, Final, cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

from holdfast.core.errors import Invalid
from holdfast.core.messages import OutputFormatJsonSchema

RETRIES_MAX: Final = 10

_EMPTY: Final[Any] = EMPTY_REGISTRY  # its types say less than its manual does
_DRAFT: Final[Any] = DRAFT202012
_REFERENCES: Final = ("$ref", "$dynamicRef")


def check_form(form: OutputFormatJsonSchema) -> None:
    """Raises Invalid for a schema that is none, that describes something else than an object (what a tool is called with), or
    that refers to something outside of itself."""
    schema = form.schema
    if not isinstance(schema, dict) or schema.get("type") != "object":
        raise Invalid('The schema of an answer describes an object: its type is "object".', field="format.schema")
    if form.retry_count is not None and not 0 <= form.retry_count <= RETRIES_MAX:
        raise Invalid(f"retryCount is 0 to {RETRIES_MAX}.", field="format.retryCount")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise Invalid(f"Not a JSON schema: {error.message[:300]}", field="format.schema") from None
    resolver = _EMPTY.with_resource("", _DRAFT.create_resource(schema)).resolver()
    for reference in _references(schema):
        try:
            resolver.lookup(reference)
        except (Unresolvable, ValueError, TypeError):
            raise Invalid(
                f"The schema refers to {reference[:100]!r}, which is not in it.", field="format.schema"
            ) from None


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in cast(dict[str, Any], value).items():
            if name in _REFERENCES and isinstance(item, str):
                yield item
            yield from _references(item)
    elif isinstance(value, list):
        for item in cast(list[Any], value):
            yield from _references(item)
