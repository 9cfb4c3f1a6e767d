"""Every route of the stock server is served here, or says that it is not."""

import re

import pytest

from holdfast.server import routes
from holdfast.server.opencode.unserved import unserved_routes
from tests.server.harness import Server
from tests.server.opencode.reference import operations

STOCK = [(method, path) for method, path, _ in operations()]


def shape(method: str, path: str) -> str:
    return f"{method} {re.sub(r'{[^}]*}', '{}', path)}"


SERVED = {shape(method, path) for method, path in routes()}


@pytest.mark.parametrize(("method", "path"), [route for route in STOCK if shape(*route) not in SERVED])
async def test_a_route_that_is_not_served_answers_501_with_its_name(server: Server, method: str, path: str):
    answer = await server.api.request(method, re.sub(r"\{\w+\}|\*", "x", path))

    assert answer.status_code == 501
    error = answer.json()
    name, message = (error["_tag"], error["message"]) if "/api/" in path else (error["name"], error["data"]["message"])
    assert name == "NotImplementedError"
    assert f"{method} {path} " in message


async def test_a_path_that_nobody_knows_is_not_found(server: Server):
    for method, path in (("GET", "/api/nope"), ("POST", "/tui/nope"), ("POST", "/api/session/x/y"), ("GET", "/sync")):
        assert (await server.api.request(method, path)).status_code == 404


async def test_a_method_that_nobody_knows_is_not_allowed(server: Server):
    assert (await server.api.put("/session/status")).status_code == 405


def test_a_route_is_served_or_said_not_to_be_and_never_both():
    unserved = {shape(method, path) for method, path in unserved_routes()}

    assert unserved & SERVED == set()
    assert unserved <= {shape(method, path) for method, path in STOCK}


def test_the_stock_server_has_many_routes():
    assert len(STOCK) > 180
