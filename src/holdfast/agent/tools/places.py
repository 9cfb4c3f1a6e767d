"""Which paths a call may touch without asking: those in the project; anything else is an `external_directory`."""

import os
from pathlib import Path

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolFailure


def resolved(context: ToolContext, path: str) -> Path:
    """The path that is meant, absolute and without links in it. Relative ones start in the session's directory."""
    if "\0" in path:
        raise ToolFailure(f"{path!r} cannot be a path: it holds a NUL character.")
    try:
        return Path(os.path.realpath(context.directory / Path(path).expanduser()))
    except (OSError, RuntimeError, ValueError) as error:
        raise ToolFailure(f"{path!r} cannot be a path: {error}") from error


def is_inside(context: ToolContext, path: Path) -> bool:
    """Below the session's directory or the project's root (which outside of git is `/` and then does not count)."""
    roots = [Path(os.path.realpath(context.directory))]
    if context.worktree != Path("/"):
        roots.append(Path(os.path.realpath(context.worktree)))
    return any(path == root or root in path.parents for root in roots)


def external(context: ToolContext, path: Path, *, is_directory: bool = False) -> list[Ask]:
    """What has to be asked before a call goes to `path`; nothing when it is inside the project."""
    if is_inside(context, path):
        return []
    directory = path if is_directory else path.parent
    pattern = str(directory / "*")
    metadata = {"filepath": str(path), "parentDir": str(directory)}
    return [Ask(permission="external_directory", patterns=(pattern,), always=(pattern,), metadata=metadata)]


def shown(context: ToolContext, path: Path) -> str:
    """The path as rules and people see it: relative to the project when it is inside."""
    root = Path(os.path.realpath(context.directory if context.worktree == Path("/") else context.worktree))
    return str(path.relative_to(root)) if path == root or root in path.parents else str(path)
