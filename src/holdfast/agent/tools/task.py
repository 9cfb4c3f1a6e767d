"""The tool `task`: gives a piece of work to another agent, in a session of its own.

That session is recorded before it is made: after a restart the call goes on waiting for it, and does not begin another.
"""

from collections.abc import Sequence
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import Subagent, ToolContext, ToolResult
from holdfast.agent.tools.results import result
from holdfast.core.messages import ToolPart


class Task:
    id = "task"
    repeatable = True
    description = """\
Gives a task to another agent, which works by itself, with a conversation of its own, and reports at the end.

- `subagent_type` is the agent's name; a wrong one is answered with those there are. Usually `explore` finds things without
  changing any, and `general` does work of several steps.
- It knows nothing of this conversation. Put all it needs into `prompt`: what is wanted, where, what is known already, and
  exactly what to report. Its last words are the result; the user does not see them unless you repeat them.
- Tasks that do not depend on each other can be given in one step: they then run side by side.
- With `task_id`, the id in an earlier result, that agent goes on where it stopped and still knows what it did.
- Do not use it for what one or two calls of other tools would tell you."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "description": {"type": "string", "description": "The task in 3 to 5 words, for the user"},
            "prompt": {"type": "string", "minLength": 1, "description": "The task in full, for the agent"},
            "subagent_type": {"type": "string", "minLength": 1, "description": "The name of the agent"},
            "task_id": {
                "type": "string",
                "description": "The id of an earlier task to go on with; leave it out for a new one",
            },
            "command": {"type": "string", "description": "The command that led to this task"},
        },
        "required": ["description", "prompt", "subagent_type"],
    }

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        agent = input["subagent_type"]
        metadata = {"description": input["description"], "subagent_type": agent}
        return [Ask(permission=self.id, patterns=(agent,), always=("*",), metadata=metadata)]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        parent = {"parentSessionId": context.session_id}
        # What an earlier run recorded stays: it is how the subagent is found again.
        await context.progress(input["description"], {**context.recorded, **parent})
        session_id, answer = await context.host.run_subagent(
            Subagent(
                description=input["description"],
                prompt=input["prompt"],
                agent=input["subagent_type"],
                session_id=input.get("task_id") or None,
            )
        )
        return await result(
            context,
            title=input["description"],
            output=f'<task id="{session_id}" state="completed">\n<task_result>\n{answer}\n</task_result>\n</task>',
            metadata={**parent, "sessionId": session_id},
        )

    async def clean_up(self, part: ToolPart) -> None:
        """The subagent's session is aborted with this one's turn."""
