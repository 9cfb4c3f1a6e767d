"""Routes are served from the declarations that document them: nothing is served otherwise than it is documented, and a
declaration that could not be served is found at the start."""

from typing import Annotated, Any, cast

import httpx
import msgspec
import pytest
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import CookieParameter, JSONBody, PathParameter, QueryParameter

from holdfast.server.asgi import HttpScope, Receive, Send, respond
from holdfast.server.bodies import JsonBody, raw_answer
from holdfast.server.errors import Refused
from holdfast.server.routing import Routes
from tests.server.harness import Server


class Thing(msgspec.Struct):
    size: int


def answered(value: object) -> Response[bytes]:
    return raw_answer(msgspec.json.encode(value))


async def ask(handler: Any, method: str, target: str, body: bytes = b"") -> httpx.Response:
    routes = Routes([cast(HTTPRouteHandler, handler)], {}, body_bytes_max=100)

    async def app(scope: HttpScope, receive: Receive, send: Send) -> None:
        try:
            await routes(scope, dict(scope["headers"]), scope["method"], receive, send)
        except Refused as refused:
            await respond(send, refused.answer.status, refused.answer.json, refused.headers)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(cast(Any, app)), base_url="http://x") as client:
        return await client.request(method, target, content=body)


@get("/a/{aID:str}/b")
async def nested(
    a: Annotated[str, PathParameter(name="aID")],
    count: Annotated[int, QueryParameter(ge=1, le=5)] = 3,
    flag: Annotated[bool | None, QueryParameter(name="is-set")] = None,
) -> Response[bytes]:
    return answered([a, count, flag])


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/a/x/b", ["x", 3, None]),
        ("/a/x/b/", ["x", 3, None]),
        ("/a//x///b", ["x", 3, None]),
        ("/a/x%20y/b?count=5&is-set=true", ["x y", 5, True]),
        ("/a/x/b?count=1&count=2", ["x", 2, None]),
        ("/a/x/b?other=1&is-set=0", ["x", 3, False]),
    ],
)
async def test_parameters_come_from_path_and_query_as_they_are_declared(target: str, answer: list[Any]):
    assert (await ask(nested, "GET", target)).json() == answer


async def test_all_wrong_parameters_are_named_at_once():
    refused = await ask(nested, "GET", "/a/x/b?count=6&is-set=maybe")

    assert refused.status_code == 400
    assert refused.json()["data"] == {
        "message": "count: Expected `int` <= 5; is-set: Expected `bool | null`, got `str`",
        "kind": "Query",
    }


async def test_a_parameter_without_a_default_must_be_there():
    @get("/a")
    async def handler(wanted: Annotated[str, QueryParameter()]) -> Response[bytes]:
        return answered(wanted)

    assert (await ask(handler, "GET", "/a")).json()["data"] == {"message": "wanted: Missing", "kind": "Query"}
    assert (await ask(handler, "GET", "/a?wanted=")).json() == ""


@pytest.mark.parametrize(("target", "status"), [("/a", 404), ("/a/x", 404), ("/a/x/c", 404), ("/a/x/b/c", 404)])
async def test_only_whole_paths_are_routes(target: str, status: int):
    assert (await ask(nested, "GET", target)).status_code == status


async def test_other_methods_are_told_which_there_are():
    refused = await ask(nested, "POST", "/a/x/b")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, OPTIONS")

    options = await ask(nested, "OPTIONS", "/a/x/b")
    assert (options.status_code, options.headers["allow"]) == (204, "GET, OPTIONS")
    assert "content-length" not in options.headers


async def test_a_route_without_an_answer_answers_nothing_with_its_status():
    @post("/a", dto=JsonBody[Thing], status_code=204)
    async def handler(data: JSONBody[Thing]) -> None:
        assert data.size == 5

    answer = await ask(handler, "POST", "/a", b'{"size":5}')
    assert (answer.status_code, answer.content) == (204, b"")


@get("/a")
async def unknown_source(a: str) -> Response[bytes]:
    return answered(a)


@get("/a")
async def from_a_cookie(a: Annotated[str, CookieParameter(name="a")]) -> Response[bytes]:
    return answered(a)


@get("/a")
async def many_values(a: Annotated[list[str], QueryParameter()]) -> Response[bytes]:
    return answered(a)


@get("/a")
async def bound_text(a: Annotated[str, QueryParameter(ge=5)]) -> Response[bytes]:
    return answered(a)


@get("/a/{a:int}")
async def number_in_path(a: Annotated[int, PathParameter()]) -> Response[bytes]:
    return answered(a)


@get("/a")
async def not_in_path(a: Annotated[str, PathParameter()]) -> Response[bytes]:
    return answered(a)


@post("/a")
async def untyped_body(data: JSONBody[Thing]) -> Response[bytes]:
    return answered(data.size)


@get("/a")
async def plain_value() -> Thing:
    return Thing(1)


@pytest.mark.parametrize(
    "handler",
    [unknown_source, from_a_cookie, many_values, bound_text, number_in_path, not_in_path, untyped_body, plain_value],
)
async def test_a_declaration_that_cannot_be_served_is_an_error_at_the_start(handler: Any):
    with pytest.raises((TypeError, ValueError)):
        Routes([cast(HTTPRouteHandler, handler)], {}, body_bytes_max=100)


async def test_two_declarations_of_a_route_are_an_error():
    with pytest.raises(TypeError):
        Routes([cast(HTTPRouteHandler, nested)] * 2, {}, body_bytes_max=100)


async def test_a_body_is_bounded_also_by_the_route_alone():
    @post("/a", request_max_body_size=10, dto=JsonBody[Thing])
    async def handler(data: JSONBody[Thing]) -> Response[bytes]:
        return answered(data.size)

    with pytest.raises(Exception, match="larger than 10 bytes"):
        await ask(handler, "POST", "/a", b'{"size":10}')


async def test_every_documented_parameter_is_served(server: Server):
    """Numbers, truth values and choices of the document refuse what they are not, and name it. Texts have no wrong value."""
    paths = (await server.api.get("/doc")).json()["paths"]
    refused = 0
    for path, operations in paths.items():
        for method, operation in operations.items():
            for parameter in operation.get("parameters", []):
                if parameter["in"] != "query" or method != "get":
                    continue
                schemas = parameter["schema"].get("oneOf", [parameter["schema"]])
                if any(schema.get("type") == "string" and "enum" not in schema for schema in schemas):
                    continue
                answer = await server.api.get(path, params={parameter["name"]: "neither"})
                assert answer.status_code == 400
                error = answer.json()
                assert f"{parameter['name']}: " in error.get("data", error)["message"]
                refused += 1
    assert refused > 5
