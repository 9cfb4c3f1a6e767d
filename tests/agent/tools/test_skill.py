"""Skills are found where they are expected, and nothing else is taken for one."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.agent.skills import FILE_BYTES_MAX, find_skills
from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.skill import Skill
from tests.agent.tools.hosts import Session


def make(place: Path, folder: str, name: str, description: str = "for tests", content: str = "Do it.") -> Path:
    file = place / folder / name / "SKILL.md"
    file.parent.mkdir(parents=True)
    file.write_text(f"---\nname: {name}\ndescription: {description}\n---\n\n{content}\n")
    return file


async def test_a_skill_is_read_with_its_directory(session: Session) -> None:
    file = make(session.context.directory / ".opencode", "skills", "release", content="# Steps\n\n1. Tag")

    result = await session.call(Skill(), name="release")

    assert result.title == "Loaded skill: release"
    assert result.output == f'<skill name="release">\nBase directory: {file.parent}\n\n# Steps\n\n1. Tag\n</skill>'
    assert result.metadata == {"name": "release", "dir": str(file.parent), "truncated": False}
    (ask,) = await Skill().asks({"name": "release"}, session.context)
    assert (ask.permission, ask.patterns, ask.always) == ("skill", ("release",), ("release",))


async def test_a_skill_that_does_not_exist_is_answered_with_those_that_do(session: Session) -> None:
    make(session.context.directory / ".opencode", "skill", "release", "how to release")

    with pytest.raises(ToolFailure, match=r"no skill 'nope'. The skills are:\n- release: how to release"):
        await session.call(Skill(), name="nope")


async def test_skills_of_the_user_of_the_project_and_of_its_directories_are_found(
    session: Session, tmp_path: Path
) -> None:
    root = session.context.directory
    below = root / "a" / "b"
    below.mkdir(parents=True)
    make(tmp_path / "config", "skills", "own", "of the user")
    make(tmp_path / "config", "skills", "same", "of the user")
    make(root / ".opencode", "skills", "same", "of the project")
    make(root / "a" / ".opencode", "skill", "near", "of a directory")
    make(tmp_path / ".opencode", "skill", "above", "above the project")
    context = replace(session.context, directory=below)

    found = find_skills(below, root, tmp_path / "config")

    assert {skill.name: skill.description for skill in found} == {
        "near": "of a directory",
        "own": "of the user",
        "same": "of the project",
    }
    assert (await Skill(tmp_path / "config").run({"name": "own"}, context)).metadata["name"] == "own"


def test_skills_are_found_where_other_agents_keep_theirs_and_in_directories_below(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "project"
    below = root / "below"
    below.mkdir(parents=True)
    make(home / ".claude", "skills", "same", "of another agent")
    make(home / ".agents", "skills", "shared", "of all agents")
    make(home / "config", "skill", "same", "of the user")
    make(home / ".opencode", "skill", "own", "of the user")
    make(root / ".claude", "skills", "project", "of the project")
    make(root / ".claude", "skills", "near", "of another agent")
    make(below / ".agents", "skills", "here", "of the directory")
    make(below / ".opencode", "skill", "near", "of the directory")
    make(below / ".opencode" / "skill" / "group", "of", "deep", "further down")
    (below / ".opencode" / "skill" / "round").symlink_to(below / ".opencode")

    found = {skill.name: skill.description for skill in find_skills(below, root, home / "config", home)}

    assert found == {
        "deep": "further down",
        "here": "of the directory",
        "near": "of the directory",
        "own": "of the user",
        "project": "of the project",
        "same": "of the user",
        "shared": "of all agents",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no front matter",
        "---\nname: a\n",
        "---\nname: [a\n---\n",
        "---\n- a\n---\n",
        "---\ndescription: a\n---\n",
        "---\nname: 1\n---\n",
        "---\nname: ''\n---\n",
        "---\nname: a\ndescription: {x: 1}\n---\n",
        "---\nname: a\n---\n" + "x" * FILE_BYTES_MAX,
    ],
)
def test_what_is_no_skill_is_left_out(tmp_path: Path, text: str) -> None:
    make(tmp_path / ".opencode", "skill", "a").write_text(text)
    make(tmp_path / ".opencode", "skill", "b")

    assert [skill.name for skill in find_skills(tmp_path, tmp_path, None)] == ["b"]


def test_pipes_and_unreadable_things_are_left_out(tmp_path: Path) -> None:
    file = make(tmp_path / ".opencode", "skill", "a")
    file.unlink()
    os.mkfifo(file)
    make(tmp_path / ".opencode", "skill", "b").write_bytes(b"---\nname: \xff\n---\n")
    (tmp_path / ".opencode" / "skills").write_text("not a directory")

    assert find_skills(tmp_path, tmp_path, None) == ()


@given(st.text("-: \nnameabc[]{}&*!|>'\"", max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
def test_any_front_matter_is_read_or_left_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / ".opencode" / "skill" / "a" / "SKILL.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"---\n{text}\n---\nx")

    assert len(find_skills(tmp_path, tmp_path, None)) <= 1
