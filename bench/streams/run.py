"""Durable Streams: Holdfast (durable) and the Node reference (durable, and in memory), one after the other in one run.

    python bench/streams/run.py [--seconds 4] [--out FILE] [--only NAME …] [--without-reference]

The reference comes from npm into a temporary directory. A scenario is run on all servers before the next one begins, so that
a busy moment of the machine hits them alike.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from holdfast.testing.server_process import ServerProcess, holdfast_command

HERE = Path(__file__).parent
NODE = Path(sys.executable).with_name("node")
NPM = Path(sys.executable).with_name("npm")
REFERENCE = "@durable-streams/server@0.3.7"
SCENARIOS = (
    *(
        "append_1",
        "append_16",
        "append_16_streams",
        "producer_1",
        "batch_1",
        "batch_16",
        "catch_up_100b",
        "catch_up_1kb",
    ),
    *("sse_100_at_200", "sse_100_at_2000", "sse_1000_at_20", "streams_10", "streams_100", "streams_1000"),
    *("tail_of_1000", "tail_of_100000"),
)
MEASURES = (
    "per_second",
    "messages_per_second",
    "mb_per_second",
    "rate",
    "lost",
    "p50_ms",
    "p99_ms",
    "cpu_us",
    "subscriber_kb",
)
SLOW_REFERENCE = {"sse_100_at_2000", "sse_1000_at_20", "tail_of_100000"}
"""The reference would take minutes for these; on a slow disk, also for `sse_100_at_200`."""


def install_reference(directory: Path) -> Path:
    environment = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    subprocess.run(
        [NPM, "install", "--prefix", directory, "--no-audit", "--no-fund", "--loglevel=error", REFERENCE],
        check=True,
        env=environment,
    )
    return directory / "node_modules"


def measure(server: ServerProcess, scenario: str, seconds: float) -> dict[str, Any]:
    done = subprocess.run(
        [NODE, HERE / "load.mjs", server.url, str(seconds), str(server.pid), scenario],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| scenario | server | " + " | ".join(MEASURES) + " | memory_mb |", "|---" * (len(MEASURES) + 3) + "|"]
    for scenario, by_server in results.items():
        for server, result in by_server.items():
            cells = [result.get("error") or str(result.get(name, "")) for name in (*MEASURES, "memory_mb")]
            lines.append(f"| {scenario} | {server} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=SCENARIOS)
    parser.add_argument("--without-reference", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended, too

    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        directory = Path(temporary)
        commands = {"holdfast": holdfast_command("serve", "--port", "0", "--data", str(directory / "holdfast"))}
        if not options.without_reference:
            modules = str(install_reference(directory / "npm"))
            command = [str(NODE), str(HERE / "reference.mjs"), modules]
            commands |= {"node, durable": [*command, str(directory / "node")], "node, in memory": command}
        servers = {
            name: stack.enter_context(ServerProcess(command, cwd=directory, log=directory / "log"))
            for name, command in commands.items()
        }
        for scenario in options.only:
            for name, server in servers.items():
                if name != "holdfast" and scenario in SLOW_REFERENCE:
                    continue
                results.setdefault(scenario, {})[name] = measure(server, scenario, options.seconds)
                print(scenario, name, json.dumps(results[scenario][name]), flush=True)
    heading = (
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    report = f"# Durable Streams: {heading}\n\n{table(results)}\n"
    if options.out is not None:
        options.out.write_text(report)
    print(report)


if __name__ == "__main__":
    main()
