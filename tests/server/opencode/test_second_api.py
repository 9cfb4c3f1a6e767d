"""`/api/*`: what the TUI reads when it starts, about the directory that `location[directory]` names."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.server.harness import CONFIG, Server

SECRET = "sk-very-secret-value"


async def get(server: Server, path: str, directory: Path | None = None) -> Any:
    params = {"location[directory]": str(directory)} if directory else {}
    return (await server.api.get(path, params=params)).raise_for_status().json()


async def test_health_says_so(server: Server):
    assert await get(server, "/api/health") == {"healthy": True}


async def test_a_location_is_the_directory_that_the_query_names(server: Server, tmp_path: Path):
    other = tmp_path / "other"
    other.mkdir()

    assert await get(server, "/api/location") == {
        "directory": str(tmp_path),
        "project": {"id": "global", "directory": "/"},
    }
    assert (await get(server, "/api/location", other))["directory"] == str(other)
    assert (await get(server, "/api/command", other))["location"]["directory"] == str(other)


@pytest.mark.parametrize(
    "route", ["location", "agent", "model", "provider", "integration", "command", "skill", "reference"]
)
async def test_a_location_that_is_none_is_refused(server: Server, route: str):
    for directory in ("relative", "/does/not/exist", "/dev/null"):
        answer = await server.api.get(f"/api/{route}", params={"location[directory]": directory})
        assert answer.status_code == 400
        assert (answer.json()["_tag"], answer.json()["field"]) == ("InvalidRequestError", "directory")


async def test_agents_are_those_of_the_first_api(server: Server):
    first = (await server.api.get("/agent")).json()
    second = (await get(server, "/api/agent"))["data"]

    assert [agent["id"] for agent in second] == [agent["name"] for agent in first]
    assert second[0]["permissions"][0] == {"action": "*", "resource": "*", "effect": "allow"}
    assert second[0]["hidden"] is False
    assert second[0]["request"] == {"headers": {}, "body": {}}


async def test_models_and_providers_say_how_they_are_reached_and_what_they_cost(tmp_path: Path):
    cost = {"input": 1, "output": 2, "context_over_200k": {"input": 3, "output": 4}}
    model = {"name": "M", "release_date": "2025-08-07", "cost": cost, "limit": {"context": 300_000, "output": 8000}}
    provider = {"npm": "@ai-sdk/openai-compatible", "name": "P", "options": {"baseURL": "http://127.0.0.1:1/v1"}}
    config = {"provider": {"p": {**provider, "models": {"m": model}}}}
    async with Server(tmp_path, environ={"OPENCODE_CONFIG_CONTENT": json.dumps(config)}) as server:
        models = (await get(server, "/api/model"))["data"]
        found = (await get(server, "/api/provider/p"))["data"]

        assert found == next(known for known in (await get(server, "/api/provider"))["data"] if known["id"] == "p")
    assert found["api"] == {
        "type": "aisdk",
        "package": "@ai-sdk/openai-compatible",
        "url": "http://127.0.0.1:1/v1",
        "settings": {"baseURL": "http://127.0.0.1:1/v1"},
    }
    m = next(model for model in models if model["id"] == "m")
    assert m["time"] == {"released": 1754524800000}
    assert m["capabilities"] == {"tools": True, "input": ["text"], "output": ["text"]}
    assert [price["input"] for price in m["cost"]] == [1, 3]
    assert m["cost"][1]["tier"] == {"type": "context", "size": 200_000}
    assert m["limit"] == {"context": 300_000, "output": 8000}


async def test_a_provider_that_is_not_there_is_not_found_and_an_integration_is_null(server: Server):
    answer = await server.api.get("/api/provider/none")

    assert (answer.status_code, answer.json()["_tag"]) == (404, "ProviderNotFoundError")
    answer = await server.api.get("/api/integration/none")
    assert (answer.status_code, answer.json()["data"]) == (200, None)


async def test_every_error_of_the_second_api_is_tagged(server: Server):
    """As its clients tell errors apart; those of the first API are named."""
    for method, path, body, expected in (
        ("GET", "/api/session/ses_none/permission", None, {"_tag": "SessionNotFoundError", "sessionID": "ses_none"}),
        ("POST", "/api/session/ses_none/interrupt", None, {"_tag": "SessionNotFoundError", "sessionID": "ses_none"}),
        ("GET", "/api/session/nope/question", None, {"_tag": "InvalidRequestError", "field": "sessionID"}),
        ("GET", "/api/fs/find", None, {"_tag": "InvalidRequestError", "kind": "Query"}),
        ("GET", "/api/pty/nope", None, {"_tag": "InvalidRequestError", "kind": "Params"}),
        ("POST", "/api/pty", b'{"command": 5}', {"_tag": "InvalidRequestError", "kind": "Payload"}),
        ("POST", "/api/pty", b"{", {"_tag": "InvalidRequestError", "kind": "Payload"}),
        ("GET", "/api/fs/list?path=none", None, {"_tag": "NotFoundError"}),
        ("GET", "/api/session", None, {"_tag": "NotImplementedError"}),
        ("GET", "/api/nope", None, {"_tag": "NotFoundError"}),
        ("DELETE", "/api/agent", None, {"_tag": "MethodNotAllowed"}),
    ):
        answer = (await server.api.request(method, path, content=body)).json()
        assert answer.items() >= expected.items(), path
        assert answer["message"]
        assert "name" not in answer


async def test_a_stranger_is_told_so_in_the_words_of_the_second_api(server_with_password: Server):
    api = server_with_password.api
    answer = await api.get("/api/agent")
    page = await api.get("/api/agent", headers={"origin": "https://example.org"})

    assert (answer.status_code, answer.json()) == (
        401,
        {"_tag": "UnauthorizedError", "message": "Authentication required"},
    )
    assert "Basic" in answer.headers["www-authenticate"]
    assert (page.status_code, page.json()["_tag"]) == (403, "ForbiddenError")
    assert (await api.get("/agent")).content == b""


async def test_a_provider_with_a_variable_for_its_key_is_an_integration(tmp_path: Path):
    config = {"provider": {"p": {"env": ["P_KEY"], "models": {"m": {}}}, "q": {"models": {"m": {}}}}}
    async with Server(tmp_path, environ={"OPENCODE_CONFIG_CONTENT": json.dumps(config)}) as server:
        integrations = (await get(server, "/api/integration"))["data"]

        assert [known["id"] for known in integrations if known["id"] in "pq"] == ["p"]
        one = (await get(server, "/api/integration/p"))["data"]
        assert one["methods"] == [{"type": "env", "names": ["P_KEY"]}]


async def test_commands_name_their_model(tmp_path: Path):
    config = {**CONFIG, "command": {"c": {"template": "Do $1", "model": "scripted/main", "agent": "plan"}}}
    async with Server(tmp_path, environ={"OPENCODE_CONFIG_CONTENT": json.dumps(config)}) as server:
        commands = (await get(server, "/api/command"))["data"]

    [command] = [command for command in commands if command["name"] == "c"]
    assert command == {
        "name": "c",
        "template": "Do $1",
        "agent": "plan",
        "model": {"id": "main", "providerID": "scripted"},
    }


async def test_skills_are_listed_in_both_apis(server: Server, tmp_path: Path):
    file = tmp_path / ".opencode" / "skill" / "dance" / "SKILL.md"
    file.parent.mkdir(parents=True)
    file.write_text("---\nname: dance\ndescription: How to dance\n---\nOne, two, three.\n")
    skill = {
        "name": "dance",
        "description": "How to dance",
        "location": str(file),
        "content": "One, two, three.",
    }

    assert (await get(server, "/api/skill"))["data"] == [skill]
    assert (await server.api.get("/skill")).json() == [skill]
    assert (await get(server, "/api/reference"))["data"] == []
