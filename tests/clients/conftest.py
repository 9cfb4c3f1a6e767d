import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.testing.stock_opencode import find_opencode
from tests.kill.arena import Arena

NODE = Path(__file__).resolve().parent.parent / "node"


@pytest.fixture
async def arena(tmp_path: Path) -> AsyncIterator[Arena]:
    """A real server, whose LLM is a model server."""
    async with Arena(tmp_path) as arena:
        yield arena


@pytest.fixture
def opencode() -> Path:
    binary = find_opencode(NODE / "node_modules")
    if binary is None:
        pytest.skip(f"the npm package of the stock TUI has no binary for this platform ({os.uname().sysname})")
    return binary
