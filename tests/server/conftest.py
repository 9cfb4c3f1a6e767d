from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.server.harness import Server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """In memory; the LLM has nothing to say: `server.provider.add(...)`."""
    async with Server(tmp_path) as server:
        yield server


@pytest.fixture
async def server_with_password(tmp_path: Path) -> AsyncIterator[Server]:
    """The password is `pw`; pages of https://app.example are admitted."""
    async with Server(tmp_path, password="pw", cors=("https://app.example",)) as server:
        yield server
