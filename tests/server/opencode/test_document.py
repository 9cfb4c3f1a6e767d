"""The document that this server generates of itself, against that of the stock server: whoever was written for the one can
talk to the other. What is different on purpose stands in `reference/differences.toml`, with the reason."""

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import Server
from tests.server.opencode.reference import REFERENCE, operations
from tests.server.opencode.schemas import Document, differences, refusals

Operation = dict[str, Any]
MEANT = tomllib.loads((Path(__file__).parent / "reference" / "differences.toml").read_text())["meant"]


def shape(path: str) -> str:
    return re.sub(r"{[^}]*}", "{}", path)


def json_schema(content: dict[str, Any]) -> Any:
    return content.get("content", {}).get("application/json", {}).get("schema")


def compared(theirs: Operation, ours: Operation, documents: tuple[Document, Document]) -> Iterator[str]:
    known = {parameter["name"] for parameter in ours.get("parameters", ()) if parameter["in"] == "query"}
    for parameter in theirs.get("parameters", ()):
        if parameter["in"] == "query" and parameter["name"] not in known:
            yield f"?{parameter['name']}: is ignored"
    required = {p["name"] for p in ours.get("parameters", ()) if p["in"] == "query" and p.get("required")}
    for parameter in theirs.get("parameters", ()):
        if parameter["name"] in required and not parameter.get("required"):
            yield f"?{parameter['name']}: is required here"
    body = json_schema(theirs.get("requestBody", {}))
    if body is not None:
        own = json_schema(ours.get("requestBody", {}))
        found = refusals(alternatives(documents[0], body), alternatives(documents[1], own), documents)
        yield from (f"body{difference}" for difference in found)
    for status, answer in theirs["responses"].items():
        if status not in ours["responses"]:
            yield f"{status}: is never answered"
        elif (schema := json_schema(answer)) is not None:
            own = json_schema(ours["responses"][status])
            found = differences(alternatives(documents[0], schema), alternatives(documents[1], own), documents)
            yield from (f"{status}{difference}" for difference in found)


def alternatives(document: Document, schema: Any) -> list[Any]:
    return document.alternatives(schema) if schema is not None else []


@pytest.fixture
async def found(server: Server) -> set[str]:
    document = (await server.api.get("/doc")).json()
    ours = {
        (method.upper(), shape(path)): one for path, known in document["paths"].items() for method, one in known.items()
    }
    documents = Document(REFERENCE), Document(document)
    return {
        f"{method} {path} {difference}"
        for method, path, theirs in operations()
        if (method, shape(path)) in ours
        for difference in compared(theirs, ours[method, shape(path)], documents)
    }


async def test_routes_are_what_they_are_in_the_stock_server_but_for_what_is_meant(found: set[str]):
    patterns = [pattern for meant in MEANT for pattern in meant["where"]]

    unmeant = sorted(one for one in found if not any(fnmatchcase(one, literal(pattern)) for pattern in patterns))

    assert unmeant == [], "\n".join(unmeant)


async def test_what_is_meant_to_be_different_is_different(found: set[str]):
    patterns = [pattern for meant in MEANT for pattern in meant["where"]]

    assert [pattern for pattern in patterns if not any(fnmatchcase(one, literal(pattern)) for one in found)] == []
    assert all(meant["why"] for meant in MEANT)


def literal(pattern: str) -> str:
    """`*` is anything; brackets and question marks are themselves."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


# The comparison itself: a test that cannot fail shows nothing.

NOTHING: dict[str, Any] = {"components": {"schemas": {"Text": {"type": "string"}}}}
DOCUMENTS = Document(NOTHING), Document(NOTHING)
TEXT, NUMBER, WHOLE = {"type": "string"}, {"type": "number"}, {"type": "integer"}


def an_object(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def answered(theirs: Any, ours: Any) -> set[str]:
    return differences(DOCUMENTS[0].alternatives(theirs), DOCUMENTS[1].alternatives(ours), DOCUMENTS)


def asked(theirs: Any, ours: Any) -> set[str]:
    return refusals(DOCUMENTS[0].alternatives(theirs), DOCUMENTS[1].alternatives(ours), DOCUMENTS)


def test_an_answer_may_say_less_than_theirs_but_nothing_else():
    assert answered(NUMBER, WHOLE) == set()
    assert answered({"$ref": "#/components/schemas/Text"}, TEXT) == set()
    assert answered({"anyOf": [NUMBER, {"type": "string", "enum": ["NaN"]}]}, NUMBER) == set()
    assert answered(TEXT, {"type": "string", "enum": ["a"]}) == set()
    assert answered(WHOLE, NUMBER) == {": number is none of theirs"}
    assert answered({"type": "string", "enum": ["a"]}, TEXT) == {": string is not always one of ['a']"}
    assert answered(TEXT, {"anyOf": [TEXT, {"type": "null"}]}) == {": null is none of theirs"}


def test_an_answer_has_every_field_of_theirs():
    assert answered(an_object(a=TEXT), an_object(("a",), a=TEXT, b=TEXT)) == set()
    assert answered(an_object(a=TEXT), an_object()) == {": is an object of any kind"}
    assert answered(an_object(a=TEXT), an_object(b=TEXT)) == {".a: is missing"}
    assert answered(an_object(("a",), a=TEXT), an_object(a=TEXT)) == {".a: may be missing"}
    assert answered({"type": "array", "items": an_object(a=NUMBER)}, {"type": "array", "items": an_object(a=TEXT)}) == {
        "[].a: string is none of theirs"
    }


def test_every_kind_of_object_of_theirs_is_answered():
    kinds = [an_object(("type",), type={"type": "string", "enum": [kind]}) for kind in ("a", "b")]

    assert answered({"anyOf": kinds}, {"oneOf": kinds}) == set()
    assert answered({"anyOf": kinds}, kinds[0]) == {": {type=b} is never answered"}


def test_a_body_of_theirs_is_taken_here():
    assert asked(an_object(a=WHOLE), an_object(a=NUMBER, b=TEXT)) == set()
    assert asked(an_object(a=NUMBER), an_object(a=WHOLE)) == {".a: number is refused"}
    assert asked(an_object(a=TEXT), an_object(b=TEXT)) == {".a: is ignored"}
    assert asked(an_object(a=TEXT), an_object(("a",), a=TEXT)) == {".a: is required here"}
    assert asked(TEXT, {"type": "string", "enum": ["a"]}) == {": string is only taken if it is one of ['a']"}
