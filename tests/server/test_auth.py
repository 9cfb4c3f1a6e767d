import base64

import pytest

from holdfast.core.errors import Denied
from holdfast.server.auth import Gate, Refusal, check_binding, checked_origins
from tests.server.harness import Server


def place(gate: Gate, host: str | None, origin: str | None = None, scheme: str = "http") -> Refusal | None:
    headers = {b"host": host, b"origin": origin}
    return gate.refuse_place({k: v.encode("latin-1") for k, v in headers.items() if v is not None}, scheme)


LOCAL = Gate(host="127.0.0.1")
OPEN = Gate(host="0.0.0.0", hosts=("box.example",), origins=("https://app.example",), password="pw")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:4096",
        "127.8.9.1:80",
        "localhost",
        "LocalHost:4096",
        "a.localhost",
        "[::1]:4096",
        "localhost.",
    ],
)
def test_the_names_of_this_machine_are_admitted(host: str):
    assert place(LOCAL, host) is None
    assert place(OPEN, host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4096",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "192.168.0.7",
        "",
        None,
        "a b",
        "user@localhost",
        "localhost/x",
        "[::1",
        "localhost:port",
        "0x7f.1",
    ],
)
def test_a_name_that_a_page_may_have_pointed_here_is_refused(host: str | None):
    refusal = place(LOCAL, host)

    assert refusal is not None
    assert refusal.status == 403
    assert refusal.reason is not None


def test_a_server_for_others_also_goes_by_its_addresses_and_the_names_it_was_given():
    assert place(OPEN, "192.168.0.7:4096") is None
    assert place(OPEN, "[fe80::1]:4096") is None
    assert place(OPEN, "box.example") is None
    assert place(OPEN, "other.example") is not None
    assert place(Gate(host="box.example"), "box.example:4096") is None


@pytest.mark.parametrize(
    ("host", "origin", "admitted"),
    [
        ("127.0.0.1:4096", "http://127.0.0.1:4096", True),
        ("localhost:4096", "http://localhost:4096", True),
        ("localhost:4096", "http://localhost:3000", False),  # a page of another program of this machine
        ("localhost:4096", "https://localhost:4096", False),
        ("127.0.0.1:4096", "http://localhost:4096", False),
        ("127.0.0.1:4096", "https://evil.example", False),
        ("127.0.0.1:4096", "null", False),
        ("127.0.0.1:4096", "", False),
        ("127.0.0.1:4096", "https://app.example", True),
        ("127.0.0.1:4096", "https://app.example.evil.example", False),
        ("127.0.0.1:4096", "http://app.example", False),
    ],
)
def test_only_pages_of_this_server_and_admitted_ones_may_use_it(host: str, origin: str, admitted: bool):
    assert (place(OPEN, host, origin) is None) == admitted


def credential(text: str) -> bytes:
    return base64.b64encode(text.encode())


@pytest.mark.parametrize(
    ("headers", "query", "admitted"),
    [
        ({}, b"", False),
        ({b"authorization": b"Basic " + credential("opencode:pw")}, b"", True),
        ({b"authorization": b"basic " + credential("opencode:pw")}, b"", True),
        ({b"authorization": b"Basic " + credential("opencode:wrong")}, b"", False),
        ({b"authorization": b"Basic " + credential("other:pw")}, b"", False),
        ({b"authorization": b"Basic " + credential("opencode:pw ")}, b"", False),
        ({b"authorization": b"Bearer " + credential("opencode:pw")}, b"", False),
        ({b"authorization": b"Basic !!!"}, b"", False),
        ({b"authorization": b"\xff\xfe"}, b"", False),
        ({}, b"auth_token=" + credential("opencode:pw"), True),
        ({}, b"a=b&auth_token=" + credential("opencode:pw").replace(b"=", b"%3D"), True),
        ({}, b"auth_token=" + credential("opencode:no"), False),
        ({}, b"auth_token=", False),
        ({}, b"auth_token=%ff", False),
    ],
)
def test_with_a_password_only_who_knows_it_comes_in(headers: dict[bytes, bytes], query: bytes, admitted: bool):
    assert (OPEN.refuse_stranger(headers, query) is None) == admitted
    assert LOCAL.refuse_stranger(headers, query) is None


def test_a_password_may_hold_any_characters():
    gate = Gate(host="127.0.0.1", username="üser", password="pä:ss wörd")

    assert gate.refuse_stranger({b"authorization": b"Basic " + credential("üser:pä:ss wörd")}, b"") is None


@pytest.mark.parametrize(
    ("host", "password", "allowed"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", None, True),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("192.168.0.7", None, False),
        ("box.example", None, False),
        ("", None, False),
        ("0.0.0.0", "pw", True),
        ("0.0.0.0", "", False),
    ],
)
def test_listening_for_others_without_a_password_is_refused(host: str, password: str | None, allowed: bool):
    if allowed:
        check_binding(host, password)
    else:
        with pytest.raises(Denied):
            check_binding(host, password)


def test_an_origin_is_written_as_browsers_write_it():
    assert checked_origins(["https://App.example/", "http://localhost:3000"]) == (
        "https://app.example",
        "http://localhost:3000",
    )
    for wrong in ("*", "app.example", "https://app.example/path", "https://", ""):
        with pytest.raises(Denied):
            checked_origins([wrong])


# --- over HTTP --------------------------------------------------------------------------------------------------


async def test_every_route_asks_for_the_password_and_says_nothing_without_it(server_with_password: Server):
    for path in ("/global/health", "/session", "/event", "/global/event", "/doc", "/nope", "/"):
        answer = await server_with_password.api.get(path)
        assert answer.status_code == 401
        assert answer.content == b""
        assert answer.headers["www-authenticate"] == 'Basic realm="Secure Area"'
    async with server_with_password.client(auth=("opencode", "pw")) as client:
        assert (await client.get("/global/health")).status_code == 200


async def test_a_stranger_page_can_neither_read_nor_write(server: Server):
    evil = {"origin": "https://evil.example"}
    for method, path in (("GET", "/session"), ("POST", "/session"), ("GET", "/global/event"), ("OPTIONS", "/session")):
        answer = await server.api.request(method, path, headers=evil)
        assert answer.status_code == 403
        assert "evil.example" in answer.json()["data"]["message"]
        assert "access-control-allow-origin" not in answer.headers
    assert await server.records() == 0


async def test_a_rebound_name_can_neither_read_nor_write(server: Server):
    answer = await server.api.post("/session", headers={"host": "evil.example:4096"})

    assert answer.status_code == 403
    assert await server.records() == 0


async def test_an_admitted_page_may_ask_first_and_then_read_the_answer(server_with_password: Server):
    page = {"origin": "https://app.example"}
    asked = {"access-control-request-method": "PATCH", "access-control-request-headers": "content-type,authorization"}
    preflight = await server_with_password.api.options("/session/ses_x", headers={**page, **asked})
    refused = await server_with_password.api.get("/session", headers=page)

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "content-type,authorization"
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example"
    async with server_with_password.client(auth=("opencode", "pw"), headers=page) as client:
        answer = await client.get("/session")
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["vary"] == "Origin"
