"""The tool `bash` with real processes."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from holdfast.agent.tools import (
    Processes,
    ToolContext,
    ToolFailure,
    ToolResult,
    command_lines,
    guardian,
    output,
    validate,
)
from holdfast.agent.tools.bash import Bash
from tests.agent.tools.world import Fifo, HandClock, Record

MakeFifo = Callable[[str], Fifo]


@pytest.fixture
def bash(processes: Processes) -> Bash:
    return Bash(processes)


def notes(result: ToolResult) -> str:
    return result.output.partition("<shell_metadata>\n")[2].removesuffix("\n</shell_metadata>")


# --- what comes back --------------------------------------------------------------------------------------------


async def test_a_result_has_the_shape_that_clients_know(bash: Bash, context: ToolContext) -> None:
    command = "echo hi; echo there > out.txt"

    result = await bash.run({"command": command, "description": "say hi"}, context)

    assert command == result.title
    assert result.output == "hi\n"
    assert result.metadata == {"output": "hi\n", "exit": 0, "truncated": False}
    assert (context.directory / "out.txt").read_text() == "there\n"


async def test_stdout_and_stderr_arrive_in_the_order_in_which_they_were_written(
    bash: Bash, context: ToolContext
) -> None:
    result = await bash.run({"command": "for i in 1 2 3; do echo out $i; echo err $i >&2; done"}, context)

    assert result.output == "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"


@pytest.mark.parametrize(("command", "status"), [("true", 0), ("false", 1), ("exit 7", 7), ("kill -9 $$", 137)])
async def test_the_exit_status_is_told(bash: Bash, context: ToolContext, command: str, status: int) -> None:
    result = await bash.run({"command": command}, context)

    assert result.metadata["exit"] == status
    assert notes(result) == (f"Exit code: {status}" if status else "")


async def test_a_command_that_says_nothing_has_a_result_all_the_same(bash: Bash, context: ToolContext) -> None:
    result = await bash.run({"command": "true"}, context)

    assert result.output == "(no output)"
    assert result.metadata["output"] == ""


async def test_carriage_returns_and_colours_pass_and_invalid_bytes_are_replaced(
    bash: Bash, context: ToolContext
) -> None:
    result = await bash.run({"command": r"printf '1%%\r2%%\r\n\033[31mred\033[0m a\377b'"}, context)

    assert result.output == "1%\r2%\r\n\x1b[31mred\x1b[0m a\ufffdb"


# --- where it runs ----------------------------------------------------------------------------------------------


async def test_workdir_is_relative_to_the_project(bash: Bash, context: ToolContext) -> None:
    (context.directory / "sub").mkdir()

    relative = await bash.run({"command": "pwd", "workdir": "sub"}, context)
    absolute = await bash.run({"command": "pwd", "workdir": "/"}, context)

    assert relative.output == f"{context.directory.resolve()}/sub\n"
    assert absolute.output == "/\n"


@pytest.mark.parametrize("workdir", ["missing", "file", "nul\0"])
async def test_a_workdir_that_is_no_directory_is_refused_before_anything_runs(
    bash: Bash, context: ToolContext, record: Record, workdir: str
) -> None:
    (context.directory / "file").touch()

    with pytest.raises(ToolFailure, match=r"There is no directory|cannot be a path"):
        await bash.run({"command": "touch ran", "workdir": workdir}, context)

    assert record.updates == []


async def test_the_servers_secrets_are_not_in_the_environment(
    bash: Bash, context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCODE_SERVER_PASSWORD", "hunter2")
    monkeypatch.setenv("HOLDFAST_ANYTHING", "hunter2")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "hunter2")
    monkeypatch.setenv("OPENCODE_AUTH_CONTENT", '{"openai": {"type": "api", "key": "hunter2"}}')
    monkeypatch.setenv("OF_THE_USER", "kept")

    result = await bash.run({"command": "env"}, context)

    assert "hunter2" not in result.output
    assert "OF_THE_USER=kept" in result.output


async def test_there_is_no_input_and_no_terminal(bash: Bash, context: ToolContext) -> None:
    result = await bash.run({"command": "cat; (exec < /dev/tty) 2>/dev/null || echo no terminal"}, context)

    assert result.output == "no terminal\n"


@pytest.mark.parametrize("command", ["-x; echo ok", "  echo ok", "# nothing\necho ok", "echo 'ok'"])
async def test_any_text_is_a_command(bash: Bash, context: ToolContext, command: str) -> None:
    result = await bash.run({"command": command}, context)

    assert result.output.endswith("ok\n")


@pytest.mark.parametrize(("command", "reason"), [("echo " + "x" * 3_000_000, "too long"), ("echo \0", "NUL")])
async def test_a_command_that_the_system_cannot_take_fails_clearly(
    bash: Bash, context: ToolContext, command: str, reason: str
) -> None:
    with pytest.raises(ToolFailure, match=reason):
        await bash.run({"command": command}, context)


async def test_sh_does_where_there_is_no_bash(
    processes: Processes, context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "bash" else f"/usr/bin/{name}")

    result = await Bash(processes).run({"command": 'test "$0" = /bin/sh && echo ok'}, context)

    assert result.output == "ok\n"


def test_the_schema_refuses_timeouts_out_of_range() -> None:
    bash = Bash(Processes(), timeout_ms_max=1000)

    validate(bash, {"command": "true", "timeout": 1000})
    for timeout in (0, -1, 1001, "soon"):
        with pytest.raises(ToolFailure, match="timeout"):
            validate(bash, {"command": "true", "timeout": timeout})


# --- what is recorded meanwhile ---------------------------------------------------------------------------------


async def test_the_process_is_recorded_first_and_in_every_update(
    bash: Bash, context: ToolContext, record: Record, fifo: MakeFifo
) -> None:
    go = fifo("go")
    call = asyncio.create_task(bash.run({"command": f"echo $$; read -r _ < '{go.path}'; echo two"}, context))
    await record.until_output("\n")
    go.say()
    await call

    assert record.updates[0]["output"] == ""
    assert {json.dumps(update["process"]) for update in record.updates} == {json.dumps(record.updates[0]["process"])}
    assert record.updates[1]["output"] == f"{record.group}\n"


async def test_nothing_runs_when_the_process_could_not_be_recorded(
    bash: Bash, context: ToolContext, record: Record
) -> None:
    record.failure = RuntimeError("the store is gone")

    with pytest.raises(RuntimeError, match="the store is gone"):
        await bash.run({"command": "touch ran"}, context)

    assert not (context.directory / "ran").exists()


async def test_output_is_recorded_while_the_command_runs(
    bash: Bash, context: ToolContext, record: Record, fifo: MakeFifo
) -> None:
    go = fifo("go")
    command = f"for word in one two three; do echo $word; read -r _ < '{go.path}'; done"
    call = asyncio.create_task(bash.run({"command": command}, context))
    for text in ("one\n", "one\ntwo\n", "one\ntwo\nthree\n"):
        await record.until(lambda update, text=text: update["output"] == text)
        go.say()

    assert (await call).output == "one\ntwo\nthree\n"


async def test_updates_come_at_most_every_100_ms_and_only_with_something_new(
    bash: Bash, context: ToolContext, record: Record, hand_clock: HandClock, fifo: MakeFifo
) -> None:
    go, told = fifo("go"), fifo("told")
    step = f"read -r _ < '{go.path}'; echo b; echo said >&9;"
    command = f"echo a; exec 9> '{told.path}'; {step * 5} read -r _ < '{go.path}'"
    call = asyncio.create_task(bash.run({"command": command}, replace(context, clock=hand_clock)))
    await record.until_output("a")
    for _ in range(5):
        go.say()
        await told.line()
        assert [update["output"] for update in record.updates] == ["", "a\n"]

    await hand_clock.advance(99)
    assert len(record.updates) == 2
    await hand_clock.advance(1)
    await record.until_output("b\nb\nb\nb\nb\n")
    await hand_clock.advance(1000)
    go.say()
    await call

    assert len(record.updates) == 3


async def test_a_character_that_is_cut_between_two_writes_is_not_broken(
    bash: Bash, context: ToolContext, record: Record, fifo: MakeFifo
) -> None:
    go = fifo("go")
    command = rf"printf 'a\342\202'; read -r _ < '{go.path}'; printf '\254'"
    call = asyncio.create_task(bash.run({"command": command}, context))
    await record.until_output("a")
    go.say()

    assert (await call).output == "a€"
    assert all("\ufffd" not in update["output"] for update in record.updates)


# --- much output ------------------------------------------------------------------------------------------------


async def test_a_hundred_megabytes_in_one_line_cost_little_memory_and_are_kept_in_a_file(
    bash: Bash, context: ToolContext, record: Record
) -> None:
    await bash.run({"command": "true"}, context)
    tracemalloc.start()
    try:
        result = await bash.run({"command": "head -c 100000000 /dev/zero | tr '\\0' x; echo end"}, context)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    path = Path(result.metadata["outputPath"])
    assert peak < 3_000_000
    assert path.stat().st_size == 100_000_004
    assert path.parent == context.output_directory
    assert result.metadata["truncated"] is True
    assert len(result.output) < output.BYTES_MAX + 500
    assert str(path) in result.output
    assert result.output.endswith("xxend\n")
    assert all(len(update["output"]) < output.PREVIEW_BYTES_MAX + 200 for update in record.updates)


async def test_too_many_lines_are_shortened_in_the_middle(bash: Bash, context: ToolContext) -> None:
    result = await bash.run({"command": "seq 5000"}, context)

    lines = result.output.splitlines()
    assert lines[:1000] == [str(n) for n in range(1, 1001)]
    assert lines[-1000:] == [str(n) for n in range(4001, 5001)]
    assert "3000 lines left out" in lines[1001]
    assert Path(result.metadata["outputPath"]).read_text().splitlines() == [str(n) for n in range(1, 5001)]


async def test_a_runaway_command_does_not_fill_the_disk(
    bash: Bash, context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "FILE_BYTES_MAX", 100_000)

    result = await bash.run({"command": "head -c 1000000 /dev/zero | tr '\\0' x"}, context)

    assert Path(result.metadata["outputPath"]).stat().st_size == 100_000
    assert "only the first 100000 bytes are kept" in result.output


async def test_a_file_that_cannot_be_written_does_not_stop_the_command(bash: Bash, context: ToolContext) -> None:
    context.output_directory.parent.mkdir()
    context.output_directory.write_text("in the way")

    result = await bash.run({"command": "seq 5000"}, context)

    assert "left out, and not kept: File exists" in result.output
    assert result.metadata["truncated"] is True
    assert "outputPath" not in result.metadata
    assert result.output.endswith("5000\n")


# --- how it ends ------------------------------------------------------------------------------------------------


@pytest.fixture
def long_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who obeys SIGTERM may do so late, on a busy machine, before SIGKILL comes."""
    monkeypatch.setattr(guardian, "GRACE_SECONDS", 60)


