"""Runs commands as the server does, to be killed by a test: `one_command_server.py DIRECTORY`.

Reads lines `PART COMMAND`. Writes lines of JSON: `{"part", "metadata", "guardian"}` for each recorded update, `{"result"}` at
the end of a command. The first update of a part whose name ends in `!` is never confirmed: there the server waits to die
between record and gate. Ends with its input, without closing anything.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from holdfast.agent.tools import Processes
from holdfast.agent.tools.bash import Bash
from tests.agent.tools.world import make_context


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def serve(directory: Path) -> None:
    processes = Processes()
    bash = Bash(processes)

    async def run(part: str, command: str) -> None:
        async def progress(title: str | None, metadata: dict[str, Any]) -> None:
            del title
            tell(part=part, metadata=metadata, guardian=processes.guardian_pid)
            if part.endswith("!"):
                await asyncio.Event().wait()

        result = await bash.run({"command": command}, make_context(directory, progress, part_id=part))
        tell(result=result.output)

    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        part, _, command = line.rstrip("\n").partition(" ")
        await run(part, command)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
