"""The tool `question`: asks the user, and waits for as long as it takes.

The question is recorded, so it is still there after a restart: the call that is run again finds it by itself.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolResult
from holdfast.agent.tools.results import result
from holdfast.core.messages import ToolPart
from holdfast.core.questions import Question as Asked
from holdfast.core.questions import QuestionOption


class Question:
    id = "question"
    repeatable = True
    description = """\
Asks the user one or more questions and waits for the answers.

- Use it when the work can go on in ways that only the user can choose between; not for what you can find out yourself.
- Give two to four options per question, the one you would take first, with "(recommended)" after its label. The user can
  always answer in their own words instead, so an option "other" is not needed.
- With `multiple` several options can be chosen; ask so that this makes sense."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "questions": {
                "type": "array",
                "minItems": 1,
                "maxItems": 20,
                "items": {
                    "type": "object",
                    "properties": {
                        "question": {"type": "string", "description": "The question, as a whole sentence"},
                        "header": {"type": "string", "description": "A title for it, at most 30 characters"},
                        "options": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "properties": {
                                    "label": {
                                        "type": "string",
                                        "description": "What the user chooses, in 1 to 5 words",
                                    },
                                    "description": {"type": "string", "description": "What choosing it means"},
                                },
                                "required": ["label", "description"],
                            },
                            "description": "The answers to choose from",
                        },
                        "multiple": {"type": "boolean", "description": "More than one option may be chosen"},
                    },
                    "required": ["question", "header", "options"],
                },
                "description": "The questions, in order",
            }
        },
        "required": ["questions"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        return []

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        questions = [_asked(question) for question in input["questions"]]
        answers = await context.host.ask(questions)
        said = (
            f'"{question.question}" = "{", ".join(answer) or "(no answer)"}"'
            for question, answer in zip_longest(questions, answers[: len(questions)], fillvalue=())
            if isinstance(question, Asked)
        )
        return await result(
            context,
            title=f"Asked {len(questions)} question{'s' if len(questions) > 1 else ''}",
            output=f"The user answered: {'; '.join(said)}.",
            metadata={"answers": [list(answer) for answer in answers]},
        )

    async def clean_up(self, part: ToolPart) -> None:
        """A pending question ends with its turn."""


def _asked(question: dict[str, Any]) -> Asked:
    return Asked(
        question=question["question"],
        header=question["header"],
        options=tuple(
            QuestionOption(label=option["label"], description=option["description"]) for option in question["options"]
        ),
        multiple=question.get("multiple"),
    )
