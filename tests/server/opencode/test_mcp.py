"""Tools of MCP servers, in whole turns of a whole server, with real MCP servers behind them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.mcp.servers import McpServer
from holdfast.agent.tools import conversations
from holdfast.server.listener import Listener
from holdfast.testing.loop_time import let_pass
from holdfast.testing.other_processes import is_alive, read, until
from holdfast.testing.scripted_provider import call, text
from holdfast.testing.server_process import free_port
from tests.agent.mcp.everything import make
from tests.agent.mcp.servers import EVERYTHING, local, on_loopback, raw, serving
from tests.server.harness import Server, texts


async def tool_part(server: Server, session: str) -> dict[str, Any]:
    parts = [part for message in await server.messages(session) for part in message["parts"] if part["type"] == "tool"]
    return parts[-1]


async def called(server: Server, tool: str, input: dict[str, Any] | None = None) -> dict[str, Any]:
    """The part of a tool that an LLM calls, once the turn is over."""
    server.provider.add([*call(tool, input or {})])
    server.provider.add(text("Done."))
    session = await server.session()
    answer = await server.prompt(session)
    assert texts(answer.raise_for_status().json()) == "Done."
    return await tool_part(server, session)


# --- in a turn --------------------------------------------------------------------------------------------------


@pytest.fixture
def long_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that ends when it is told to may be slow, on a busy machine."""
    monkeypatch.setattr(conversations, "_END_SECONDS", 60)


@pytest.mark.slow
async def test_the_llm_is_offered_the_tools_of_servers_and_calls_them(tmp_path: Path):
    async with serving(tmp_path, {"every thing": local(EVERYTHING)}) as server:
        part = await called(server, "every_thing_add", {"a": 2, "b": 3})
        offered = {tool.name: tool for tool in server.provider.requests[0].tools}

        assert (part["tool"], part["state"]["status"], part["state"]["output"]) == ("every_thing_add", "completed", "5")
        assert part["state"]["metadata"] == {"structuredContent": {"result": 5}, "truncated": False}
        assert offered["every_thing_add"].description == "Adds two numbers."
        assert offered["every_thing_add"].parameters["properties"].keys() == {"a", "b"}
        assert "every_thing_odd_name_with_spaces" in offered
        assert {"read", "bash"} < offered.keys()

        picture = await called(server, "every_thing_picture")
        assert picture["state"]["attachments"][0]["mime"] == "image/png"
        assert picture["state"]["attachments"][0]["url"].startswith("data:image/png;base64,iVBOR")

        embedded = await called(server, "every_thing_embedded")
        assert embedded["state"]["output"] == "first\n\nfrom a resource"

        failed = await called(server, "every_thing_fail", {"reason": "x"})
        assert (failed["state"]["status"], failed["state"]["error"]) == ("error", "Error executing tool fail")
        wrong = await called(server, "every_thing_add", {"a": "x"})
        assert wrong["state"]["status"] == "error"
        assert "Field required" in wrong["state"]["error"]

        long = await called(server, "every_thing_echo", {"text": "y" * 100_000})
        assert long["state"]["metadata"]["truncated"] is True
        assert Path(long["state"]["metadata"]["outputPath"]).read_text() == "y" * 100_000
        assert len(long["state"]["output"]) < 60_000


async def test_a_call_is_asked_for_like_that_of_any_tool(tmp_path: Path):
    log = tmp_path / "log"
    rules = {"permission": {"raw_*": "ask", "raw_die": "deny"}}
    async with serving(tmp_path, {"raw": local(raw(log))}, config=rules) as server:
        server.provider.add([*call("raw_count", {"n": 1})])
        server.provider.add([*call("raw_count", {"n": 2})])
        server.provider.add(text("Done."))
        session = await server.session()
        answering = asyncio.create_task(server.prompt(session))
        await server.recorded("permission.asked")
        [asked] = (await server.api.get("/permission")).json()
        assert (asked["permission"], asked["patterns"], asked["always"]) == ("raw_count", ["*"], ["*"])
        assert "call count" not in log.read_text()
        await server.api.post(f"/permission/{asked['id']}/reply", json={"reply": "always"})
        assert texts((await answering).json()) == "Done."

        assert log.read_text().count("call count") == 2
        assert "raw_die" not in {tool.name for tool in server.provider.requests[0].tools}


