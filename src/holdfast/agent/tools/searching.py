"""What `glob`, `grep` and `list` have in common: where they look, and what they answer when that cannot be."""

import asyncio
import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolFailure
from holdfast.agent.tools.places import external, resolved
from holdfast.core.errors import Invalid, Unavailable


async def directory_of(context: ToolContext, path: str) -> Path:
    """Raises ToolFailure if there is none."""
    directory = resolved(context, path)
    if not await asyncio.to_thread(directory.is_dir):
        kind = "is a file, not a directory" if await asyncio.to_thread(directory.exists) else "does not exist"
        raise ToolFailure(f"{directory} {kind}: give the directory to look in, or none for the project's.")
    return directory


def asks(
    context: ToolContext, directory: Path, permission: str, pattern: str, metadata: dict[str, Any]
) -> Sequence[Ask]:
    return [
        *external(context, directory, is_directory=True),
        Ask(permission=permission, patterns=(pattern,), always=("*",), metadata=metadata),
    ]


@contextlib.contextmanager
def failures_told() -> Generator[None]:
    """A search that is wrong, or takes too long, is the LLM's to change."""
    try:
        yield
    except (Invalid, Unavailable) as error:
        raise ToolFailure(" ".join(filter(None, (error.message, error.hint)))) from error


def text_of(name: bytes) -> str:
    """A file's name may be any bytes; what is recorded is text."""
    return name.decode(errors="replace")
