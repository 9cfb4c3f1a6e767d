"""Durable Streams: Holdfast (SQLite, fsync) and the Node reference (durable, and in memory), in turns, in one run.

    python -m bench.streams.run                        every row; writes bench/streams/RESULTS.md and results.json
    python -m bench.streams.run --only append_16       some scenarios; writes nothing
    python -m bench.streams.run --only-ours            without the reference; writes nothing

The reference comes from npm into a temporary directory. A scenario is run on all servers before the next one begins, so that
a busy moment of the machine hits them alike; who is first changes each round. Rounds end early when the time is up. Linux only.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import machine
from bench.document import document
from bench.streams import table
from bench.streams.table import DURABLE, MEMORY, OURS
from holdfast.testing.server_process import ServerProcess, die_with_parent, holdfast_command

HERE = Path(__file__).resolve().parent
NODE = Path(sys.executable).with_name("node")
NPM = Path(sys.executable).with_name("npm")
REFERENCE = "@durable-streams/server@0.3.7"
SCENARIOS = tuple(dict.fromkeys(line.scenario for line in table.LINES if line.scenario != "memory"))
ONCE = {
    (DURABLE, "sse_100_at_200"),
    (MEMORY, "sse_100_highest"),
    (MEMORY, "sse_1000_at_20"),
    (DURABLE, "tail_of_100000"),
}
"""The reference needs long for these, and one round says what there is to say."""
NEVER = {
    (DURABLE, "sse_100_highest"),
    (DURABLE, "sse_1000_at_20"),
    (DURABLE, "tail_of_1000000"),
    (MEMORY, "tail_of_1000000"),
}
"""It does not get there in minutes, or fills the machine's memory."""
SCENARIO_SECONDS_MAX = 90

Numbers = dict[str, dict[str, dict[str, list[float]]]]


def main() -> None:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended, too
    began = time.time()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="holdfast-streams-") as temporary:
        fsync_ms = machine.measure_fsync(Path(temporary))
        results = measure_all(Path(temporary), options, deadline=began + options.minutes * 60)
    print(table.table(results))
    if options.only or options.only_ours:
        return
    facts = {
        **machine.describe(load=load, began=began, fsync_ms=fsync_ms),
        "reference": f"{REFERENCE} on Node {machine.output(str(NODE), '--version')}",
        "command": f"python -m bench.streams.run --rounds {options.rounds} --seconds {options.seconds:g}",
    }
    (HERE / "results.json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    text = document(
        "Durable Streams: Holdfast beside the Node reference",
        recipe="bench-streams",
        facts=facts,
        missed=table.missed(results),
        table=table.table(results),
        notes=HERE / "NOTES.md",
    )
    (HERE / "RESULTS.md").write_text(text)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.2, help="of one scenario on one server")
    parser.add_argument("--minutes", type=float, default=7, help="no new round of a scenario begins after that")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO")
    parser.add_argument("--only-ours", action="store_true")
    return parser.parse_args()


def measure_all(directory: Path, options: argparse.Namespace, *, deadline: float) -> Numbers:
    results: Numbers = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with contextlib.ExitStack() as stack:
        servers = {
            name: stack.enter_context(
                ServerProcess(command, cwd=directory, log=directory / "server.log", dies_with_us=True)
            )
            for name, command in commands(directory, options).items()
        }
        names = list(servers)
        for count in range(options.rounds):
            names.reverse()
            for scenario in options.only or SCENARIOS:
                for name in names:
                    if (name, scenario) in NEVER or (count and (name, scenario) in ONCE):
                        continue
                    if count and time.time() > deadline:
                        continue
                    for number, value in measure(servers[name], scenario, options.seconds).items():
                        results[scenario][name][number].append(value)
                    say(count, name, scenario, results[scenario][name])
        for name, server in servers.items():
            results["memory"][name]["memory_mb"].append(memory_mb(server.pid))
    return results


def commands(directory: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    found = {OURS: holdfast_command("serve", "--port", "0", "--data", str(directory / "holdfast"))}
    if not options.only_ours:
        reference = [str(NODE), str(HERE / "reference.mjs"), str(install_reference(directory / "npm"))]
        found |= {DURABLE: [*reference, str(directory / "node")], MEMORY: reference}
    return found


def install_reference(directory: Path) -> Path:
    environment = {**os.environ, "PATH": f"{NODE.parent}:{os.environ['PATH']}"}
    subprocess.run(
        [NPM, "install", "--prefix", directory, "--no-audit", "--no-fund", "--loglevel=error", REFERENCE],
        check=True,
        env=environment,
    )
    return directory / "node_modules"


def measure(server: ServerProcess, scenario: str, seconds: float) -> dict[str, float]:
    """Empty, with the reason on standard error, if the server did not get through."""
    command = [str(NODE), str(HERE / "load.mjs"), server.url, str(seconds), str(server.pid), scenario]
    try:
        done = subprocess.run(
            command,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=SCENARIO_SECONDS_MAX,
            preexec_fn=die_with_parent,
        )
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        print(f"{scenario}: {error}", file=sys.stderr)
        return {}
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        print(f"{scenario}: {answer['error']}", file=sys.stderr)
    return {name: value for name, value in answer.items() if isinstance(value, int | float)}


def memory_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def say(count: int, server: str, scenario: str, numbers: Mapping[str, list[float]]) -> None:
    shown = "  ".join(f"{name}={values[-1]:g}" for name, values in numbers.items() if values)
    print(f"round {count + 1}  {server:15}  {scenario:17}  {shown}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
