"""What only shows in the process of a server: what it logs when something breaks, and what it spares its collector."""

import json
import sys
from pathlib import Path

import httpx
import pytest

from holdfast.testing.server_process import ServerProcess

BROKEN = """
import gc, logging, os
from holdfast.cli import app
from holdfast.service.files import FileService

async def broken(self, directory, path):
    secret = os.environ["SECRET_OF_ITS_OWN"]
    try:
        raise KeyError("within")
    except KeyError:
        logging.getLogger("a.library").exception("A library says so.")
    raise RuntimeError(f"frozen: {gc.get_freeze_count()}, secret: {len(secret)}")

FileService.list = broken
app()
"""


@pytest.fixture
def said(tmp_path: Path) -> str:
    """What a server logs in which listing files is broken."""
    command = [sys.executable, "-c", BROKEN, "serve", "--port", "0", "--data", str(tmp_path / "data")]
    log = tmp_path / "log"
    with ServerProcess(command, cwd=tmp_path, log=log, env={"SECRET_OF_ITS_OWN": "kelp-and-tide"}) as server:
        answer = httpx.get(f"{server.url}/file", params={"path": "."}, timeout=60)
        assert answer.status_code == 500
        assert "frozen" not in answer.text
        assert json.loads(answer.text)["data"]["ref"] in log.read_text()
    return log.read_text()


def test_a_log_has_the_traceback_of_a_defect_and_no_values_of_variables(said: str) -> None:
    """Ours and those of libraries: what stands in a variable may be a secret."""
    assert "RuntimeError: frozen" in said
    assert "in broken" in said
    assert "secret: 13" in said
    assert "A library says so." in said
    assert "KeyError: 'within'" in said
    assert "kelp-and-tide" not in said


def test_what_is_loaded_at_the_start_is_not_looked_through_again(said: str) -> None:
    frozen = int(said.rpartition("frozen: ")[2].partition(",")[0])
    assert frozen > 10_000