async def test_a_timeout_ends_the_group_and_keeps_the_output(
    bash: Bash, context: ToolContext, record: Record, hand_clock: HandClock, fifo: MakeFifo, long_grace: None
) -> None:
    witness = fifo("witness")
    command = f"{witness.hold} echo begin; sleep 1000 & sleep 1000"
    call = asyncio.create_task(bash.run({"command": command, "timeout": 5000}, replace(context, clock=hand_clock)))
    await record.until_output("begin")
    await hand_clock.advance(4999)
    assert not call.done()
    await hand_clock.advance(1)

    result = await call
    await witness.ended()
    assert result.output.startswith("begin\n\n\n<shell_metadata>")
    assert "timeout of 5000 ms" in notes(result)
    assert "timeout of 5000 ms" in result.metadata["output"]
    assert result.metadata["exit"] == 128 + signal.SIGTERM


async def test_the_default_timeout_is_two_minutes(
    bash: Bash, context: ToolContext, record: Record, hand_clock: HandClock
) -> None:
    call = asyncio.create_task(bash.run({"command": "echo begin; sleep 1000"}, replace(context, clock=hand_clock)))
    await record.until_output("begin")
    await hand_clock.advance(2 * 60 * 1000)

    assert "timeout of 120000 ms" in notes(await call)


