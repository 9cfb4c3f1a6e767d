"""What tests see of processes that are not theirs: whether they live, what they wrote, and when that changes."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SECONDS_MAX = 60


def is_alive(pid: int) -> bool:
    """A dead process that nobody waits for does not count."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def read(file: Path) -> str:
    """What is in it so far; nothing if it is not there yet."""
    return file.read_text() if file.exists() else ""


async def until(holds: Callable[[], bool]) -> None:
    """Another process is at work, and a file and a process are nothing to subscribe to: look again and again."""
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
