"""Formatters of the configuration, in a whole server."""

import json
import sys
from pathlib import Path

from holdfast.testing.scripted_provider import call, text
from tests.server.harness import Server


async def test_a_changed_file_is_formatted_and_the_llm_may_go_on_with_it(tmp_path: Path):
    code = "import pathlib, sys; p = pathlib.Path(sys.argv[1]); p.write_text(p.read_text().upper())"
    command = [sys.executable, "-I", "-S", "-c", code, "$FILE"]
    formatters = {
        "upper": {"command": command, "extensions": [".txt"]},
        "gone": {"command": ["/nonexistent/program"], "extensions": [".md"]},
        "off": {"command": command, "disabled": True},
    }
    (tmp_path / "opencode.json").write_text(json.dumps({"formatter": formatters}))
    path = tmp_path / "a.txt"
    scripts = [
        [*call("write", {"filePath": str(path), "content": "text\n"})],
        [*call("edit", {"filePath": str(path), "oldString": "TEXT", "newString": "more"})],
        text("Done."),
    ]
    async with Server(tmp_path) as server:
        for script in scripts:
            server.provider.add(script)
        assert (await server.api.get("/formatter")).json() == [
            {"name": "upper", "extensions": [".txt"], "enabled": True},
            {"name": "gone", "extensions": [".md"], "enabled": False},
        ]
        session = await server.session()
        (await server.prompt(session)).raise_for_status()
        parts = [part for message in await server.messages(session) for part in message["parts"]]

        assert [part["state"]["status"] for part in parts if part["type"] == "tool"] == ["completed", "completed"]
        assert path.read_text() == "MORE\n"
