"""The tools there are, by id, and the check of what an LLM wants to call.

Whatever an LLM got wrong is answered with a ToolFailure that says how to do it right: it reads that and tries again.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing.jsonschema import EMPTY_REGISTRY

from holdfast.agent.tools.base import ForeignTool, Tool, ToolFailure

_ERRORS_MAX = 5
_ERROR_LENGTH_MAX = 300


class ToolBox(Mapping[str, Tool]):
    """Immutable, in the order given. `box[id]` raises KeyError; `box.find(id)` is for names that an LLM wrote."""

    def __init__(self, tools: Iterable[Tool]) -> None:
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            assert tool.id not in self._tools, f"two tools are called {tool.id}"
            self._tools[tool.id] = tool

    def __getitem__(self, id: str) -> Tool:
        return self._tools[id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def find(self, name: str) -> Tool:
        """Raises ToolFailure, naming the tools there are."""
        tool = self._tools.get(name)
        if tool is None:
            raise ToolFailure(f"There is no tool {_short(name)!r}. The tools are: {', '.join(self._tools) or 'none'}.")
        return tool


def validate(tool: Tool, input: object) -> None:
    """Check an input against the tool's schema. Raises ToolFailure, naming each field that is wrong."""
    if isinstance(tool, ForeignTool):
        return
    errors = sorted(_errors(tool.parameters, input), key=lambda error: error.json_path)
    if not errors:
        return
    lines = [f"- {_describe(error)}" for error in errors[:_ERRORS_MAX]]
    if len(errors) > _ERRORS_MAX:
        lines.append(f"- and {len(errors) - _ERRORS_MAX} more")
    raise ToolFailure(f"The input of {tool.id} is not valid. Correct it and call the tool again.\n" + "\n".join(lines))


def _errors(schema: dict[str, Any], input: Any) -> Iterable[ValidationError]:
    # With a registry of its own, a schema that refers to an address is wrong, and not fetched from there.
    registry: Any = EMPTY_REGISTRY
    validator: Any = Draft202012Validator(schema, registry=registry)  # its types say less than its manual does
    return validator.iter_errors(input)


def _describe(error: ValidationError) -> str:
    """`todos[0].status: 'later' is not one of ['pending', 'completed']`."""
    field = error.json_path.removeprefix("$").removeprefix(".")
    return f"{field}: {_short(error.message)}" if field else _short(error.message)


def _short(text: str) -> str:
    """jsonschema repeats the value it complains of, which may be a whole file."""
    return text if len(text) <= _ERROR_LENGTH_MAX else f"{text[:100]} … {text[-150:]}"