@pytest.mark.parametrize("where", ["prompt", "agent", "configuration"])
async def test_tools_of_a_server_can_be_switched_off_together(tmp_path: Path, where: str):
    off = {"raw_*": False}
    config = {"prompt": {}, "agent": {"agent": {"build": {"tools": off}}}, "configuration": {"tools": off}}[where]
    servers = {"raw": local(raw(tmp_path / "log")), "other": local(raw(tmp_path / "other"))}
    async with serving(tmp_path, servers, config=config) as server:
        server.provider.add(text("Done."))
        session = await server.session()
        body: dict[str, Any] = {"tools": off} if where == "prompt" else {}
        await server.prompt(session, **body)
        offered = {tool.name for tool in server.provider.requests[0].tools}

        assert "other_count" in offered
        assert not any(name.startswith("raw_") for name in offered)


async def test_a_hundred_tools_are_offered_but_none_with_a_schema_that_is_none(tmp_path: Path):
    async with serving(tmp_path, {"raw": local(raw(tmp_path / "log", tools=100))}) as server:
        part = await called(server, "raw_tool_99")
        offered = [tool.name for tool in server.provider.requests[0].tools]

        assert part["state"]["output"] == "tool_99"
        assert len([name for name in offered if name.startswith("raw_tool_")]) == 100
        assert "raw_bad_schema" not in offered
        assert len(offered) == len(set(offered))


async def test_of_two_tools_with_one_name_the_first_counts(tmp_path: Path):
    first, second = tmp_path / "first", tmp_path / "second"
    async with serving(tmp_path, {"a b": local(raw(first)), "a.b": local(raw(second))}) as server:
        await called(server, "a_b_count")

        assert ("call count" in first.read_text(), "call count" in second.read_text()) == (True, False)


async def test_a_server_that_dies_in_mid_call_leaves_an_unknown_outcome_and_is_back_for_the_next(
    tmp_path: Path, long_farewell: None
):
    log = tmp_path / "log"
    async with serving(tmp_path, {"raw": local(raw(log))}) as server:
        part = await called(server, "raw_die")
        assert part["state"]["status"] == "error"
        assert "What became of the call is not known." in part["state"]["error"]
        assert "exit status 7): I die of it" in part["state"]["error"]
        again = await called(server, "raw_count")

        assert again["state"]["output"] == "count"
        assert log.read_text().count("call die") == 1
        assert log.read_text().count("start") == 2


async def test_a_server_that_never_answers_is_given_up_after_its_timeout_and_told_so(tmp_path: Path):
    log = tmp_path / "log"
    async with serving(tmp_path, {"raw": local(raw(log), timeout=60_000)}) as server:
        calling = asyncio.create_task(called(server, "raw_hang"))
        await until(lambda: "call hang" in read(log))
        let_pass(60)
        part = await calling
        assert part["state"]["status"] == "error"
        assert "did not answer within 60 seconds" in part["state"]["error"]
        await called(server, "raw_count")

        assert log.read_text().splitlines()[-2:] == ["cancelled", "call count"]


async def test_an_abort_calls_the_call_off(tmp_path: Path):
    log = tmp_path / "log"
    async with serving(tmp_path, {"raw": local(raw(log))}) as server:
        server.provider.add([*call("raw_hang", {})])
        session = await server.session()
        answering = asyncio.create_task(server.prompt(session))
        await until(lambda: "call hang" in read(log))
        await server.api.post(f"/session/{session}/abort")
        await answering
        await until(lambda: "cancelled" in read(log))
        part = await tool_part(server, session)

        assert (part["state"]["status"], "start" in log.read_text()) == ("error", True)
        assert log.read_text().count("start") == 1


@pytest.mark.slow
async def test_a_server_that_floods_does_not_hold_up_ours(tmp_path: Path):
    async with serving(tmp_path, {"raw": local(raw(tmp_path / "log"))}) as server:
        part = await called(server, "raw_flood")
        assert part["state"]["output"] == "flooded"
        part = await called(server, "raw_shout")
        assert part["state"]["output"] == "shouted"


async def test_a_message_that_is_too_long_ends_the_connection_and_not_our_server(tmp_path: Path):
    async with serving(tmp_path, {"raw": local(raw(tmp_path / "log"))}) as server:
        part = await called(server, "raw_huge")
        assert "It sent a message of more than 8 MB." in part["state"]["error"]
        assert (await called(server, "raw_count"))["state"]["output"] == "count"


async def test_a_server_sees_its_own_variables_and_no_password_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOLDFAST_PASSWORD", "pw-of-ours")
    monkeypatch.setenv("OPENCODE_SERVER_PASSWORD", "pw-of-ours")
    monkeypatch.setenv("SOMETHING_ELSE", "passed on")
    server_of_it = local(raw(tmp_path / "log"), environment={"TOKEN": "for the server", "SOMETHING": "1"})
    async with serving(tmp_path, {"raw": server_of_it}) as server:
        part = await called(server, "raw_environment")
        variables = json.loads(part["state"]["output"])

        assert (variables["TOKEN"], variables["SOMETHING_ELSE"]) == ("for the server", "passed on")
        assert "pw-of-ours" not in part["state"]["output"]


