import json
from pathlib import Path
from typing import Any

from tests.server.harness import CONFIG, Server

SECRET = "sk-very-secret-value"


async def get(server: Server, path: str, **query: str) -> Any:
    return (await server.api.get(path, params=query)).raise_for_status().json()


async def test_health_says_so(server: Server):
    assert await get(server, "/global/health") == {"healthy": True, "version": "0.1.0"}


async def test_no_route_shows_a_secret(tmp_path: Path):
    config = {
        "model": "scripted/main",
        "provider": {
            "p": {
                "env": ["P_KEY"],
                "npm": "@ai-sdk/openai-compatible",
                "options": {
                    "baseURL": f"http://user:{SECRET}@127.0.0.1:1/v1",
                    "apiKey": SECRET,
                    "headers": {"x": SECRET},
                },
                "models": {"m": {"headers": {"authorization": SECRET}, "options": {"apiToken": SECRET}}},
            },
            **CONFIG["provider"],
        },
        "mcp": {"tools": {"type": "local", "command": ["x"], "environment": {"TOKEN": SECRET}}},
        "agent": {"build": {"options": {"api_key": SECRET}}},
        "formatter": {"f": {"command": ["x"], "environment": {"TOKEN": SECRET}}},
        "lsp": {"l": {"command": ["x"], "env": {"TOKEN": SECRET}, "initialization": {"token": SECRET}}},
    }
    environ = {"OPENCODE_CONFIG_CONTENT": json.dumps(config)}
    async with (
        Server(tmp_path, environ=environ, password=SECRET) as server,
        server.client(auth=("opencode", SECRET)) as api,
    ):
        session = (await api.post("/session", json={})).json()["id"]
        await api.post(f"/session/{session}/message", json={"noReply": True, "parts": [{"type": "text", "text": "x"}]})
        document = (await api.get("/doc")).json()
        for path in document["paths"]:
            if "{" not in path and not path.endswith(("/event", "/next")):
                answer = await api.get(path)
                assert SECRET not in answer.text, path
        shown = (await api.get("/config")).json()
        assert "p" in shown["provider"]
        assert (shown["formatter"], shown["lsp"]) == ({"f": {"command": ["x"]}}, {"l": {"command": ["x"]}})


async def test_models_are_listed_in_the_shapes_that_clients_read(server: Server):
    listed, configured = await get(server, "/provider"), await get(server, "/config/providers")

    assert listed.keys() == {"all", "default", "connected"}
    assert configured.keys() == {"providers", "default"}
    assert configured["default"]["scripted"] in ("main", "other")
    scripted = next(provider for provider in listed["all"] if provider["id"] == "scripted")
    assert scripted.keys() >= {"id", "name", "source", "env", "options", "models"}
    assert scripted["models"]["main"].keys() >= {"id", "providerID", "api", "name", "capabilities", "cost", "limit"}


async def test_agents_and_commands_are_listed_in_the_shapes_that_clients_read(server: Server):
    agents, commands = await get(server, "/agent"), await get(server, "/command")

    assert [agent["name"] for agent in agents][:2] == ["build", "plan"]
    assert all(agent.keys() >= {"name", "mode", "permission", "options"} for agent in agents)
    assert agents[0]["permission"][0] == {"permission": "*", "pattern": "*", "action": "allow"}
    assert {"init", "review"} <= {command["name"] for command in commands}
    assert all(command.keys() >= {"name", "template", "hints"} for command in commands)


async def test_the_configuration_is_that_of_the_directory(server: Server, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "opencode.json").write_text('{"username": "somebody"}')

    assert (await get(server, "/config", directory=str(other)))["username"] == "somebody"
    assert (await get(server, "/config"))["username"] != "somebody"


async def test_paths_are_absolute(server: Server):
    path = await get(server, "/path")

    assert path.keys() == {"home", "state", "config", "worktree", "directory"}
    assert path["directory"] == str(server.directory)
    assert all(value.startswith("/") for value in path.values())


async def test_a_project_is_listed_once_it_has_a_session(server: Server):
    assert await get(server, "/project") == []
    assert (await get(server, "/project/current"))["id"] == "global"
    await server.session()

    [project] = await get(server, "/project")
    assert project == await get(server, "/project/current")
    assert project.keys() == {"id", "worktree", "time", "sandboxes"}
    assert await get(server, "/project/global/directories") == [{"directory": str(server.directory)}]


async def test_a_disposed_directory_reads_its_configuration_again(server: Server):
    (server.directory / "opencode.json").write_text('{"username": "first"}')
    await server.api.post("/instance/dispose")
    first = (await get(server, "/config"))["username"]
    (server.directory / "opencode.json").write_text('{"username": "second one"}')
    await server.api.post("/global/dispose")

    assert [first, (await get(server, "/config"))["username"]] == ["first", "second one"]


async def test_who_opens_the_address_in_a_browser_is_told_what_this_is(server: Server):
    answer = await server.api.get("/")

    assert answer.status_code == 200
    assert "Holdfast" in answer.text
