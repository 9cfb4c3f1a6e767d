"""Finds and ends processes that tools started. Imports only the standard library, because it runs in two places.

 - In the server: when a command times out or is aborted, and when a restarted server cleans up.
 - As a program of its own, the *guardian* (`python -I -S guardian.py MARKER`): one per server, in a session of its own, so
   that what kills the server misses it. It reads process groups from its standard input, a line each. The server holds
   the other end of that pipe; when the server is gone, however it died, the kernel closes it, and the guardian ends
   every group it was told of and every process that carries MARKER.

A *marker* is `NAME=value` in the environment with which a process began. Descendants inherit it, so it finds those that
left their process group (`setsid`, daemons). It can be read only where there is /proc (Linux); elsewhere, groups are all.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator

GRACE_SECONDS = 0.5
"""How long a process has after SIGTERM before it gets SIGKILL."""

_KILL_SECONDS_MAX = 2.0
"""How long to go on with SIGKILL. What still lives then hangs in the kernel, and nobody can end it."""

_POLL_SECONDS = 0.02
_FORGET_SECONDS = 1.0

_HAS_PROC = sys.platform == "linux"


def end(groups: Collection[int], marker: str) -> None:
    """End process groups and everything that carries the marker: SIGTERM, soon after SIGKILL. Blocks until nothing of it
    is left, at most GRACE_SECONDS plus two seconds. Never ends the caller or the caller's own group."""
    assert marker.partition("=")[2]
    known: dict[int, bytes] = {}
    if not _send(groups, marker, signal.SIGTERM, known):
        return
    if _is_gone_within(GRACE_SECONDS, groups, marker, 0, known):
        return
    _is_gone_within(_KILL_SECONDS_MAX, groups, marker, signal.SIGKILL, known)


def exists(group: int) -> bool:
    """True while the process group has a member, even a dead one that nobody has waited for."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def is_alive(group: int) -> bool:
    """True while a member of the group runs. Takes a look at every process: not for the event loop."""
    return exists(group) and any(_targets({group}, "", {}))


def started(pid: int) -> str | None:
    """When a process began, as text that another process with the same number never has, not even after a reboot. None if
    there is no such process."""
    if not _HAS_PROC:
        asked = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
        )
        return asked.stdout.strip() or None
    fields = _stat(str(pid))
    if fields is None:
        return None
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
    except OSError:  # some sandboxes have none
        boot = ""
    return f"{fields[19].decode()}@{boot}"


def _is_gone_within(seconds: float, groups: Collection[int], marker: str, number: int, known: dict[int, bytes]) -> bool:
    """Send the signal again and again (0 sends nothing, but asks): processes may fork while they are being ended."""
    deadline = time.monotonic() + seconds
    while _send(groups, marker, number, known):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _send(groups: Collection[int], marker: str, number: int, known: dict[int, bytes]) -> bool:
    """Send a signal to all that is left; False if there is nothing that could take one."""
    reached = False
    for target in set(_targets(groups, marker, known)):
        try:
            os.kill(target, number)
        except (ProcessLookupError, PermissionError):
            continue
        reached = True
    return reached


def _targets(groups: Collection[int], marker: str, known: dict[int, bytes]) -> Iterator[int]:
    """What `kill` takes: the negative number of a group, or a process outside the groups that carries the marker. Dead
    processes that nobody waits for do not count: in a container without an init they stay for ever. `known` remembers
    who carried the marker, and when that one began: of a process that dies the kernel first takes away the memory, its
    environment with it, and only then what it holds (files, ports, pipes)."""
    own = os.getpgrp()
    if not _HAS_PROC:
        yield from (-group for group in groups if group != own and exists(group))
        return
    user = os.getuid()
    wanted = marker.encode()
    for name in os.listdir("/proc"):
        if not name.isdigit() or (fields := _stat(name)) is None or fields[0] in (b"Z", b"X"):
            continue
        group = int(fields[2])
        if group in groups and group != own:
            yield -group
        elif (
            wanted
            and (pid := int(name)) != os.getpid()
            and (known.get(pid) == fields[19] or wanted in _environment(name, user))
        ):
            known[pid] = fields[19]
            yield pid


def _environment(pid: str, user: int) -> list[bytes]:
    """With which a process began; empty if it is not ours to look at or to end."""
    try:
        if os.stat(f"/proc/{pid}").st_uid != user:
            return []
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def _stat(pid: str) -> list[bytes] | None:
    """The fields of /proc/PID/stat after the name: state, parent, group, …, start time (19). A name may hold anything."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return None


def _guard(marker: str) -> None:
    """The program: returns when the server is gone and everything it left is dead."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the server: our own end is the end of the pipe
    groups: set[int] = set()
    rest = b""
    while True:
        ready, _, _ = select.select([0], [], [], _FORGET_SECONDS if groups else None)
        if ready:
            data = os.read(0, 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            groups.update(int(line) for line in lines)
        # A group that is gone is forgotten soon: its number may become somebody else's.
        groups = {group for group in groups if exists(group)}
    end(groups, marker)


if __name__ == "__main__":
    _guard(sys.argv[1])