async def test_a_server_that_cannot_be_started_holds_up_no_turn(tmp_path: Path):
    servers = {"none": local(["/nonexistent/program"]), "empty": {"type": "local"}, "ends": local(["true"])}
    async with serving(tmp_path, servers) as server:
        server.provider.add(text("Hello."))
        session = await server.session()
        assert texts((await server.prompt(session)).json()) == "Hello."


@pytest.mark.slow
async def test_tools_that_come_later_are_offered_with_the_next_request(tmp_path: Path):
    async with serving(tmp_path, {"every": local(EVERYTHING)}) as server:
        await called(server, "every_grow")
        await until(lambda: any(tool.id == "every_late" for tool in offers(server, tmp_path)))
        part = await called(server, "every_late")

        assert part["state"]["output"] == "late"


def offers(server: Server, directory: Path) -> list[Any]:
    return server.application.services.mcp.tools(str(directory), ())


# --- coming and going -------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_the_programs_of_servers_end_with_ours_and_with_the_instance(tmp_path: Path):
    log = tmp_path / "log"
    async with serving(tmp_path, {"raw": local(raw(log))}) as server:
        part = await called(server, "raw_child")
        first = [int(pid) for pid in part["state"]["output"].split()]
        assert all(map(is_alive, first))
        await server.api.post("/instance/dispose")
        await until(lambda: not any(map(is_alive, first)))
        part = await called(server, "raw_child")
        second = [int(pid) for pid in part["state"]["output"].split()]
        assert all(map(is_alive, second))

    assert not any(map(is_alive, second))


@pytest.mark.slow
async def test_the_configuration_is_followed_without_a_restart(tmp_path: Path, long_farewell: None):
    def write(mcp: dict[str, Any]) -> None:
        (tmp_path / "opencode.json").write_text(json.dumps({"mcp": mcp}))

    first, second = tmp_path / "first", tmp_path / "second"
    write({"raw": local(raw(first))})
    async with Server(tmp_path) as server:
        await called(server, "raw_count")
        write({"raw": local(raw(second), environment={"LONGER": "than before"})})
        await asyncio.sleep(1.1)  # so long a configuration is taken as read
        await called(server, "raw_count")
        await until(lambda: "end" in read(first))
        write({})
        await asyncio.sleep(1.1)
        server.provider.add(text("Done."))
        await server.prompt(await server.session())
        await until(lambda: "end" in read(second))

        assert not any(tool.name.startswith("raw") for tool in server.provider.requests[-1].tools)
        assert (read(first).count("call count"), read(second).count("call count")) == (1, 1)


# --- remote servers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["streamable HTTP", "SSE"])
async def test_a_remote_server_is_spoken_to_the_way_it_knows(tmp_path: Path, kind: str):
    everything = make()
    app = everything.streamable_http_app() if kind == "streamable HTTP" else everything.sse_app()
    async with on_loopback(app) as url:
        path = "/mcp" if kind == "streamable HTTP" else "/sse"
        async with serving(tmp_path, {"far": {"type": "remote", "url": url + path}}) as server:
            assert (await called(server, "far_add", {"a": 2, "b": 3}))["state"]["output"] == "5"
            assert (await server.api.get("/mcp")).json() == {"far": {"status": "connected"}}


@pytest.mark.slow
async def test_a_remote_server_that_went_away_and_came_back_is_found_again(tmp_path: Path):
    port = free_port()
    async with serving(tmp_path, {"far": {"type": "remote", "url": f"http://127.0.0.1:{port}/mcp"}}) as server:
        [status] = (await server.api.get("/mcp")).json().values()
        assert status["status"] == "failed"
        assert "could not be reached" in status["error"]
        async with on_loopback(make().streamable_http_app(), port=port):
            assert (await server.api.post("/mcp/far/connect")).json() is True
            assert (await called(server, "far_add", {"a": 2, "b": 3}))["state"]["output"] == "5"
        part = await called(server, "far_add", {"a": 2, "b": 4})
        assert part["state"]["status"] == "error"
        async with on_loopback(make().streamable_http_app(), port=port):
            assert (await called(server, "far_add", {"a": 2, "b": 3}))["state"]["output"] == "5"


