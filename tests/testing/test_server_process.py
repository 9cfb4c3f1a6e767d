"""Servers of a benchmark or a test do not outlive it, however it ends."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STARTER = """
import sys, time
from pathlib import Path
from holdfast.testing.server_process import ServerProcess

here = Path(sys.argv[1])
command = [sys.executable, "-c", "print('listening on http://127.0.0.1:1 ', flush=True); import time; time.sleep(600)"]
with ServerProcess(command, cwd=here, log=here / "log", dies_with_us=True) as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it, and only Linux does")
def test_a_server_dies_with_a_process_that_is_killed(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        gone = os.pidfd_open(int(starter.stdout.readline()))
        try:
            starter.send_signal(signal.SIGKILL)
            wait_until_readable(gone)
        finally:
            os.close(gone)


def wait_until_readable(fd: int) -> None:
    """A pidfd is readable once its process has ended."""
    readable, _, _ = select.select([fd], [], [], 60)
    assert readable
