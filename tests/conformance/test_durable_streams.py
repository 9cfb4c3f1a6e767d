"""The official Durable Streams suite, from the npm registry, against `holdfast serve` on a disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.testing.server_process import ServerProcess, holdfast_command

NODE_TESTS = Path(__file__).parent.parent / "node"
LONG_POLL_SECONDS = 0.5
ORIGIN = "https://example.com"  # what the suite's preflight says it is


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_test_of_the_official_suite_passes_and_none_is_skipped(tmp_path: Path) -> None:
    command = holdfast_command(
        *("serve", "--port", "0", "--data", str(tmp_path / "data")),
        *("--long-poll-seconds", str(LONG_POLL_SECONDS), "--cors", ORIGIN),
    )
    report = tmp_path / "report.json"
    environ = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    with ServerProcess(command, cwd=tmp_path, log=tmp_path / "server.log", env=environ) as server:
        vitest = subprocess.run(
            [
                Path(sys.executable).with_name("node"),
                NODE_TESTS / "node_modules/vitest/vitest.mjs",
                *("run", "--config", "vitest.config.mjs", "--reporter=json", f"--outputFile={report}"),
            ],
            cwd=NODE_TESTS / "durable_streams",
            env={**os.environ, "STREAMS_URL": server.url, "LONG_POLL_MS": str(int(LONG_POLL_SECONDS * 1000))},
            capture_output=True,
            text=True,
            check=False,
        )
    assert report.exists(), vitest.stderr[-2000:]
    result = json.loads(report.read_text())
    failed = [
        f"{test['fullName']}: {(test.get('failureMessages') or [''])[0][:200]}"
        for file in result["testResults"]
        for test in file["assertionResults"]
        if test["status"] != "passed"
    ]

    assert failed == []
    assert result["numPassedTests"] == result["numTotalTests"] >= 338