async def test_a_server_that_is_not_one_is_failed_and_says_why(tmp_path: Path):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        page = b"<html>" + b"x" * 100
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": page})

    async with (
        Listener(app, "127.0.0.1", 0) as listener,
        serving(tmp_path, {"far": {"type": "remote", "url": listener.url}}) as server,
    ):
        [status] = (await server.api.get("/mcp")).json().values()
        assert status == {"status": "failed", "error": "Unexpected content type: text/html"}


# --- routes -----------------------------------------------------------------------------------------------------


async def test_servers_can_be_looked_at_switched_and_added(tmp_path: Path, long_farewell: None):
    log, added = tmp_path / "log", tmp_path / "added"
    servers = {
        "raw": local(raw(log)),
        "off": local(raw(log), enabled=False),
        "none": local(["/nonexistent/x"]),
        "only switched": {"enabled": True},
    }
    async with serving(tmp_path, servers) as server:
        await server.listen()
        async with server.events("/global/event") as events:
            await events.until("server.connected")
            assert read(log) == ""  # nobody has needed it
            assert (await server.api.get("/mcp")).json() == {
                "raw": {"status": "connected"},
                "off": {"status": "disabled"},
                "none": {"status": "failed", "error": "There is no program '/nonexistent/x'."},
            }
            changed = (await events.until("mcp.tools.changed"))[-1].json
            assert changed["directory"] == str(tmp_path)
            assert changed["payload"]["properties"] == {"server": "raw"}
        assert (await server.api.post("/mcp/raw/disconnect")).json() is True
        assert (await server.api.get("/mcp")).json()["raw"] == {"status": "disabled"}
        assert "end" in read(log)
        assert offers(server, tmp_path) == []
        assert (await server.api.post("/mcp/off/connect")).json() is True
        assert (await server.api.get("/mcp")).json()["off"] == {"status": "connected"}
        new = {"name": "new", "config": local(raw(added))}
        assert (await server.api.post("/mcp", json=new)).json()["new"] == {"status": "connected"}
        assert (await called(server, "new_count"))["state"]["output"] == "count"
        await server.api.post("/instance/dispose")
        after = (await server.api.get("/mcp")).json()
        assert (after.keys(), after["raw"], after["off"]) == (
            {"raw", "off", "none"},
            {"status": "connected"},
            {"status": "disabled"},
        )


@pytest.mark.slow
async def test_what_servers_offer_to_read_and_their_prompts_are_listed(tmp_path: Path):
    async with serving(tmp_path, {"every thing": local(EVERYTHING)}) as server:
        assert (await server.api.get("/experimental/resource")).json() == {
            "every thing:note one": {
                "name": "note one",
                "uri": "note://one",
                "description": "A note.",
                "mimeType": "text/plain",
                "client": "every thing",
            }
        }
        commands = [c for c in (await server.api.get("/command")).json() if c["source"] == "mcp"]
        assert commands == [
            {
                "name": "every_thing:review",
                "description": "Asks for a review.",
                "source": "mcp",
                "template": "",
                "hints": ["$1", "$2"],
            }
        ]


@pytest.mark.slow
async def test_a_prompt_of_a_server_is_a_command_whose_words_are_only_words(tmp_path: Path):
    async with serving(tmp_path, {"every thing": local(EVERYTHING)}) as server:
        session = await server.session()
        server.provider.add(text("Done."))
        command = {"command": "every_thing:review", "arguments": "'!`touch run` @opencode.json' very quickly"}
        answer = await server.api.post(f"/session/{session}/command", json=command)
        assert texts(answer.raise_for_status().json()) == "Done."
        [prompt, _] = await server.messages(session)
        assert [part["text"] for part in prompt["parts"]] == ["Review !`touch run` @opencode.json very quickly."]
        assert not (tmp_path / "run").exists()

        before = await server.records()
        missing = await server.api.post(f"/session/{session}/command", json={**command, "arguments": ""})
        assert (missing.status_code, missing.json()["data"]["message"]) == (
            400,
            "The prompt every_thing:review needs: what.",
        )
        assert await server.records() == before


SECRETS = ("s3cret-variable", "s3cret-header", "s3cret-client", "s3cret-query", "s3cret-option", "s3cret-user")


