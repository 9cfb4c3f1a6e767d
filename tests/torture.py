"""Kill the server many times: `python -m tests.torture 1000`, or `just torture 1000`.

Plays the scenarios of `tests.kill.scenarios` at random, on several servers side by side, each on a data directory of its
own that is verified and left for a new one now and then. Prints a line for each round that failed, with the seed that
repeats it (`--seed SEED --scenario NAME`), and a summary. Exit code 1 if any failed.
"""

import argparse
import asyncio
import os
import random
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.kill.arena import Arena
from tests.kill.scenarios import SCENARIOS, play_round

ROUNDS_PER_ARENA = 20
FAILURES_MAX = 20


@dataclass
class Tally:
    """What all arenas have done so far."""

    wanted: int
    kills: int = 0
    rounds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


async def torture(tally: Tally, directory: Path, seed: str) -> None:
    """One arena after the other, until there were as many kills as wanted, or so many failures that more say nothing."""
    for count in range(sys.maxsize):
        if tally.kills >= tally.wanted or len(tally.failures) >= FAILURES_MAX:
            return
        await play_arena(tally, directory / str(count), f"{seed}-{count}")


async def play_arena(tally: Tally, directory: Path, seed: str) -> None:
    """Up to ROUNDS_PER_ARENA rounds, then a look at the whole store. Ends with the first round that fails; the directory of
    an arena with a failure is kept."""
    directory.mkdir()
    what, counted = "start", 0
    try:
        async with Arena(directory) as arena:
            for count in range(ROUNDS_PER_ARENA):
                if tally.kills >= tally.wanted:
                    break
                scenario = random.Random(f"{seed}-{count}").choice(list(SCENARIOS))
                what = f"--scenario {scenario} --seed {seed}-{count}"
                await play_round(arena, scenario, f"{seed}-{count}")
                tally.rounds[scenario] += 1
                tally.kills += arena.kills - counted
                counted = arena.kills
            what = "verify"
            await arena.stop()
            await arena.verify()
    except Exception:
        line = f"FAILED {what}: {sys.exc_info()[1]!r:.300}"
        tally.failures.append(line)
        (directory / "failure.txt").write_text(f"{line}\n{traceback.format_exc()}")
        print(f"{line}\n  kept: {directory}", flush=True)
    else:
        shutil.rmtree(directory)
    print(f"{tally.kills} kills, {len(tally.failures)} failed", file=sys.stderr, flush=True)


async def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the server many times, and check that nothing is lost.")
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", help="repeat this run, or this round if --scenario is given")
    parser.add_argument("--scenario", choices=list(SCENARIOS), help="play only this one, once")
    parser.add_argument("--arenas", type=int, default=os.cpu_count() or 1, help="servers side by side")
    options = parser.parse_args()
    seed = options.seed or secrets.token_hex(4)
    directory = Path(tempfile.mkdtemp(prefix="holdfast-torture-"))
    print(f"seed {seed}, in {directory}", flush=True)
    if options.scenario:
        async with Arena(directory) as arena:
            await play_round(arena, options.scenario, seed)
        return 0
    tally, began = Tally(options.kills), time.monotonic()
    places = [directory / str(i) for i in range(options.arenas)]
    for place in places:
        place.mkdir()
    await asyncio.gather(*(torture(tally, place, f"{seed}-{place.name}") for place in places))
    minutes = (time.monotonic() - began) / 60
    played = ", ".join(f"{name} {count}" for name, count in sorted(tally.rounds.items()))
    print(f"{tally.kills} kills in {minutes:.1f} minutes; rounds: {played}; {len(tally.failures)} failed (seed {seed})")
    if not tally.failures:
        shutil.rmtree(directory)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
