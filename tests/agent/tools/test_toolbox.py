"""The tool box, and what an LLM is told when it calls a tool wrongly."""

from collections.abc import Sequence
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from holdfast.agent.permissions import Ask
from holdfast.agent.tools import Processes, Tool, ToolBox, ToolContext, ToolFailure, ToolResult, built_in, validate
from holdfast.core.messages import ToolPart


class Plan:
    id = "plan"
    description = "Writes a plan."
    repeatable = False
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "steps": {
                "type": "array",
                "items": {"type": "object", "properties": {"state": {"enum": ["open", "done"]}}, "required": ["state"]},
            },
        },
        "required": ["title"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        raise NotImplementedError

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        raise NotImplementedError

    async def clean_up(self, part: ToolPart) -> None:
        raise NotImplementedError


PLAN = Plan()


def test_every_built_in_tool_has_a_schema_and_a_description_of_its_own() -> None:
    tools = built_in(Processes())

    assert {"bash", "read"} <= set(tools)
    for id, tool in tools.items():
        assert tool.id == id
        assert len(tool.description) > 50
        Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["type"] == "object"
        assert all(field["description"] for field in tool.parameters["properties"].values())
    assert [tool.id for tool in tools.values() if not tool.repeatable] == ["bash"]


def test_a_tool_that_does_not_exist_is_answered_with_those_that_do() -> None:
    tools = built_in(Processes())

    with pytest.raises(ToolFailure) as failed:
        tools.find("Bash")

    assert failed.value.message == f"There is no tool 'Bash'. The tools are: {', '.join(tools)}."
    assert tools.find("bash").id == "bash"


def test_two_tools_of_one_name_are_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError, match="plan"):
        ToolBox([PLAN, PLAN])


@pytest.mark.parametrize(
    ("input", "told"),
    [
        ({}, "'title' is a required property"),
        ({"title": 7}, "title: 7 is not of type 'string'"),
        ({"title": "x", "steps": [{"state": "open"}, {"state": "soon"}]}, "steps[1].state: 'soon' is not one of"),
        ({"title": "x", "steps": [{}]}, "steps[0]: 'state' is a required property"),
        ([], "[] is not of type 'object'"),
        (None, "None is not of type 'object'"),
    ],
)
def test_what_is_wrong_with_an_input_is_told_with_the_name_of_the_field(input: Any, told: str) -> None:
    with pytest.raises(ToolFailure) as failed:
        validate(PLAN, input)

    assert failed.value.message.startswith("The input of plan is not valid.")
    assert told in failed.value.message


def test_all_that_is_wrong_is_told_at_once_and_briefly() -> None:
    with pytest.raises(ToolFailure) as failed:
        validate(PLAN, {"title": ["x" * 100_000], "steps": [{}] * 100})

    assert len(failed.value.message) < 2000
    assert "and 96 more" in failed.value.message


def test_a_right_input_passes_with_fields_that_nobody_knows() -> None:
    validate(PLAN, {"title": "x", "steps": [{"state": "open"}], "description": "models like to add one"})


def test_the_box_is_a_mapping_in_the_order_given(context: ToolContext) -> None:
    tools: dict[str, Tool] = dict(built_in(Processes()))

    assert list(tools) == list(built_in(Processes()))
    assert "plan" not in tools