async def test_who_ignores_sigterm_is_killed(
    bash: Bash, context: ToolContext, record: Record, hand_clock: HandClock, fifo: MakeFifo
) -> None:
    witness = fifo("witness")
    command = f"{witness.hold} trap '' TERM; echo begin; sleep 1000 & while :; do sleep 1000; done"
    call = asyncio.create_task(bash.run({"command": command, "timeout": 1}, replace(context, clock=hand_clock)))
    await record.until_output("begin")
    await hand_clock.advance(1)

    result = await call
    await witness.ended()
    assert result.metadata["exit"] == 128 + signal.SIGKILL


TREE = "sleep 1000 & (sleep 1000 & sleep 1000) &"
LEAVERS = "setsid sleep 1000 & setsid setsid sleep 1000 &" if sys.platform == "linux" else ""


async def test_cancelling_leaves_no_process_and_keeps_the_output(
    bash: Bash, context: ToolContext, record: Record, fifo: MakeFifo, long_grace: None
) -> None:
    witness = fifo("witness")
    command = f"trap 'echo goodbye; exit' TERM; {witness.hold} {TREE} {LEAVERS} echo begin; wait"
    call = asyncio.create_task(bash.run({"command": command}, context))
    await record.until_output("begin")
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    await witness.ended()
    assert record.updates[-1]["output"] == "begin\ngoodbye\n"


