import asyncio
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.git import Git
from holdfast.agent.providers.connections import Connections
from holdfast.core.config import Config
from holdfast.core.errors import Invalid
from holdfast.core.session import SessionModel
from holdfast.service.config import Configuration
from holdfast.service.instances import Instances
from holdfast.testing.manual_clock import ManualClock


class World:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock()
        self.instances = Instances(
            str(directory),
            configuration=Configuration(environ={}, home=directory / "home", connections=Connections()),
            clock=self.clock,
            tool_output="/data/tool-output",
        )

    def configure(self, text: str) -> None:
        file = self.directory / "opencode.json"
        file.write_text(text)
        stamp = self.clock.now_ms() * 1_000_000  # a file system may be too coarse to see two edits of one test
        os.utime(file, ns=(stamp, stamp))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


async def test_a_directory_has_one_instance_however_it_is_spelled(world: World):
    spellings = [None, str(world.directory), f"{world.directory}/", f"{world.directory}/../{world.directory.name}"]
    instances = [await world.instances.open(spelling) for spelling in spellings]

    assert all(instance is instances[0] for instance in instances)


async def test_requests_at_the_same_moment_share_one_instance(world: World):
    instances = await asyncio.gather(*(world.instances.open() for _ in range(5)))

    assert all(instance is instances[0] for instance in instances)


async def test_an_edit_of_the_configuration_holds_a_moment_later(world: World):
    before = await world.instances.open()
    world.configure('{"default_agent": "plan"}')
    assert await world.instances.open() is before
    world.clock.advance(1000)
    after = await world.instances.open()

    assert after.default_agent() == "plan"
    world.clock.advance(1000)
    assert await world.instances.open() is after


async def test_a_broken_edit_is_refused_with_its_place_and_the_last_good_one_is_kept_for_turns(world: World):
    good = await world.instances.open()
    world.configure("{")
    world.clock.advance(1000)
    with pytest.raises(Invalid, match=r"opencode\.json"):
        await world.instances.open()

    assert world.instances.opened(str(world.directory)) is good


async def test_a_disposed_instance_is_made_anew(world: World):
    before = await world.instances.open()
    world.instances.dispose(str(world.directory))

    assert world.instances.opened(str(world.directory)) is None
    assert await world.instances.open() is not before


async def test_many_directories_do_not_stay_for_ever(world: World, tmp_path: Path):
    await world.instances.open()
    for number in range(300):
        (tmp_path / f"{number}").mkdir()
        await world.instances.open(str(tmp_path / f"{number}"))

    assert world.instances.opened(str(world.directory)) is None
    assert world.instances.opened(str(tmp_path / "299")) is not None


async def test_a_prompt_without_a_model_takes_the_agents_then_the_sessions_then_the_default(world: World):
    models = {"one": {}, "two": {}, "three": {}}
    config = {
        "model": "p/one",
        "provider": {"p": {"npm": "@ai-sdk/openai-compatible", "models": models}},
        "agent": {"plan": {"model": "p/three"}},
    }
    world.configure(json.dumps(config))
    instance = await world.instances.open()
    build, plan = instance.agent("build"), instance.agent("plan")

    assert instance.model_for(plan, SessionModel(id="two", provider_id="p")).model_id == "three"
    assert instance.model_for(build, SessionModel(id="two", provider_id="p", variant="high")).variant == "high"
    assert instance.model_for(build, SessionModel(id="gone", provider_id="p")).model_id == "one"
    assert instance.model_for(build, None).model_id == "one"


async def test_a_default_model_that_is_not_there_is_an_error_that_says_what_is(world: World):
    world.configure('{"model": "nowhere/none"}')
    instance = await world.instances.open()

    with pytest.raises(Invalid, match="nowhere/none"):
        instance.model_for(instance.agent("build"), None)


async def test_an_unknown_agent_is_an_error_that_names_the_known(world: World):
    instance = await world.instances.open()

    with pytest.raises(Invalid, match="build, explore, general, plan"):
        instance.agent("nobody")


class _SlowConfiguration(Configuration):
    """Its first answer waits until it may be given."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked = threading.Event()
        self.may_answer = threading.Event()

    def config(self, directory: str, worktree: str) -> Config:
        config = super().config(directory, worktree)
        self.asked.set()
        assert self.may_answer.wait(60)
        return config


async def test_what_was_being_read_when_an_instance_was_disposed_of_serves_nobody_afterwards(tmp_path: Path):
    """`POST /project/git/init` disposes of the instance because its project is another one now."""
    configuration = _SlowConfiguration(environ={}, home=tmp_path / "home", connections=Connections())
    instances = Instances(str(tmp_path), configuration=configuration, clock=ManualClock(), tool_output="/data")
    opening = asyncio.create_task(instances.open())
    await asyncio.to_thread(configuration.asked.wait, 60)
    await Git(directory=str(tmp_path)).run("init", "--quiet")
    instances.dispose(str(tmp_path))
    configuration.may_answer.set()
    before = await opening
    after = await instances.open()

    assert (before.place.vcs, after.place.vcs) == (None, "git")
    assert await instances.open() is after


async def test_a_directory_that_is_gone_is_missed_at_once(world: World):
    place = world.directory / "gone"
    place.mkdir()
    await world.instances.open(str(place))
    place.rmdir()

    with pytest.raises(Invalid, match="There is no directory"):
        await world.instances.open(str(place))