async def test_no_secret_of_the_configuration_gets_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], long_farewell: None
):
    says_it = [
        sys.executable,
        "-c",
        "import os, sys; sys.exit('no ' + os.environ['TOKEN'])",
        "--token",
        "s3cret-option",
    ]
    servers = {
        "local": local(says_it, environment={"TOKEN": "s3cret-variable"}),
        "far": {
            "type": "remote",
            "url": "http://me:s3cret-user@127.0.0.1:9/mcp?key=s3cret-query",
            "headers": {"Authorization": "Bearer s3cret-header"},
            "oauth": {"clientId": "us", "clientSecret": "s3cret-client"},
        },
    }
    async with serving(tmp_path, servers) as server:
        status = (await server.api.get("/mcp")).json()
        assert status["local"] == {"status": "failed", "error": "It ended (exit status 1): no ***"}
        assert status["far"]["status"] == "failed"
        answers = [(await server.api.get(path)).text for path in ("/mcp", "/config", "/doc", "/experimental/resource")]
        answers += [
            (await server.api.post(f"/mcp/far/{path}")).text for path in ("connect", "auth", "auth/authenticate")
        ]
    logged = "".join(capfd.readouterr())

    assert "mcp.stderr" in logged
    assert [secret for secret in SECRETS if any(secret in text for text in [*answers, logged])] == []


BAD = {
    "no body": None,
    "no name": {"config": local(["true"])},
    "an empty name": {"name": " ", "config": local(["true"])},
    "a long name": {"name": "x" * 65, "config": local(["true"])},
    "no type": {"name": "x", "config": {"command": ["true"]}},
    "another type": {"name": "x", "config": {"type": "odd", "command": ["true"]}},
    "no command": {"name": "x", "config": {"type": "local"}},
    "an empty command": {"name": "x", "config": local([])},
    "a command that is a text": {"name": "x", "config": {"type": "local", "command": "true"}},
    "a NUL": {"name": "x", "config": local(["true", "a\0b"])},
    "a timeout of nothing": {"name": "x", "config": local(["true"], timeout=0)},
    "a variable without a name": {"name": "x", "config": local(["true"], environment={"": "x"})},
    "no url": {"name": "x", "config": {"type": "remote"}},
    "another scheme": {"name": "x", "config": {"type": "remote", "url": "file:///etc/passwd"}},
    "a header of two lines": {"name": "x", "config": {"type": "remote", "url": "http://x", "headers": {"a": "b\r\nc"}}},
    "oauth that is true": {"name": "x", "config": {"type": "remote", "url": "http://x", "oauth": True}},
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
async def test_a_server_that_cannot_be_one_is_refused_and_not_added(server: Server, body: Any):
    answer = await server.api.post("/mcp", json=body)

    assert answer.status_code == 400
    assert answer.json()["data"]["message"]
    assert (await server.api.get("/mcp")).json() == {}


async def test_what_is_asked_of_a_server_that_is_not_there_or_has_no_login_is_refused(tmp_path: Path):
    servers = {"raw": local(raw(tmp_path / "log")), "far": {"type": "remote", "url": "http://127.0.0.1:9/mcp"}}
    async with serving(tmp_path, servers) as server:
        before = await server.records()
        for method, path in (
            *(("POST", path) for path in ("connect", "disconnect", "auth", "auth/authenticate", "auth/callback")),
            ("DELETE", "auth"),
        ):
            answer = await server.api.request(method, f"/mcp/nope/{path}", json={"code": "x"})
            assert (answer.status_code, answer.json()) == (
                404,
                {"_tag": "McpServerNotFoundError", "message": "MCP server not found: nope", "name": "nope"},
            )
        for path in ("auth", "auth/authenticate", "auth/callback"):
            answer = await server.api.post(f"/mcp/raw/{path}", json={"code": "x"})
            assert (answer.status_code, answer.json()) == (400, {"error": "MCP server raw does not support OAuth"})
        assert (await server.api.delete("/mcp/raw/auth")).json() == {"success": True}
        assert (await server.api.post("/mcp/far/auth")).status_code == 409
        assert (await server.api.post("/mcp/far/auth/callback", json={"code": "x"})).status_code == 409
        assert (await server.api.post("/mcp/far/auth/callback", json={})).status_code == 400
        assert await server.records() == before


@pytest.mark.parametrize("path", ["/mcp/away/connect", "/mcp/away/auth"])
async def test_a_server_whose_directory_is_disposed_of_is_not_started_behind_its_back(
    tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
):
    """Beginning a login was a 500; switching one on left a program that nobody knew of any more."""
    started: list[str] = []
    close = McpServer.close
    async with serving(tmp_path, {"away": {"type": "remote", "url": "http://127.0.0.1:9/"}}) as server:
        await server.api.get("/mcp")
        application = server.application

        async def disposed_meanwhile(self: McpServer) -> None:
            monkeypatch.setattr(McpServer, "close", close)
            monkeypatch.setattr(McpServer, "start", lambda self, attempt=None: started.append(self.name))
            await self.close()
            application.services.instances.dispose()

        monkeypatch.setattr(McpServer, "close", disposed_meanwhile)
        answer = await server.api.post(path)

    assert (answer.status_code, started) == (409, [])
