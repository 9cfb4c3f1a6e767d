"""What is different between two JSON schemas, as far as a client can notice.

An answer may say less than the other schema allows, never something else: each shape of ours has to be one of theirs, with all
of their fields. A body is the other way round: what theirs allows has to be allowed here. More fields in an answer, and more
that is allowed in a body, are no difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

Schema = Mapping[str, Any]
_NO_NUMBERS = {"NaN", "Infinity", "-Infinity"}
_DEPTH_MAX = 12


class Document:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._components: Mapping[str, Schema] = document["components"]["schemas"]

    def alternatives(self, schema: Schema) -> list[Schema]:
        """What a value may be, each without references; numbers in words are left out."""
        if "$ref" in schema:
            return self.alternatives(self._components[schema["$ref"].rpartition("/")[2]])
        for key in ("anyOf", "oneOf"):
            if key in schema:
                return [found for part in schema[key] for found in self.alternatives(part)]
        if "allOf" in schema and len(schema["allOf"]) == 1:
            return self.alternatives({**schema["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}})
        if schema.get("type") == "string" and set(schema.get("enum", "?")) <= _NO_NUMBERS:
            return []
        if None in schema.get("enum", ()):
            rest = {**schema, "enum": [value for value in schema["enum"] if value is not None]}
            return [*self.alternatives(rest), {"type": "null"}]
        if isinstance(schema.get("type"), list):
            return [{**schema, "type": kind} for kind in schema["type"]]
        return [schema]


def differences(theirs: Sequence[Schema], ours: Sequence[Schema], documents: tuple[Document, Document]) -> set[str]:
    """Of an answer. Each says where and what: `.info.cost: may be missing`."""
    return set(_answers(theirs, ours, documents, "", 0))


def refusals(theirs: Sequence[Schema], ours: Sequence[Schema], documents: tuple[Document, Document]) -> set[str]:
    """Of a body."""
    return set(_bodies(theirs, ours, documents, "", 0))


def _answers(
    theirs: Sequence[Schema], ours: Sequence[Schema], documents: tuple[Document, Document], where: str, depth: int
) -> Iterator[str]:
    if depth > _DEPTH_MAX:
        return
    matched: list[Schema] = []
    for own in ours:
        same = [other for other in theirs if _is_same_kind(other, own)]
        if not same:
            yield f"{where}: {_named(own)} is none of theirs"
            continue
        best = min((list(_answer(other, own, documents, where, depth)), index) for index, other in enumerate(same))
        matched.append(same[best[1]])
        yield from best[0]
    for other in theirs:
        if other.get("type") == "object" and not any(other is found for found in matched) and len(theirs) > 1:
            yield f"{where}: {_named(other)} is never answered"


def _answer(other: Schema, own: Schema, documents: tuple[Document, Document], where: str, depth: int) -> Iterator[str]:
    theirs, ours = documents
    match other.get("type"):
        case "string":
            if "enum" in other and not set(_values(own) or ["any text"]) <= set(other["enum"]):
                yield f"{where}: {_named(own)} is not always one of {sorted(other['enum'])}"
        case "array":
            yield from _answers(
                theirs.alternatives(other.get("items", {})),
                ours.alternatives(own.get("items", {})),
                documents,
                f"{where}[]",
                depth + 1,
            )
        case "object":
            there: Mapping[str, Schema] = own.get("properties", {})
            if not there and other.get("properties") and not isinstance(own.get("additionalProperties"), Mapping):
                yield f"{where}: is an object of any kind"
                return
            for name, schema in other.get("properties", {}).items():
                if not own.get("properties"):  # a map, of which theirs names some keys
                    there = {name: own["additionalProperties"]}
                if name not in there:
                    yield f"{where}.{name}: is missing"
                    continue
                if name in other.get("required", ()) and name not in own.get("required", ()):
                    yield f"{where}.{name}: may be missing"
                mine = ours.alternatives(there[name])
                if name not in own.get("required", ()):  # a field that may be left out is never written as null
                    mine = [found for found in mine if found.get("type") != "null"]
                yield from _answers(theirs.alternatives(schema), mine, documents, f"{where}.{name}", depth + 1)
            if isinstance(other.get("additionalProperties"), Mapping):
                mine = own.get("additionalProperties")
                yield from _answers(
                    theirs.alternatives(other["additionalProperties"]),
                    ours.alternatives(mine if isinstance(mine, Mapping) else {}),
                    documents,
                    f"{where}.*",
                    depth + 1,
                )
        case _:
            return


def _bodies(
    theirs: Sequence[Schema], ours: Sequence[Schema], documents: tuple[Document, Document], where: str, depth: int
) -> Iterator[str]:
    if depth > _DEPTH_MAX:
        return
    for other in theirs:
        same = [own for own in ours if _is_same_kind(own, other)]
        if not same:
            yield f"{where}: {_named(other)} is refused"
            continue
        yield from min(list(_body(other, own, documents, where, depth)) for own in same)


def _body(other: Schema, own: Schema, documents: tuple[Document, Document], where: str, depth: int) -> Iterator[str]:
    theirs, ours = documents
    match other.get("type"):
        case "string":
            if _values(own) is not None and not set(_values(other) or ["any text"]) <= set(_values(own) or ()):
                yield f"{where}: {_named(other)} is only taken if it is one of {_values(own)}"
        case "array" if "items" in own:
            yield from _bodies(
                theirs.alternatives(other.get("items", {})),
                ours.alternatives(own["items"]),
                documents,
                f"{where}[]",
                depth + 1,
            )
        case "object":
            there: Mapping[str, Schema] = own.get("properties", {})
            is_open = own.get("additionalProperties") not in (None, False) and not there
            for name, schema in other.get("properties", {}).items():
                if name in there:
                    yield from _bodies(
                        theirs.alternatives(schema),
                        ours.alternatives(there[name]),
                        documents,
                        f"{where}.{name}",
                        depth + 1,
                    )
                elif not is_open:
                    yield f"{where}.{name}: is ignored"
            for name in own.get("required", ()):
                if name not in other.get("required", ()):
                    yield f"{where}.{name}: is required here"
            more, mine = other.get("additionalProperties"), own.get("additionalProperties")
            if isinstance(more, Mapping) and isinstance(mine, Mapping):
                yield from _bodies(
                    theirs.alternatives(more), ours.alternatives(mine), documents, f"{where}.*", depth + 1
                )
        case _:
            return


def _is_same_kind(wide: Schema, narrow: Schema) -> bool:
    """Whether a value of the narrow schema may be one of the wide one. Of objects with a tag, whether the tags agree."""
    kinds = wide.get("type"), narrow.get("type")
    if kinds[0] is None and "enum" not in wide and "const" not in wide:
        return True
    if kinds == ("number", "integer"):
        return True
    if kinds[0] != kinds[1]:
        return False
    if kinds[0] == "object":
        return all(
            set(values) & set(_values(narrow["properties"][name]) or ())
            for name, schema in wide.get("properties", {}).items()
            if (values := _values(schema))
            and name in narrow.get("properties", {})
            and _values(narrow["properties"][name])
        )
    return True


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _named(schema: Schema) -> str:
    tags = [f"{name}={values[0]}" for name, part in schema.get("properties", {}).items() if (values := _values(part))]
    if tags:
        return f"{{{tags[0]}}}"
    if _values(schema):
        return msgspec.json.encode(_values(schema)).decode()
    return str(schema.get("type", "anything"))
