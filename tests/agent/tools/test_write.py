"""The tool `write` on real files."""

import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.file_edits import FileEdits
from holdfast.agent.tools.read import Read
from holdfast.agent.tools.write import Write
from tests.agent.tools.hosts import Session

WRITE = Write(FileEdits())


async def test_a_new_file_is_made_with_its_directories(session: Session) -> None:
    path = session.context.directory / "a" / "b" / "note.txt"

    result = await session.call(WRITE, filePath=str(path), content="line one\n")

    assert path.read_bytes() == b"line one\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    assert result.title == "a/b/note.txt"
    assert result.output == f"Made {path}."
    assert result.metadata["diagnostics"] == {}
    assert result.metadata["filepath"] == str(path)
    assert result.metadata["exists"] is False
    assert result.metadata["truncated"] is False
    assert result.metadata["filediff"]["additions"] == 1


async def test_what_was_written_here_may_be_written_again_without_reading_it(session: Session) -> None:
    await session.call(WRITE, filePath="a.txt", content="1\n")
    result = await session.call(WRITE, filePath="a.txt", content="2\n")

    assert (session.context.directory / "a.txt").read_bytes() == b"2\n"
    assert result.metadata["exists"] is True
    assert "-1\n+2\n" in result.metadata["diff"]


async def test_a_file_that_was_not_read_is_not_replaced(session: Session) -> None:
    path = session.context.directory / "a.txt"
    path.write_bytes(b"dear\n")

    with pytest.raises(ToolFailure, match="Read it first"):
        await session.call(WRITE, filePath="a.txt", content="x")
    assert path.read_bytes() == b"dear\n"

    await session.call(Read(), filePath="a.txt")
    await session.call(WRITE, filePath="a.txt", content="x")
    assert path.read_bytes() == b"x"


async def test_a_file_that_appears_while_the_user_is_asked_is_not_replaced(session: Session) -> None:
    context = session.next_context()
    input = {"filePath": "a.txt", "content": "x"}
    await WRITE.asks(input, context)
    (session.context.directory / "a.txt").write_bytes(b"dear\n")

    with pytest.raises(ToolFailure, match="Read it first"):
        await WRITE.run(input, context)


async def test_line_breaks_and_byte_order_mark_stay(session: Session) -> None:
    path = session.context.directory / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    await session.call(Read(), filePath="a.txt")

    await session.call(WRITE, filePath="a.txt", content="x\ny\n")

    assert path.read_bytes() == b"\xef\xbb\xbfx\r\ny\r\n"


async def test_a_place_outside_of_the_project_is_asked_for(session: Session) -> None:
    outside = session.context.directory.parent / "elsewhere" / "a.txt"

    asks = await WRITE.asks({"filePath": "../elsewhere/a.txt", "content": "x"}, session.next_context())

    assert [(ask.permission, ask.patterns) for ask in asks] == [
        ("external_directory", (f"{outside.parent}/*",)),
        ("edit", (str(outside),)),
    ]
    assert not outside.exists()


async def test_the_same_content_again_changes_nothing_on_disk(session: Session) -> None:
    path = session.context.directory / "a.txt"
    await session.call(WRITE, filePath="a.txt", content="1\n")
    before = path.stat()

    await session.call(WRITE, filePath="a.txt", content="1\n")

    assert path.stat() == before


async def test_a_directory_that_cannot_be_made_is_said(session: Session) -> None:
    (session.context.directory / "file").write_bytes(b"")

    with pytest.raises(ToolFailure, match="Not a directory"):
        await session.call(WRITE, filePath="file/a.txt", content="x")
    with pytest.raises(ToolFailure, match="File name too long"):
        await session.call(WRITE, filePath="n" * 300, content="x")


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None, max_examples=50
)
async def test_a_file_holds_exactly_what_was_given(session: Session, content: str) -> None:
    path = session.context.directory / "a.txt"
    path.unlink(missing_ok=True)

    await session.call(WRITE, filePath="a.txt", content=content)

    assert path.read_bytes() == content.encode()
    assert os.listdir(path.parent) == ["a.txt"]


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
