import re

import msgspec
import pytest

from holdfast.agent.permissions import evaluate
from holdfast.core.config import Config
from holdfast.core.errors import Invalid
from holdfast.service.agents import agents_of, commands_of, default_agent, rules_of
from holdfast.service.slugs import new_slug

OUTPUT = "/data/tool-output"


def config(**settings: object) -> Config:
    return msgspec.convert(settings, Config)


def test_the_built_in_agents_are_those_that_clients_expect():
    agents = agents_of(config(), OUTPUT)

    assert {name: (agent.mode, bool(agent.hidden)) for name, agent in agents.items()} == {
        "build": ("primary", False),
        "plan": ("primary", False),
        "general": ("subagent", False),
        "explore": ("subagent", False),
        "compaction": ("primary", True),
        "title": ("primary", True),
        "summary": ("primary", True),
    }
    assert all(agent.native for agent in agents.values())


@pytest.mark.parametrize(
    ("agent", "permission", "pattern", "action"),
    [
        ("build", "bash", "make", "allow"),
        ("build", "edit", "src/x.py", "allow"),
        ("build", "read", "src/x.py", "allow"),
        ("build", "read", "config/.env", "ask"),
        ("build", "read", ".env.local", "ask"),
        ("build", "read", ".env.example", "allow"),
        ("build", "external_directory", "/etc/x", "ask"),
        ("build", "external_directory", f"{OUTPUT}/ses_x/prt_y.txt", "allow"),
        ("build", "question", "*", "allow"),
        ("build", "plan_exit", "*", "deny"),
        ("plan", "edit", "src/x.py", "deny"),
        ("plan", "edit", ".opencode/plans/x.md", "allow"),
        ("plan", "plan_exit", "*", "allow"),
        ("general", "todowrite", "*", "deny"),
        ("general", "question", "*", "deny"),
        ("explore", "edit", "x", "deny"),
        ("explore", "grep", "x", "allow"),
        ("title", "bash", "ls", "deny"),
    ],
)
def test_an_agent_may_do_what_its_work_needs(agent: str, permission: str, pattern: str, action: str):
    assert evaluate(permission, pattern, agents_of(config(), OUTPUT)[agent].permission) == action


def test_the_configuration_has_the_last_word_the_agents_own_after_the_general():
    settings = config(
        permission={"bash": {"*": "ask", "git *": "allow"}},
        agent={"build": {"permission": {"bash": {"git push *": "deny"}}}},
    )
    agents = agents_of(settings, OUTPUT)

    assert evaluate("bash", "rm x", agents["build"].permission) == "ask"
    assert evaluate("bash", "git status", agents["build"].permission) == "allow"
    assert evaluate("bash", "git push origin", agents["build"].permission) == "deny"
    assert evaluate("bash", "git push origin", agents["plan"].permission) == "allow"


def test_rules_stand_in_the_order_of_the_file():
    rules = rules_of(config(permission={"bash": {"a": "ask", "b": "deny"}, "edit": "allow"}).permission)

    assert [(rule.permission, rule.pattern, rule.action) for rule in rules] == [
        ("bash", "a", "ask"),
        ("bash", "b", "deny"),
        ("edit", "*", "allow"),
    ]
    assert [(rule.permission, rule.pattern, rule.action) for rule in rules_of("ask")] == [("*", "*", "ask")]
    assert rules_of(None) == ()


def test_agents_are_changed_added_and_switched_off():
    settings = config(
        agent={
            "plan": {"disable": True},
            "build": {"model": "p/m", "temperature": 0.2, "options": {"effort": "high"}},
            "reviewer": {"description": "Reviews.", "prompt": "Review.", "mode": "subagent", "steps": 3},
        }
    )
    agents = agents_of(settings, OUTPUT)

    assert "plan" not in agents
    build = agents["build"]
    assert build.model is not None
    assert (build.model.provider_id, build.model.model_id) == ("p", "m")
    assert (build.temperature, build.options) == (0.2, {"effort": "high"})
    reviewer = agents["reviewer"]
    assert (reviewer.mode, reviewer.prompt, reviewer.steps, reviewer.native) == ("subagent", "Review.", 3, None)
    assert evaluate("bash", "ls", reviewer.permission) == "allow"


def test_an_agent_whose_model_is_no_model_is_an_error():
    with pytest.raises(Invalid):
        agents_of(config(agent={"build": {"model": "just-a-name"}}), OUTPUT)


def test_the_default_agent_is_the_configured_one_if_it_may_lead():
    def default(**settings: object) -> str:
        return default_agent(config(**settings), agents_of(config(**settings), OUTPUT))

    assert default() == "build"
    assert default(default_agent="plan") == "plan"
    assert default(default_agent="explore") == "build"
    assert default(default_agent="nobody") == "build"
    assert default(agent={"build": {"disable": True}}) == "plan"
    with pytest.raises(Invalid):
        default(agent={"build": {"disable": True}, "plan": {"disable": True}})


def test_commands_are_the_built_in_ones_and_those_of_the_configuration():
    settings = config(command={"test": {"template": "Run $2 on $1. $ARGUMENTS $1", "agent": "build"}})
    commands = {command.name: command for command in commands_of(settings)}

    assert commands.keys() == {"init", "review", "test"}
    assert commands["test"].hints == ("$1", "$2", "$ARGUMENTS")
    assert commands["review"].subtask


def test_slugs_are_an_adjective_and_a_noun():
    assert re.fullmatch(r"[a-z]+-[a-z]+", new_slug(lambda n: n - 1))
    assert new_slug(lambda n: 0) != new_slug(lambda n: 1)
