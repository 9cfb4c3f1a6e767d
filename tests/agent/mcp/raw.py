"""An MCP server without a library, so that it can do what a library would not let it: `python raw.py LOG [TOOLS]`.

What it does is written to the file LOG, a line each. TOOLS is how many further tools it has. Only the standard library is
used: it starts in no time."""

import json
import os
import subprocess
import sys
import threading
import time
from typing import Any

WRITING = threading.Lock()


def send(message: dict[str, Any]) -> None:
    line = json.dumps({"jsonrpc": "2.0", **message}) + "\n"
    with WRITING:
        sys.stdout.write(line)
        sys.stdout.flush()


def note(line: str) -> None:
    with open(sys.argv[1], "a") as file:
        file.write(line + "\n")


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"{name}.", "inputSchema": {"type": "object"}, **more}


def tools() -> list[dict[str, Any]]:
    return [
        *(tool(name) for name in ("die", "hang", "flood", "huge", "environment", "count", "child", "shout", "crowd")),
        tool("look", annotations={"readOnlyHint": True}),
        tool("bad schema", inputSchema={"type": "object", "properties": {"a": {"type": "objekt"}}}),
        tool("count"),
        *(tool(f"tool_{number}") for number in range(int(sys.argv[2]) if len(sys.argv) > 2 else 0)),
    ]


def answer(id: Any, text: str) -> None:
    send({"id": id, "result": {"content": [{"type": "text", "text": text}]}})


def call(id: Any, name: str) -> None:
    note(f"call {name}")
    match name:
        case "die":
            sys.stderr.write("I die of it\n")
            sys.stderr.flush()
            os._exit(7)
        case "hang" | "look":
            return
        case "flood":
            for number in range(20_000):
                send({"method": "notifications/message", "params": {"level": "info", "data": f"line {number}"}})
            for _ in range(1000):
                sys.stdout.write("no JSON at all\n")
            answer(id, "flooded")
        case "shout":
            for number in range(5000):
                sys.stderr.write(f"shout {number} {'x' * 2000}\n")
            sys.stderr.flush()
            answer(id, "shouted")
        case "huge":
            answer(id, "x" * (9 << 20))
        case "environment":
            answer(id, json.dumps(dict(os.environ)))
        case "child":
            child = subprocess.Popen(["sleep", "600"], start_new_session=True, stdin=subprocess.DEVNULL)
            answer(id, f"{os.getpid()} {child.pid}")
        case "crowd":
            for _ in range(50):
                send({"method": "notifications/tools/list_changed"})
            answer(id, "told")
        case _:
            answer(id, name)


def main() -> None:
    note(f"start {os.getpid()}")
    for line in sys.stdin:
        message = json.loads(line)
        match message.get("method"):
            case "initialize":
                capabilities = {"tools": {"listChanged": True}}
                info = {"name": "raw", "version": "1"}
                version = message["params"]["protocolVersion"]
                result = {"protocolVersion": version, "capabilities": capabilities, "serverInfo": info}
                send({"id": message["id"], "result": result})
            case "tools/list":
                note("list")
                send({"id": message["id"], "result": {"tools": tools()}})
            case "tools/call":
                call(message["id"], message["params"]["name"])
            case "notifications/cancelled":
                note("cancelled")
            case _ if "id" in message:
                send({"id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
            case _:
                pass
    note("end")
    time.sleep(0)


if __name__ == "__main__":
    main()
