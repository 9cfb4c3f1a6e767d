"""A language server that does what it is told: `python language_server.py LOG [silent|refusing|asked|registering]`.

What it does is written to the file LOG, a line each; a query, or the first line of a file that is opened, says what else it does.
Every line of a file that begins with `bad` is an error to it, one with `odd` a warning. Only the standard library is used: it
starts in no time. With `asked` or `registering` it says what is wrong only when it is asked; it says that it wants to be at once,
or when the first file is opened."""

import itertools
import json
import os
import subprocess
import sys
from typing import Any

INITIALIZED: dict[str, Any] = {}
TEXTS: dict[str, str] = {}


def write(content: bytes) -> None:
    sys.stdout.buffer.write(b"Content-Length: %d\r\n\r\n%s" % (len(content), content))
    sys.stdout.buffer.flush()


def send(**message: Any) -> None:
    write(json.dumps({"jsonrpc": "2.0", **message}).encode())


def read() -> dict[str, Any] | None:
    length = 0
    while line := sys.stdin.buffer.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return json.loads(sys.stdin.buffer.read(length)) if length else None


def note(line: str) -> None:
    with open(sys.argv[1], "a") as file:
        file.write(line + "\n")


def noted(word: str) -> bool:
    with open(sys.argv[1]) as file:
        return any(line.startswith(word) for line in file)


def symbol(name: str, kind: int = 12, **location: Any) -> dict[str, Any]:
    range = {"start": {"line": 1, "character": 2}, "end": {"line": 1, "character": 9}}
    location = {"uri": "file:///project/a.py", "range": range, **location}
    return {"name": name, "kind": kind, "location": location, "containerName": "somewhere"}


def ask(method: str, params: Any) -> Any:
    send(id="q", method=method, params=params)
    while (message := read()) is not None:
        if message.get("id") == "q" and "method" not in message:
            return message.get("result", message.get("error", {}).get("code"))
    return None


def find(id: Any, query: str) -> None:
    note(f"find {query}")
    match query:
        case "die":
            sys.stderr.write("I die of it, my token is s3cr3t-token\n")
            sys.stderr.flush()
            os._exit(7)
        case "die and leave a child":  # which has stderr open
            subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            os._exit(7)
        case "complain without end":
            subprocess.Popen(["yes"], stdin=subprocess.DEVNULL, stdout=2)
            send(id=id, result=[symbol(query)])
        case "hang":
            return
        case "hang and read nothing":
            sys.stdin.buffer.close()
            return
        case "garbage":
            print("no language server says this\r\n\r\n", flush=True)
        case "no JSON":
            write(b"[1, 2")
        case "huge":
            write(b'"' + b"x" * (9 << 20) + b'"')
        case "flood":
            while True:
                send(method="window/logMessage", params={"type": 3, "message": "never stops"})
        case "demanding":
            while True:
                send(id=1, method="workspace/configuration", params={"items": [{}] * 900})
        case "refuse":
            send(id=id, error={"code": -32603, "message": "No Project"})
        case "odd":
            names = [symbol("a field", 8), {"name": "no place", "kind": 12}, 7, symbol("nowhere", range=None)]
            send(id=id, result=[*names, symbol("negative", -1), symbol("huge", 10**30), symbol("the one")])
        case "many":
            send(id=id, result=[symbol(f"name {number}") for number in range(1000)])
        case "nothing":
            send(id=id, result=None)
        case "environment":
            send(id=id, result=[symbol(f"{name}={value}") for name, value in os.environ.items() if name in WANTED])
        case "ask":
            sections = ["a.b", "a.none.c", None]
            answers = [
                ask("workspace/configuration", {"items": [{"section": section} for section in sections]}),
                ask("workspace/workspaceFolders", None),
                ask("client/registerCapability", {"registrations": []}),
                ask("workspace/applyEdit", {"edit": {}}),
                ask("holdfast/unheardOf", {}),
                INITIALIZED["initializationOptions"],
            ]
            send(id=id, result=[symbol(json.dumps(answer)) for answer in answers])
        case "child":
            child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)
            send(id=id, result=[symbol(f"{os.getpid()} {child.pid}")])
        case _:
            send(id=id, result=[symbol(query)])


def diagnostic(line: int, message: str, severity: int = 1) -> dict[str, Any]:
    range = {"start": {"line": line, "character": 0}, "end": {"line": line, "character": 3}}
    return {"range": range, "severity": severity, "source": "fake", "code": 7, "message": message}


def publish(uri: str, diagnostics: Any, **more: Any) -> None:
    send(method="textDocument/publishDiagnostics", params={"uri": uri, "diagnostics": diagnostics, **more})


def wrong_in(text: str) -> list[dict[str, Any]]:
    lines = text.split("\n")
    found = [diagnostic(n, line[4:]) for n, line in enumerate(lines) if line.startswith("bad")]
    return found + [diagnostic(n, line[4:], 2) for n, line in enumerate(lines) if line.startswith("odd")]


