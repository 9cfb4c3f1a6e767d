from tests.server.harness import Server


async def test_tools_are_listed_with_the_schema_of_their_input(server: Server):
    ids = (await server.api.get("/experimental/tool/ids")).json()
    tools = (await server.api.get("/experimental/tool", params={"provider": "scripted", "model": "main"})).json()

    assert {"bash", "read", "edit", "task", "invalid"} <= set(ids)
    assert [tool["id"] for tool in tools] == ids
    assert all(tool["description"] and tool["parameters"]["type"] == "object" for tool in tools)


async def test_tools_of_a_model_that_is_not_there_are_refused(server: Server):
    for query in ("", "?provider=scripted", "?model=main", "?provider=scripted&model=none", "?provider=x&model=main"):
        answer = await server.api.get(f"/experimental/tool{query}")
        assert answer.status_code == 400


async def test_there_are_no_accounts_and_no_workspaces(server: Server):
    expected = {
        "capabilities": {"backgroundSubagents": False},
        "console": {"consoleManagedProviders": [], "switchableOrgCount": 0},
        "console/orgs": {"orgs": []},
        "workspace": [],
        "workspace/status": [],
        "workspace/adapter": [],
    }

    assert {route: (await server.api.get(f"/experimental/{route}")).json() for route in expected} == expected


async def test_no_language_server_and_no_formatter_runs(server: Server):
    assert (await server.api.get("/lsp")).json() == []
    assert (await server.api.get("/formatter")).json() == []


async def test_no_subagent_goes_on_in_the_background(server: Server):
    session = await server.session()

    assert (await server.api.post(f"/experimental/session/{session}/background")).json() is False
    assert (await server.api.post("/experimental/session/ses_none/background")).status_code == 404
    assert (await server.api.post("/experimental/session/none/background")).status_code == 400
