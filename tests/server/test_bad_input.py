"""Whatever is wrong with a request: a 4xx that says so, never a 500, nothing recorded."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server.harness import Server, prompt

SESSION = "ses_{}"
BODY_ROUTES = [
    ("POST", "/session"),
    ("PATCH", "/session/{session}"),
    ("POST", "/session/{session}/message"),
    ("POST", "/session/{session}/prompt_async"),
    ("POST", "/permission/per_x/reply"),
    ("POST", "/question/que_x/reply"),
    ("POST", "/session/{session}/permissions/per_x"),
    ("PATCH", "/config"),
    ("PATCH", "/global/config"),
    ("POST", "/log"),
    ("POST", "/tui/append-prompt"),
    ("POST", "/tui/publish"),
]
EVERYWHERE = b'{"title":"%b","parts":[{"type":"text","text":"%b"}],"reply":"%b","answers":[["%b"]],"response":"%b"}'
NOT_JSON = {
    "empty object cut off": b"{",
    "no JSON at all": b"hello",
    "an array": b"[]",
    "a number": b"42",
    "a text": b'"text"',
    "invalid UTF-8": EVERYWHERE % ((b"\xff",) * 5),
    "half a surrogate pair": EVERYWHERE % ((rb"\ud800 x",) * 5),
    "a NUL in a text": EVERYWHERE % ((rb"a\u0000b",) * 5),
    "a raw NUL": b'{"title":"\x00","parts":[]}',
    "nested deeply": b'{"metadata":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001,
    "nested a little too deeply": b'{"metadata":' + b"[" * 70 + b"]" * 70 + b"}",
    "nothing but brackets": b"[" * 1_000_000,
    "a byte order mark": b"\xef\xbb\xbf{}x",
}


async def refused(server: Server, answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in (statuses or (400,)), f"{answer.status_code} {answer.text[:500]}"
    error = answer.json()
    message = error["data"]["message"] if "data" in error else error["message"]
    assert message
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text


@pytest.mark.parametrize(("method", "path"), BODY_ROUTES)
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
async def test_a_body_that_cannot_be_read_is_refused(server: Server, method: str, path: str, body: bytes):
    session = await server.session()
    before = await server.records()
    answer = await server.api.request(method, path.format(session=session), content=body)

    await refused(server, answer)
    assert await server.records() == before


WRONG_TYPES: list[tuple[str, str, Any]] = [
    ("POST", "/session", {"title": 5}),
    ("POST", "/session", {"title": ["a"]}),
    ("POST", "/session", {"parentID": {"a": 1}}),
    ("POST", "/session", {"permission": {"bash": "allow"}}),
    ("POST", "/session", {"permission": [{"permission": "bash", "pattern": "*", "action": "maybe"}]}),
    ("POST", "/session", {"model": "scripted/main"}),
    ("POST", "/session", {"metadata": []}),
    ("PATCH", "/session/{session}", {"title": False}),
    ("PATCH", "/session/{session}", {"time": {"archived": "now"}}),
    ("PATCH", "/session/{session}", {"time": {"archived": 1.5}}),
    ("PATCH", "/session/{session}", {"time": {"archived": -1}}),
    ("PATCH", "/session/{session}", {"time": {"archived": 10**30}}),
    ("PATCH", "/session/{session}", {"time": 5}),
    ("POST", "/session/{session}/message", {}),
    ("POST", "/session/{session}/message", {"parts": []}),
    ("POST", "/session/{session}/message", {"parts": {}}),
    ("POST", "/session/{session}/message", {"parts": ["text"]}),
    ("POST", "/session/{session}/message", {"parts": [{"text": "no type"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "text"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "text", "text": None}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "tool", "text": "x"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "file", "url": "x"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "text", "text": "x"}] * 501}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "file", "mime": "text/plain", "url": "notes.txt"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "file", "mime": "text/plain", "url": "data:x"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "file", "mime": "text/plain", "url": "file:///%00"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "agent", "name": "nobody"}]}),
    (
        "POST",
        "/session/{session}/message",
        {"parts": [{"type": "subtask", "prompt": "p", "description": "d", "agent": "nobody"}]},
    ),
    *(
        ("POST", "/session/{session}/message", prompt(format=wanted))
        for wanted in (
            "json",
            {"type": "yaml"},
            {"type": "json_schema"},
            {"type": "json_schema", "schema": True},
            {"type": "json_schema", "schema": {"type": "array"}},
            {"type": "json_schema", "schema": {"type": "object", "properties": []}},
            {"type": "json_schema", "schema": {"type": "object", "required": "a"}},
            {"type": "json_schema", "schema": {"type": "object", "$ref": "#/nowhere"}},
            {"type": "json_schema", "schema": {"type": "object", "maxProperties": 3, "$ref": "#/maxProperties/x"}},
            {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/"}}}},
            {"type": "json_schema", "schema": {"type": "object"}, "retryCount": -1},
            {"type": "json_schema", "schema": {"type": "object"}, "retryCount": 10**6},
        )
    ),
    ("POST", "/session/{session}/message", prompt(messageID="bad")),
    ("POST", "/session/{session}/message", prompt(messageID="ses_x")),
    ("POST", "/session/{session}/message", prompt(messageID="msg_")),
    ("POST", "/session/{session}/message", prompt(messageID="msg_\n")),
    ("POST", "/session/{session}/message", prompt(messageID="msg_" + "x" * 200)),
    ("POST", "/session/{session}/message", prompt(messageID="msg_ü")),
    ("POST", "/session/{session}/message", prompt(messageID=5)),
    ("POST", "/session/{session}/message", prompt(noReply="true")),
    ("POST", "/session/{session}/message", prompt(noReply=1)),
    ("POST", "/session/{session}/message", prompt(tools=["bash"])),
    ("POST", "/session/{session}/message", prompt(agent="nobody")),
    ("POST", "/session/{session}/message", prompt(agent="")),
    ("POST", "/session/{session}/message", prompt(model={"providerID": "scripted", "modelID": "nope"})),
    ("POST", "/session/{session}/message", prompt(model={"providerID": "nope", "modelID": "main"})),
    ("POST", "/session/{session}/message", prompt(model={"providerID": "scripted"})),
    ("POST", "/session/{session}/message", prompt(model="scripted/main")),
    ("POST", "/session/{session}/message", {"parts": [{"type": "text", "text": "x", "id": "msg_x"}]}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "text", "text": "x", "id": "prt_x"}] * 2}),
    ("POST", "/session/{session}/message", {"parts": [{"type": "text", "text": "x", "time": {"start": "now"}}]}),
]


@pytest.mark.parametrize("route", ["message", "prompt_async"])
@pytest.mark.parametrize(("method", "path", "body"), WRONG_TYPES)
async def test_a_body_of_the_wrong_shape_is_refused(server: Server, method: str, path: str, body: Any, route: str):
    session = await server.session()
    before = await server.records()
    path = path.replace("/message", f"/{route}").format(session=session)
    answer = await server.api.request(method, path, json=body)

    await refused(server, answer)
    assert answer.json()["name"] == "BadRequest"
    assert await server.records() == before


async def test_fields_nobody_knows_are_ignored(server: Server):
    session = await server.session(unknown={"a": [1]})
    answer = await server.prompt(session, noReply=True, future=True, parts=[{"type": "text", "text": "x", "new": 1}])

    assert answer.status_code == 200
    assert "new" not in answer.text


async def test_text_may_hold_what_merely_looks_like_a_nul_or_like_nesting(server: Server):
    said = "\\u0000 " + "[{" * 200 + '"\\'
    answer = await server.prompt(await server.session(), said, noReply=True)

    assert answer.json()["parts"][0]["text"] == said


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/session/ses_none"),
        ("PATCH", "/session/ses_none"),
        ("DELETE", "/session/ses_none"),
        ("GET", "/session/ses_none/children"),
        ("GET", "/session/ses_none/todo"),
        ("GET", "/session/ses_none/diff"),
        ("GET", "/session/ses_none/message"),
        ("POST", "/session/ses_none/message"),
        ("POST", "/session/ses_none/prompt_async"),
        ("POST", "/session/ses_none/abort"),
        ("GET", "/session/ses_none/message/msg_none"),
        ("GET", "/session/{session}/message/msg_none"),
        ("GET", "/session/{session}/diff?messageID=msg_none"),
        ("POST", "/permission/per_none/reply"),
        ("POST", "/session/{session}/permissions/per_none"),
        ("POST", "/session/ses_none/permissions/per_none"),
        ("POST", "/question/que_none/reply"),
        ("POST", "/question/que_none/reject"),
        ("GET", "/project/none/directories"),
        ("PATCH", "/project/none"),
        ("POST", "/experimental/session/ses_none/background"),
        ("GET", "/api/provider/none"),
        ("GET", "/api/session/ses_none/permission"),
        ("GET", "/api/session/ses_none/question"),
        ("GET", "/api/session/{session}/permission/per_none"),
        ("POST", "/api/session/{session}/permission/per_none/reply"),
        ("POST", "/api/session/{session}/question/que_none/reply"),
        ("POST", "/api/session/{session}/question/que_none/reject"),
        ("POST", "/api/session/ses_none/interrupt"),
        ("GET", "/api/fs/list?path=none"),
        ("GET", "/event?session=ses_none"),
    ],
)
async def test_what_does_not_exist_is_not_found(server: Server, method: str, path: str):
    session = await server.session()
    before = await server.records()
    body = {**prompt(), "reply": "once", "response": "once", "answers": [["a"]]} if method != "GET" else None
    answer = await server.api.request(method, path.format(session=session), json=body)

    await refused(server, answer, 404)
    assert await server.records() == before


@pytest.mark.parametrize(
    "id",
    ["xyz", "msg_abc", "ses", "ses_", "ses_" + "x" * 300, "ses_%ff", "ses_%20", "%2e%2e", "ses_..%2f..", "ses_%0a"],
)
async def test_an_id_that_is_none_is_refused(server: Server, id: str):
    for method, path in (
        ("GET", f"/session/{id}"),
        ("GET", f"/session/{id}/message"),
        ("DELETE", f"/session/{id}"),
        ("POST", f"/session/{id}/abort"),
    ):
        await refused(server, await server.api.request(method, path), 400, 404)


@pytest.mark.parametrize("limit", ["-1", "0", "abc", "1.5", "99999999999999999999999", "", "%00", "١", "NaN", "true"])
async def test_a_limit_that_is_none_is_refused(server: Server, limit: str):
    session = await server.session()
    for path in ("/session", f"/session/{session}/message"):
        await refused(server, await server.api.get(f"{path}?limit={limit}"))


@pytest.mark.parametrize("start", ["-1", "abc", "99999999999999999999999", "%00"])
async def test_a_time_that_is_none_is_refused(server: Server, start: str):
    await refused(server, await server.api.get(f"/session?start={start}"))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "e30",
        "bnVsbA",
        "%00",
        "ü",
        "eyJpZCI6Im1zZ194IiwidGltZSI6MSwidmVyc2lvbiI6LTF9",
        "eyJpZCI6Im1zZ194IiwidGltZSI6MSwidmVyc2lvbiI6MWU5OX0",
        "W1tbW1tbW1tbW1tb",
    ],
)
async def test_a_cursor_that_is_none_is_refused(server: Server, cursor: str):
    session = await server.session()
    await refused(server, await server.api.get(f"/session/{session}/message?before={cursor}"))


async def test_a_directory_that_is_none_is_refused(server: Server, tmp_path: Path):
    file = tmp_path / "file"
    file.touch()
    for directory in (
        str(tmp_path / "none"),
        str(file),
        "relative",
        ".",
        "..",
        "~",
        "/dev/null",
        "/" + "x" * 300,
        "/" + "a/" * 3000,
        "/\udcff",
        "C:\\",
    ):
        quoted = httpx.QueryParams(
            {"directory": directory.encode("utf-8", "surrogateescape").decode("utf-8", "replace")}
        )
        for method, path in (
            ("POST", "/session"),
            ("GET", "/session"),
            ("GET", "/config"),
            ("GET", "/event"),
            ("GET", "/path"),
            ("PATCH", "/config"),
            ("POST", "/tui/open-help"),
            ("POST", "/experimental/worktree"),
        ):
            await refused(server, await server.api.request(method, f"{path}?{quoted}"))
    for header in ("relative", "%00", "%ff%fe", "%2Fnone"):
        await refused(server, await server.api.post("/session", headers={"x-opencode-directory": header}))
    assert await server.records() == 0


async def test_a_directory_with_a_broken_configuration_is_refused_with_the_place_of_the_mistake(
    server: Server, tmp_path: Path
):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "opencode.json").write_text('{"model": 5}')
    answer = await server.api.post("/session", params={"directory": str(broken)})

    await refused(server, answer)
    assert "opencode.json" in answer.json()["data"]["message"]


@pytest.mark.parametrize("size", [8 * 1024 * 1024 + 1, 10 * 1000 * 1000])
async def test_a_body_over_the_limit_is_refused(server: Server, size: int):
    session = await server.session()
    before = await server.records()
    body = b'{"parts":[{"type":"text","text":"' + b"x" * size + b'"}],"noReply":true}'

    async def pieces():
        for start in range(0, len(body), 1 << 16):
            yield body[start : start + (1 << 16)]

    for content in (body, pieces()):  # with a length, and without
        answer = await server.api.post(f"/session/{session}/message", content=content)
        await refused(server, answer, 413)
    assert await server.records() == before


async def test_a_body_just_below_the_limit_is_stored(server: Server):
    session = await server.session()
    said = "x" * (8 * 1024 * 1024 - 1000)

    assert (await server.prompt(session, said, noReply=True)).status_code == 200
    assert (await server.messages(session))[0]["parts"][0]["text"] == said


async def test_a_body_over_the_limit_is_refused_over_a_socket_too(server: Server):
    url = await server.listen()
    session = await server.session()
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = await client.post(f"/session/{session}/message", content=b"x" * 10_000_000)
        assert answer.status_code == 413
        assert (await client.get("/global/health")).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/session/ses_x/nope",
        "/api/nope",
        "/api/session/ses_x/nope",
        "/experimental/nope",
        "/vcs/nope",
        "/event/x",
        "/%F0%28",
    ],
)
async def test_a_route_that_does_not_exist_is_not_found_in_the_usual_shape(server: Server, path: str):
    answer = await server.api.get(path)

    await refused(server, answer, 404)
    assert answer.json()["_tag" if path.startswith("/api/") else "name"] == "NotFoundError"


async def test_a_method_that_a_route_does_not_have_is_refused_naming_those_it_has(server: Server):
    answer = await server.api.put("/session")

    await refused(server, answer, 405)
    assert set(answer.headers["allow"].split(", ")) >= {"GET", "POST"}


async def test_options_names_the_methods_of_a_route(server: Server):
    for path in ("/session", "/event"):
        answer = await server.api.options(path)
        assert answer.status_code == 204
        assert "GET" in answer.headers["allow"]


async def test_head_answers_as_get_does_without_the_body(server: Server):
    got, headed = await server.api.get("/session"), await server.api.head("/session")

    assert headed.status_code == 200
    assert headed.content == b""
    assert headed.headers["content-length"] == got.headers["content-length"]
    assert (await server.api.head("/nope")).status_code == 404


async def test_a_form_is_not_json(server: Server):
    answer = await server.api.post("/session", data={"title": "x"})

    await refused(server, answer)


async def test_json_counts_whatever_it_calls_itself(server: Server):
    answer = await server.api.post(
        "/session", content=json.dumps({"title": "x"}), headers={"content-type": "text/plain"}
    )

    assert answer.json()["title"] == "x"
