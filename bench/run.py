"""Compares Holdfast with the stock OpenCode server: every row on both, in turns, in one run.

    python bench/run.py                          the whole table; writes bench/RESULTS.md and bench/results.json
    python bench/run.py --only paced --rounds 3  some rows; writes nothing
    python bench/run.py --peer Holdfast          one of the two alone; writes nothing

Linux only: memory and processor time are read from /proc.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import document
import machine
import report
import rows
from client import Server
from peers import Peer, holdfast, installed_opencode, model_server, opencode

MakePeer = Callable[[Path], Peer]
HERE = Path(__file__).resolve().parent


def main() -> None:
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended, too
    began = time.time()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as directory:
        fsync_ms = machine.measure_fsync(Path(directory))
        results = measure(Path(directory), options, deadline=began + options.minutes * 60)
    print(report.table(results))
    if options.only or options.peer:
        return
    facts = describe_run(options, load=load, began=began, fsync_ms=fsync_ms)
    write(facts, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Holdfast with the stock OpenCode server.")
    parser.add_argument("--rounds", type=int, default=5, help="after one to warm up, which is not counted (default 5)")
    parser.add_argument("--minutes", type=float, default=4.5, help="no new round begins after that (default 4.5)")
    parser.add_argument("--only", action="append", choices=list(rows.ROWS), help="only this row; may be repeated")
    parser.add_argument("--peer", choices=["Holdfast", "OpenCode"], help="only this server")
    parser.add_argument(
        "--opencode", type=Path, default=installed_opencode(), help="the stock binary (default: tests/node's)"
    )
    options = parser.parse_args()
    if options.opencode is None and options.peer != "Holdfast":
        parser.error("no OpenCode binary in tests/node/node_modules for this platform; give --opencode PATH")
    return options


def measure(directory: Path, options: argparse.Namespace, *, deadline: float) -> dict[str, dict[str, list[float]]]:
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with contextlib.ExitStack() as stack:
        model_url = stack.enter_context(model_server(directory))
        model = Server(model_url.removesuffix("/v1"))
        makers: dict[str, MakePeer] = {
            "OpenCode": lambda place: opencode(options.opencode, place, model_url),
            "Holdfast": lambda place: holdfast(place, model_url),
        }
        peers = [make(directory / name) for name, make in makers.items() if options.peer in (name, None)]
        for peer in peers:
            stack.callback(peer.process.kill)
            peer.process.start(timeout=60)
        for count in range(options.rounds + 1):
            if count > 1 and time.time() > deadline:
                print("the time is up: no more rounds", file=sys.stderr)
                break
            peers.reverse()  # neither is always the first
            for row in options.only or rows.ROWS:
                for peer in peers:
                    measured = makers[peer.name](directory / f"{peer.name}-{count}") if row == "kill" else peer
                    numbers = rows.ROWS[row](measured, model)
                    say(count, peer.name, row, numbers)
                    if count:  # the first round warms up
                        record(results[peer.name], numbers)
        for peer in peers:
            record(results[peer.name], rows.memory(peer, model))
    return results


def record(results: dict[str, list[float]], numbers: rows.Numbers) -> None:
    for name, value in numbers.items():
        results[name].append(round(value, 4))


def say(count: int, peer: str, row: str, numbers: rows.Numbers) -> None:
    shown = "  ".join(f"{name}={value:.2f}" for name, value in numbers.items())
    print(f"round {count}  {peer:8}  {row:10}  {shown}", file=sys.stderr, flush=True)


# --- the document -----------------------------------------------------------------------------------------------


def describe_run(options: argparse.Namespace, *, load: float, began: float, fsync_ms: float) -> dict[str, str]:
    return {
        **machine.describe(load=load, began=began, fsync_ms=fsync_ms),
        "opencode": machine.output(str(options.opencode), "--version"),
        "command": f"python bench/run.py --rounds {options.rounds}",
        "rounds": str(options.rounds),
    }


def write(facts: dict[str, str], results: report.Results) -> None:
    (HERE / "results.json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    text = document.document(
        "Holdfast beside OpenCode",
        recipe="bench",
        facts=facts,
        missed=[line.label for line in report.missed(results)],
        table=report.table(results),
        notes=HERE / "NOTES.md",
    )
    (HERE / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
