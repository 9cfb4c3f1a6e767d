"""What a turn knows of the world around its session."""

import json
from pathlib import Path

import pytest

from holdfast.agent.permissions import evaluate
from holdfast.agent.providers.connections import Connections
from holdfast.agent.tools import Processes, built_in
from holdfast.core.messages import MessageModel, UserMessage, UserTime
from holdfast.core.session import NO_TOKENS, Session, SessionTime
from holdfast.service.config import Configuration
from holdfast.service.environment import InstanceEnvironment
from holdfast.service.instances import Instances
from holdfast.testing.manual_clock import ManualClock

ID = "ses_1"


@pytest.fixture
def instances(tmp_path: Path) -> Instances:
    settings = {"agent": {"build": {"steps": 3, "permission": {"bash": "deny"}}}}
    (tmp_path / "opencode.json").write_text(json.dumps(settings))
    configuration = Configuration(environ={}, home=tmp_path / "home", connections=Connections())
    return Instances(str(tmp_path), configuration=configuration, clock=ManualClock(), tool_output="/data")


async def test_a_step_keeps_its_rules_when_the_instance_is_disposed_of_in_the_middle(
    tmp_path: Path, instances: Instances
):
    """A `PATCH /config` between the model's answer and its calls took all rules away: what was forbidden, and what was allowed,
    was asked for."""
    environment = InstanceEnvironment(
        instances,
        tools=built_in(Processes(), configuration=tmp_path, home=tmp_path),
        clock=ManualClock(),
        tool_output=tmp_path,
    )
    session = Session(
        id=ID,
        slug="a-b",
        version="1",
        project_id="global",
        directory=str(tmp_path),
        title="t",
        cost=0,
        tokens=NO_TOKENS,
        time=SessionTime(created=1, updated=1),
    )
    user = UserMessage(
        id="msg_1",
        session_id=ID,
        time=UserTime(created=1),
        agent="build",
        model=MessageModel(provider_id="demo", model_id="demo"),
    )
    await environment.prepare(session)
    instances.dispose()

    assert evaluate("bash", "ls", environment.rules(session, user)) == "deny"
    assert evaluate("glob", "*", environment.rules(session, user)) == "allow"
    assert "bash" not in environment.tools(session, user)
    assert environment.steps_max(session, user) == 3
    assert environment.subagents(session) == ("general", "explore")