async def test_cancelling_again_does_not_cut_the_clean_up_short(
    bash: Bash, context: ToolContext, record: Record, fifo: MakeFifo
) -> None:
    witness = fifo("witness")
    command = f"trap '' TERM; {witness.hold} {TREE} echo begin; while :; do wait; done"
    call = asyncio.create_task(bash.run({"command": command}, context))
    await record.until_output("begin")
    while not call.done():
        call.cancel()
        await asyncio.wait({call}, timeout=0.05)

    assert call.cancelled()
    assert not guardian.is_alive(record.group)
    await witness.ended()


async def test_cancelling_before_the_gate_is_open_means_that_nothing_ran(
    bash: Bash, context: ToolContext, record: Record
) -> None:
    recording = asyncio.Event()

    async def never_recorded(title: str | None, metadata: dict[str, Any]) -> None:
        record.updates.append(metadata)
        recording.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(bash.run({"command": "touch ran"}, replace(context, progress=never_recorded)))
    await recording.wait()
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    assert not (context.directory / "ran").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(record.group, 0)


# --- the background ---------------------------------------------------------------------------------------------


async def test_a_background_process_does_not_hold_up_the_call_and_ends_with_the_server(
    processes: Processes, bash: Bash, context: ToolContext, record: Record, fifo: MakeFifo
) -> None:
    witness = fifo("witness")
    result = await bash.run({"command": f"{witness.hold} sleep 1000 & echo done"}, context)

    assert result.output.startswith("done\n")
    assert notes(result) == f"Still running in the background: process group {record.group}"
    assert await witness.line() == "up"
    assert not witness.has_ended()

    await processes.close()
    await witness.ended()


async def test_a_background_process_may_go_on_writing(bash: Bash, context: ToolContext, fifo: MakeFifo) -> None:
    go, told = fifo("go"), fifo("told")
    background = f"(read -r _ < '{go.path}'; seq 200000; echo status $? > '{told.path}') &"
    result = await bash.run({"command": f"{background} echo done"}, context)
    go.say()

    assert result.output.startswith("done\n")
    assert await told.line() == "status 0"


async def test_a_background_process_that_writes_without_end_does_not_hold_up_the_call(
    bash: Bash, context: ToolContext
) -> None:
    result = await bash.run({"command": "yes & echo done"}, context)

    assert result.metadata["exit"] == 0


async def test_what_a_filter_beside_the_command_still_passes_on_is_in_the_result(
    bash: Bash, context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_lines, "_QUIET_SECONDS", 60)  # on a busy machine the filter may start late

    result = await bash.run({"command": "exec > >(tee copy); echo one; echo two"}, context)

    assert result.metadata["output"].startswith("one\ntwo\n")


async def test_commands_run_beside_each_other(bash: Bash, context: ToolContext, fifo: MakeFifo) -> None:
    """Each waits for the next one to have begun: one after another they would wait for ever."""
    gates = [fifo(f"gate{n}") for n in range(8)]
    for gate in gates:
        gate.hold_open()
    commands = [
        f"echo go > '{gates[n].path}'; read -r word < '{gates[(n + 1) % 8].path}'; echo {n} $word" for n in range(8)
    ]
    contexts = [replace(context, part_id=f"{context.part_id}{n}") for n in range(8)]

    results = await asyncio.gather(
        *(bash.run({"command": command}, own) for command, own in zip(commands, contexts, strict=True))
    )

    assert [result.output for result in results] == [f"{n} go\n" for n in range(8)]
