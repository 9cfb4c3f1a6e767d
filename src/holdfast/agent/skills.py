"""Skills: instructions for a kind of work, in files `SKILL.md`, which an LLM reads when it needs them.

They are in `skill/NAME/` or `skills/NAME/` of the user's configuration directory and of each `.opencode` from the root of
the project down to the session's directory. The file begins with a front matter, between two lines `---`, that holds
`name` and `description`. Of two with one name, the one nearer to the session's directory counts. A file that is none of
this is left out.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from holdfast.agent.front_matter import parse

SKILLS_MAX: Final = 500
FILE_BYTES_MAX: Final = 256 * 1024

_NAME: Final = "SKILL.md"
_FOLDERS: Final = ("skill", "skills")


class Skill(msgspec.Struct, frozen=True, kw_only=True):
    """`location` is the file; `content` what follows its front matter."""

    name: str
    description: str
    location: str
    content: str


def find_skills(directory: Path, worktree: Path, configuration: Path | None) -> tuple[Skill, ...]:
    """By name. Reads files: not to be called in the event loop."""
    found: dict[str, Skill] = {}
    for place in _places(directory, worktree, configuration):
        for file in _files(place):
            skill = _read(file)
            if skill is not None and (skill.name in found or len(found) < SKILLS_MAX):
                found[skill.name] = skill
    return tuple(sorted(found.values(), key=lambda skill: skill.name))


def _places(directory: Path, worktree: Path, configuration: Path | None) -> Iterator[Path]:
    if configuration is not None:
        yield configuration
    above = [directory, *directory.parents]
    above = above[: above.index(worktree) + 1] if worktree in above and worktree != Path("/") else [directory]
    yield from (folder / ".opencode" for folder in reversed(above))


def _files(place: Path) -> Sequence[Path]:
    files: list[Path] = []
    for folder in _FOLDERS:
        try:
            files += sorted(entry / _NAME for entry in (place / folder).iterdir())
        except OSError:  # there is none, or it is not for us to see
            continue
    return files[:SKILLS_MAX]


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
