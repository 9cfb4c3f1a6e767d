"""Fixtures for tools. Tests of commands run on both event loops: asyncio's, and uvloop's, which the server uses."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop

from holdfast.agent.tools import Processes, ToolContext
from tests.agent.tools.hosts import Session
from tests.agent.tools.world import Fifo, HandClock, Record, make_context


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    del config
    if item.path.name in ("test_bash.py", "test_formatters.py"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def fifo(tmp_path: Path) -> Iterator[Callable[[str], Fifo]]:
    made: list[Fifo] = []

    def make(name: str) -> Fifo:
        made.append(Fifo(tmp_path / name))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    processes = Processes()
    yield processes
    await processes.close()


@pytest.fixture
async def record() -> Record:
    return Record()


@pytest.fixture
async def hand_clock() -> HandClock:
    return HandClock()


@pytest.fixture
def context(tmp_path: Path, record: Record) -> ToolContext:
    project = tmp_path / "project"
    project.mkdir()
    return make_context(project, record.progress, part_id=f"prt_{os.urandom(8).hex()}")


@pytest.fixture
async def session(context: ToolContext) -> Session:
    return Session(context)
