"""Requests that may be asked twice, and what a no means."""

import json

import httpx
import msgspec
import pytest

from holdfast.client import Client, Refused, Unreachable
from holdfast.core.errors import Invalid
from holdfast.core.messages import MessageModel
from tests.client.fake_server import Transport
from tests.core import samples as s

URL = "http://127.0.0.1:1"


async def no_sleep(seconds: float) -> None:
    pass


def client(transport: Transport, password: str | None = None, directory: str | None = None) -> Client:
    return Client(URL, transport=transport, sleep=no_sleep, password=password, directory=directory)


def lost(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("reset by peer", request=request)


async def test_a_prompt_is_sent_again_with_the_same_id_until_the_server_has_it() -> None:
    answers = iter([lost, lambda _: httpx.Response(503), lambda _: httpx.Response(204)])
    transport = Transport(lambda request: next(answers)(request))

    async with client(transport) as it:
        id = await it.prompt("ses_1", "Hello", model=MessageModel(provider_id="p", model_id="m"))

    bodies = [json.loads(request.content) for request in transport.requests]
    assert len(bodies) == 3
    assert [bodies[0]] * 3 == bodies
    assert {
        "messageID": id,
        "parts": [{"type": "text", "text": "Hello"}],
        "model": {"providerID": "p", "modelID": "m"},
    } == bodies[0]


async def test_a_session_is_created_again_with_the_same_id() -> None:
    answers = iter([lost, lambda _: httpx.Response(200, content=msgspec.json.encode(s.session()))])
    transport = Transport(lambda request: next(answers)(request))

    async with client(transport) as it:
        created = await it.create_session(title="A session")

    first, second = (json.loads(request.content) for request in transport.requests)
    assert first == second
    assert first["id"].startswith("ses_")
    assert s.session() == created


async def test_health_does_not_wait() -> None:
    async with client(Transport(lost)) as it:
        with pytest.raises(Unreachable, match=URL):
            await it.health()


async def test_a_no_is_not_asked_again() -> None:
    transport = Transport(lambda _: httpx.Response(404, json={"name": "NotFoundError", "data": {"message": "gone"}}))

    async with client(transport) as it:
        with pytest.raises(Refused, match="gone") as refused:
            await it.session("ses_1")

    assert (refused.value.status, len(transport.requests)) == (404, 1)


async def test_directory_and_password_go_with_every_request() -> None:
    transport = Transport(lambda _: httpx.Response(200, json={"healthy": True, "version": "1"}))

    async with client(transport, password="secret", directory="/home/dev/pröject") as it:
        await it.health()

    headers = transport.requests[0].headers
    assert headers["x-opencode-directory"] == "/home/dev/pr%C3%B6ject"
    assert headers["authorization"] == "Basic b3BlbmNvZGU6c2VjcmV0"


@pytest.mark.parametrize("url", ["127.0.0.1:4096", "ftp://host", "http://", "http://[::1", "http://host:port", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="address"):
        Client(url)
