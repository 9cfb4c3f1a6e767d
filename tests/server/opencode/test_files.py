"""`/find` and `/file` over HTTP: shapes, and a 4xx with a reason for what must not be."""

import os
from pathlib import Path

import pytest

from tests.server.harness import Server


@pytest.fixture
def project(server: Server) -> Path:
    (server.directory / "src").mkdir()
    (server.directory / "src/main.py").write_text("print('hello')\n")
    (server.directory / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    return server.directory


async def test_text_is_found_in_the_shape_of_ripgrep(server: Server, project: Path) -> None:
    (match,) = (await server.api.get("/find", params={"pattern": "hel+o"})).json()
    assert match == {
        "path": {"text": "src/main.py"},
        "lines": {"text": "print('hello')\n"},
        "line_number": 1,
        "absolute_offset": 0,
        "submatches": [{"match": {"text": "hello"}, "start": 7, "end": 12}],
    }


async def test_files_are_found_by_name(server: Server, project: Path) -> None:
    async def found(**query: str) -> list[str]:
        return (await server.api.get("/find/file", params=query)).raise_for_status().json()

    assert await found(query="main") == ["src/main.py"]
    assert await found(query="src") == ["src/", "src/main.py"]
    assert await found(query="src", dirs="false") == ["src/main.py"]
    assert await found(query="src", type="directory") == ["src/"]
    assert await found(query="", limit="1") == ["src/"]


async def test_without_a_language_server_no_symbol_is_found(server: Server) -> None:
    assert (await server.api.get("/find/symbol", params={"query": "x"})).json() == []


async def test_a_directory_is_listed(server: Server, project: Path) -> None:
    nodes = (await server.api.get("/file", params={"path": ""})).json()
    assert nodes[0] == {
        "name": "src",
        "path": "src/",
        "absolute": str(project / "src"),
        "type": "directory",
        "ignored": False,
    }
    assert [node["path"] for node in nodes] == ["src/", "image.png"]


async def test_text_is_sent_as_text_and_other_content_in_base64(server: Server, project: Path) -> None:
    text = await server.api.get("/file/content", params={"path": "src/main.py"})
    assert text.json() == {"type": "text", "content": "print('hello')\n"}
    image = await server.api.get("/file/content", params={"path": "image.png"})
    assert image.json() == {
        "type": "binary",
        "content": "iVBORw0KGgoA",
        "encoding": "base64",
        "mimeType": "image/png",
    }


async def test_status_outside_of_git_is_empty(server: Server) -> None:
    assert (await server.api.get("/file/status")).json() == []


@pytest.mark.parametrize("route", ["/file", "/file/content"])
@pytest.mark.parametrize("path", ["..", "../x", "/etc/passwd", "link/passwd", "%2e%2e/x/../../..", "x" * 5000])
async def test_nothing_outside_of_the_directory_is_shown(server: Server, route: str, path: str) -> None:
    (server.directory / "link").symlink_to("/etc")
    answer = await server.api.get(route, params={"path": path})
    assert answer.status_code in (400, 404)
    assert answer.json()["data"]["message"]
    assert "root:" not in answer.text


async def test_a_directory_that_went_away_is_no_fault_of_ours(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = server.directory / "gone"
    gone.mkdir()
    directory = {"directory": str(gone), "location[directory]": str(gone)}
    await server.api.get("/path", params=directory)
    gone.rmdir()
    monkeypatch.setattr(os.path, "isdir", lambda path: True)  # it went away in the middle of the request
    for path in ("/file?path=", "/api/fs/list"):
        answer = await server.api.get(path, params={**directory, "path": ""})
        assert (answer.status_code, "cannot be opened" in answer.text) == (400, True)


async def test_what_is_wrong_is_answered_with_a_reason(server: Server, project: Path) -> None:
    os.mkfifo(project / "pipe")
    with (project / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for path, query, status in [
        ("/find", {"pattern": "["}, 400),
        ("/find", {"pattern": ""}, 400),
        ("/find", {}, 400),
        ("/find/file", {"query": "x", "limit": "0"}, 400),
        ("/find/file", {"query": "x", "limit": "9" * 30}, 400),
        ("/find/file", {"query": "x", "type": "pipe"}, 400),
        ("/file", {"path": "nope"}, 404),
        ("/file", {"path": "image.png"}, 400),
        ("/file", {}, 400),
        ("/file/content", {"path": "nope"}, 404),
        ("/file/content", {"path": "src"}, 400),
        ("/file/content", {"path": "pipe"}, 400),
        ("/file/content", {"path": "huge"}, 413),
        ("/file/content", {"path": "a\0b"}, 400),
        ("/file/content", {"path": "x", "directory": "/no/such/directory"}, 400),
    ]:
        answer = await server.api.get(path, params=query)
        assert (path, query, answer.status_code) == (path, query, status)
        assert answer.json()["data"]["message"]
