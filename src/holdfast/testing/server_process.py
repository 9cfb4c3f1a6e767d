"""A server as its own process, to be used from outside, killed and started again.

A server says on its standard output where it listens, once it serves (`… listening on http://127.0.0.1:4096`): that is
what `start` waits for, so nobody polls. What it writes otherwise goes to `log`. Works for any program that does so, the
stock OpenCode server among them. The process gets its own process group; only this very process is signalled.
"""

import contextlib
import ctypes
import os
import random
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_LISTENING = re.compile(rb"listening on (http://\S+)\s")


class ServerNeverListened(Exception):
    """The process ended, or was silent for too long. The message carries the end of what it wrote."""


class ServerProcess:
    """`with ServerProcess([...], cwd=..., log=...) as server:` starts it, and kills it at the end if it still runs.

    `url` and `pid` are those of the running process; `start_seconds` is how long the last start took, from the start of
    the process until it listened. `dies_with_us`: also when this process is killed and cannot end it (Linux only, and
    for servers that the main thread starts)."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        dies_with_us: bool = False,
    ) -> None:
        self.command = list(command)
        self._prepare = die_with_parent if dies_with_us and sys.platform == "linux" else None
        self.cwd = cwd
        self.log = log
        self.env = dict(env) if env is not None else None
        self.url = ""
        self.start_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, timeout: float = 60) -> str:
        """Start it, and return its URL once it listens. Raises ServerNeverListened."""
        assert not self.running
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                preexec_fn=self._prepare,
            )
        try:
            self.url = self._wait_for_url(began + timeout)
        except BaseException:
            self.kill()
            raise
        self.start_seconds = time.monotonic() - began
        return self.url

    def _wait_for_url(self, deadline: float) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        output = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while selector.select(max(0.0, deadline - time.monotonic())):
                piece = os.read(self._process.stdout.fileno(), 4096)
                output += piece
                if found := _LISTENING.search(output):
                    return found[1].decode()
                if not piece:
                    break
        written = self.log.read_text(errors="replace")[-2000:]
        raise ServerNeverListened(
            f"{self.command[0]} wrote {output.decode(errors='replace')!r}, and to its log:\n{written}"
        )

    def kill(self) -> None:
        """SIGKILL, as the out-of-memory killer or a power switch would; returns once the process is gone."""
        self._end(signal.SIGKILL, timeout=60)

    def stop(self, *, timeout: float = 45) -> int:
        """SIGTERM; answers the exit code. Raises subprocess.TimeoutExpired if it is still there after `timeout` seconds."""
        return self._end(signal.SIGTERM, timeout=timeout)

    def _end(self, sign: signal.Signals, *, timeout: float) -> int:
        process = self._process
        if process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(sign)
        code = process.wait(timeout)
        if process.stdout is not None:
            process.stdout.close()
        return code


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Between fork and exec: the kernel ends this process when the thread that started it is gone."""
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def holdfast_command(*arguments: str) -> list[str]:
    """The command line of this environment's own `holdfast`."""
    return [str(Path(sys.executable).with_name("holdfast")), *arguments]


_WORKERS = 10  # of pytest-xdist, that run beside each other without a common port
_given: set[int] = set()


def free_port() -> int:
    """A port that stays free while its server is down: from below the range out of which systems give ports to clients'
    connections (32768 and up on Linux), so that no connection takes it before the server is started again. It is given once,
    and not by another worker of the same test run."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = random.randrange(10_000 + worker % _WORKERS, 30_000, _WORKERS)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
