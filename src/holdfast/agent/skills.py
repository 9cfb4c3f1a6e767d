"""Skills: instructions for a kind of work, in files `SKILL.md`, which an LLM reads when it needs them.

They are in `skill/` or `skills/` of the user's configuration directory, of `~/.opencode`, and of each `.opencode` from the root
of the project down to the session's directory; beside each `.opencode`, the home directory's too, in `.claude/skills/` and
`.agents/skills/`. Each has a directory of its own there, or somewhere below. The file begins with a front matter, between two
lines `---`, that holds `name` and `description`. Of two with one name, the one nearer to the session's directory counts. A
file that is none of this is left out.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.agent.front_matter import parse

SKILLS_MAX: Final = 500
FILE_BYTES_MAX: Final = 256 * 1024

_NAME: Final = "SKILL.md"
_FOLDERS: Final = ("skill", "skills")
_DEPTH_MAX: Final = 5
_ENTRIES_MAX: Final = 5000


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """`location` is the file; `content` what follows its front matter."""

    name: str
    description: str
    location: str
    content: str


def find_skills(
    directory: Path, worktree: Path, configuration: Path | None, home: Path | None = None
) -> tuple[Skill, ...]:
    """By name. Reads files: not to be called in the event loop."""
    found: dict[str, Skill] = {}
    for place in _places(directory, worktree, configuration, home):
        for file in _files(place):
            skill = _read(file)
            if skill is not None and (skill.name in found or len(found) < SKILLS_MAX):
                found[skill.name] = skill
    return tuple(sorted(found.values(), key=lambda skill: skill.name))


def _places(directory: Path, worktree: Path, configuration: Path | None, home: Path | None) -> Iterator[Path]:
    """Directories with skills in them, the nearest last."""
    if home is not None:
        yield from _foreign(home)
    if configuration is not None:
        yield from (configuration / folder for folder in _FOLDERS)
    if home is not None:
        yield from (home / ".opencode" / folder for folder in _FOLDERS)
    above = [directory, *directory.parents]
    above = above[: above.index(worktree) + 1] if worktree in above and worktree != Path("/") else [directory]
    for place in reversed(above):
        yield from _foreign(place)
        yield from (place / ".opencode" / folder for folder in _FOLDERS)


def _foreign(place: Path) -> Iterator[Path]:
    """Where other agents of the user have theirs."""
    yield from (place / name / "skills" for name in (".claude", ".agents"))


def _files(place: Path) -> Sequence[Path]:
    """In the order of their paths. Links are followed, but not for ever."""
    files: list[Path] = []
    entries = 0
    waiting = [(place, 0)]
    while waiting and len(files) < SKILLS_MAX:
        folder, depth = waiting.pop(0)
        try:
            names = sorted(os.listdir(folder))
        except OSError:  # there is none, or it is no directory, or not for us to see
            continue
        if depth and _NAME in names:
            files.append(folder / _NAME)
        entries += len(names)
        if depth < _DEPTH_MAX and entries <= _ENTRIES_MAX:
            waiting += ((folder / name, depth + 1) for name in names if name != _NAME)
    return files


def _read(file: Path) -> Skill | None:
    try:
        if not file.is_file():  # and no pipe, which could make us wait
            return None
        with file.open("rb") as opened:
            text = opened.read(FILE_BYTES_MAX + 1).decode()
    except (OSError, UnicodeDecodeError):
        return None
    if len(text.encode()) > FILE_BYTES_MAX:
        return None
    try:
        settings, content = parse(text)
        name, description = settings["name"], settings.get("description", "")
    except (ValueError, KeyError):
        return None
    if not isinstance(name, str) or not isinstance(description, str) or not name.strip():
        return None
    return Skill(name=name.strip(), description=description.strip(), location=str(file), content=content)
