"""What a benchmark ran on. Linux only: it is read from /proc."""

import os
import platform
import statistics
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def measure_fsync(directory: Path) -> float:
    """How long the disk takes to make 4 KB durable (ms, median of 500): less a single commit cannot take."""
    times: list[float] = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(500):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def describe(*, load: float, began: float, fsync_ms: float) -> dict[str, str]:
    """`load` is that of before the run, `began` when that was."""
    cpu = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?"
    )
    memory_kb = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
        "took": f"{(time.time() - began) / 60:.0f} minutes",
        "machine": f"{os.cpu_count()} cores ({cpu}), {memory_kb / 1024 / 1024:.0f} GB",
        "disk": f"4 KB written and fsynced in {fsync_ms:.2f} ms",
        "load": f"{load:.1f} before the run, {os.getloadavg()[0]:.1f} at its end (1 or 2 of it is the benchmark's own)",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "holdfast": f"commit {output('git', '-C', str(ROOT), 'describe', '--always', '--dirty')}",
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
