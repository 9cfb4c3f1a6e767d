"""Helper programs: bounded, and dead when nobody waits for them any more."""

import asyncio
import os
from pathlib import Path

import pytest
import uvloop

from holdfast.agent import programs
from holdfast.agent.programs import Ended, run
from holdfast.testing.loop_time import let_pass
from holdfast.testing.other_processes import is_alive, read, until


async def sh(command: str, directory: Path, **limits: object) -> Ended:
    options = {"seconds_max": 60.0, "output_bytes_max": 1 << 20, **limits}
    return await run("/bin/sh", "-c", command, directory=str(directory), environment=os.environ, **options)


async def dead(pid: int) -> None:
    """The kernel takes a moment to end what was killed."""
    await until(lambda: not is_alive(pid))


async def written(path: Path) -> int:
    await until(lambda: read(path).endswith("\n"))
    return int(path.read_text())


async def test_status_output_and_errors_are_told(tmp_path: Path) -> None:
    ended = await sh("cat; pwd; echo bad >&2; exit 3", tmp_path, input=b"in\n")
    assert ended == Ended(status=3, output=f"in\n{tmp_path.resolve()}\n".encode(), errors="bad")


async def test_more_input_than_it_reads_and_more_errors_than_are_kept_do_no_harm(tmp_path: Path) -> None:
    ended = await sh("head -c 1000000 /dev/zero >&2; echo done", tmp_path, input=b"x" * 1_000_000)
    assert (ended.status, ended.output) == (0, b"done\n")
    assert 0 < len(ended.errors) <= 1 << 14


def test_a_program_that_ended_before_it_was_told_anything_does_no_harm(tmp_path: Path) -> None:
    """As git does outside of a work tree: under the server's event loop its input was closed by then, and writing to it the
    500 of a request for the entries of a directory."""

    async def feed() -> None:
        process = await asyncio.create_subprocess_exec("true", stdin=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        await process.wait()
        await until(process.stdin.is_closing)
        await programs._feed(process.stdin, b"x")

    uvloop.run(feed())


@pytest.mark.parametrize("bytes_max", [1001, 1_000_001])
async def test_output_without_end_is_cut(tmp_path: Path, bytes_max: int) -> None:
    ended = await sh("yes", tmp_path, output_bytes_max=bytes_max, seconds_max=60)
    assert ended.is_cut
    assert ended.output == b"y\n" * (bytes_max // 2) + b"y"


async def test_what_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    running = asyncio.create_task(sh("sleep 1000 & echo $! > pid; wait", tmp_path, seconds_max=60))
    child = await written(tmp_path / "pid")
    let_pass(60)
    with pytest.raises(TimeoutError):
        await running
    await dead(child)


async def test_when_nobody_waits_any_more_it_is_ended_with_all_it_started(tmp_path: Path) -> None:
    running = asyncio.create_task(sh("trap '' TERM HUP; sleep 1000 & echo $! > pid; wait", tmp_path))
    child = await written(tmp_path / "pid")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await dead(child)


@pytest.mark.parametrize("turns_of_the_loop", range(8))
async def test_it_may_be_cancelled_while_it_starts(tmp_path: Path, turns_of_the_loop: int) -> None:
    running = asyncio.create_task(sh("sleep 1000 & echo $! > pid; wait", tmp_path))
    for _ in range(turns_of_the_loop):
        await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pid = tmp_path / "pid"
    if pid.exists() and pid.read_text().endswith("\n"):
        await dead(int(pid.read_text()))


async def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run("/no/such", directory=str(tmp_path), environment={}, seconds_max=1, output_bytes_max=1)