def answer(id: Any, uri: str, **name: Any) -> None:
    """What is wrong in a file. One that wants all of them to know says `all wrong` in its first line."""
    text = TEXTS[uri]
    note(f"asked {uri.rpartition('/')[2]}{' as ' + name['identifier'] if 'identifier' in name else ''}")
    match text.split("\n")[0]:
        case "die":
            os._exit(7)
        case "say nothing":
            pass
        case "not now" if not noted("sent away"):
            note("sent away")
            send(id=id, error={"code": -32802, "message": "not now", "data": {"retriggerRequest": True}})
        case "refuse":
            send(id=id, error={"code": -32601, "message": "no such method"})
        case "refuse and publish":
            send(id=id, error={"code": -32601, "message": "no such method"})
            publish(uri, wrong_in(text))
        case "nonsense":
            send(id=id, result=[7, {"kind": "odd"}])
        case "think again":
            send(id=id, result={"kind": "full", "items": []})
            TEXTS[uri] = text.removeprefix("think again\n")
            send(id="r", method="workspace/diagnostic/refresh")
        case "never stop":
            send(id=id, result={"kind": "full", "items": wrong_in(text)})
            for number in range(1000):
                send(id=f"r{number}", method="workspace/diagnostic/refresh")
        case _:
            others = [text for text in TEXTS.values() if text.startswith("all wrong")]
            found = [*wrong_in(text), *(diagnostic(9, text.split("\n")[0]) for text in others)]
            send(id=id, result={"kind": "full", "resultId": "1", "items": found})


def look(uri: str, version: int, text: str) -> None:
    """At the text of a file."""
    TEXTS[uri] = text
    if "registering" in sys.argv and not noted("registered"):
        note("registered")
        options = [{"identifier": name, "interFileDependencies": True} for name in ("one", "two")]
        registrations = [
            {"id": o["identifier"], "method": "textDocument/diagnostic", "registerOptions": o} for o in options
        ]
        send(id="q", method="client/registerCapability", params={"registrations": registrations})
    if IS_ASKED:
        return
    lines = text.split("\n")
    found = wrong_in(text)
    match lines[0]:
        case "die":
            os._exit(7)
        case "garbage":
            print("no language server says this\r\n\r\n", flush=True)
        case "huge":
            write(b'"' + b"x" * (9 << 20) + b'"')
        case "say nothing":
            pass
        case "read nothing more":
            os.close(0)
            note("closed its input")
            subprocess.run(["sleep", "600"], stdin=subprocess.DEVNULL)
        case "hang" | "hang once" if lines[0] == "hang" or not noted("child"):
            child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)
            note(f"child {child.pid}")
            child.wait()
        case "never stop":
            while True:
                publish(uri, found, version=version)
        case "flood":
            for number in itertools.count():
                publish(f"file:///nowhere/{number}.py", [diagnostic(0, "made up")])
        case "say it of an older text":
            publish(uri, found, version=version - 1)
        case "say it in two steps":
            publish(uri, [])
            publish(uri, found)
        case "nonsense":
            for said in (7, None, [7, {}, {"range": {}}], [{**diagnostic(0, "nowhere"), "range": None}]):
                publish(uri, said)
            publish("ftp://nowhere", found)
            publish("file://%ff", found)
            publish(uri, [{"message": "no range"}, diagnostic(-1, "before the file"), *found])
        case "other files":
            for name in "bcdefgh":
                publish(uri.replace("a.py", f"{name}.py"), [diagnostic(0, f"in {name}")])
            publish(uri, found)
        case _:
            publish(uri, found, version=version)


IS_ASKED = "asked" in sys.argv or "registering" in sys.argv
WANTED = {"GIVEN", "OPENCODE_SERVER_PASSWORD", "ANTHROPIC_API_KEY", "HOLDFAST_AUTH_KEY"}


def name_of(document: dict[str, Any]) -> str:
    return document["uri"].rpartition("/")[2]


def main() -> None:
    note("start")
    while (message := read()) is not None:
        note(message.get("method", "answer"))
        match message.get("method"):
            case "initialize" if "silent" not in sys.argv:
                INITIALIZED.update(message["params"])
                if "refusing" in sys.argv:
                    send(id=message["id"], error={"code": 1, "message": "not today"})
                else:
                    asked = (
                        {"interFileDependencies": True, "workspaceDiagnostics": False} if "asked" in sys.argv else None
                    )
                    capabilities = {"workspaceSymbolProvider": True, "diagnosticProvider": asked}
                    send(id=message["id"], result={"capabilities": capabilities})
            case "workspace/symbol":
                find(message["id"], message["params"]["query"])
            case "textDocument/didOpen":
                document = message["params"]["textDocument"]
                note(f"opened {name_of(document)} {document['languageId']} {document['version']}")
                look(document["uri"], document["version"], document["text"])
            case "textDocument/didChange":
                document, [change] = message["params"]["textDocument"], message["params"]["contentChanges"]
                note(f"changed {name_of(document)} {document['version']}")
                look(document["uri"], document["version"], change["text"])
            case "textDocument/diagnostic":
                uri = message["params"].pop("textDocument")["uri"]
                answer(message["id"], uri, **message["params"])
            case "textDocument/didClose":
                TEXTS.pop(message["params"]["textDocument"]["uri"])
                note(f"closed {name_of(message['params']['textDocument'])}")
            case "workspace/didChangeWatchedFiles":
                changes = message["params"]["changes"]
                note(" ".join(f"watched {name_of(change)} {change['type']}" for change in changes))
            case "shutdown":
                send(id=message["id"], result=None)
            case "exit":
                break
            case _:
                pass
    note("end")


if __name__ == "__main__":
    main()
