"""The tool `read` on real files."""

import base64
import os
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from holdfast.agent.tools import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools import read as module
from holdfast.agent.tools.read import Read
from holdfast.agent.tools.stamps import stamp_of

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


async def read(context: ToolContext, path: str | Path, **input: Any) -> ToolResult:
    return await Read().run({"filePath": str(path), **input}, context)


def content(result: ToolResult) -> list[str]:
    return result.output.partition("<content>\n")[2].rpartition("</content>")[0].splitlines()


def note(result: ToolResult) -> str:
    return result.output.rpartition("</content>\n")[2]


# --- text -------------------------------------------------------------------------------------------------------


async def test_a_file_is_shown_with_line_numbers(context: ToolContext) -> None:
    path = context.directory / "sub" / "a.txt"
    path.parent.mkdir()
    path.write_text("one\n\n\tthree")

    result = await read(context, "sub/a.txt")

    assert result.title == "sub/a.txt"
    assert result.output == (
        f"<path>{path}</path>\n<content>\n1: one\n2: \n3: \tthree\n</content>\n(End of the file, 3 lines in all.)"
    )
    assert result.metadata == {
        "preview": "1: one\n2: \n3: \tthree",
        "truncated": False,
        "seen": {str(path): stamp_of(b"one\n\n\tthree")},
    }


async def test_an_absolute_path_outside_of_the_project_is_named_as_it_is(context: ToolContext, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("x")

    assert (await read(context, tmp_path / "outside.txt")).title == str(tmp_path / "outside.txt")
    assert (await read(context, "../outside.txt")).title == str(tmp_path / "outside.txt")


async def test_what_is_read_is_what_permission_was_asked_for(context: ToolContext, tmp_path: Path) -> None:
    """`link/..` is the parent of where the link leads to, for the question and for the answer alike."""
    (context.directory / "a" / "b").mkdir(parents=True)
    (context.directory / "link").symlink_to("a/b")
    (context.directory / "secret.txt").write_text("inside")
    (tmp_path / "secret.txt").write_text("outside")
    input = {"filePath": "link/../../secret.txt"}

    (ask,) = await Read().asks(input, context)
    result = await Read().run(input, context)

    assert ask.patterns == ("secret.txt",)
    assert content(result) == ["1: inside"]


async def test_the_end_of_a_part_says_where_to_go_on(context: ToolContext) -> None:
    path = context.directory / "a.txt"
    path.write_text("".join(f"line {n}\n" for n in range(1, 11)))

    result = await read(context, path, offset=3, limit=4)

    assert content(result) == ["3: line 3", "4: line 4", "5: line 5", "6: line 6"]
    assert note(result) == "(Lines 3 to 6. Go on with offset 7.)"
    assert result.metadata["truncated"] is True


async def test_zero_stands_for_the_default(context: ToolContext) -> None:
    """Some LLMs send 0 for every number they do not care about."""
    path = context.directory / "a.txt"
    path.write_text("one\ntwo\n")

    assert content(await read(context, path, offset=0, limit=0)) == ["1: one", "2: two"]


@given(st.lists(st.text(alphabet="aé€😀\t", max_size=30), max_size=60), st.booleans(), st.integers(1, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_going_on_from_note_to_note_gives_the_whole_file(
    context: ToolContext, lines: list[str], ends_with_newline: bool, limit: int
) -> None:
    """Whoever follows the notes sees every line once, in order, with its number."""
    path = context.directory / "a.txt"
    text = "\n".join(lines) + ("\n" if ends_with_newline and lines and lines[-1] else "")
    path.write_text(text)
    seen: list[str] = []
    offset = 1
    while True:
        result = await read(context, path, offset=offset, limit=limit)
        seen += content(result)
        if not result.metadata["truncated"]:
            break
        offset = int(note(result).removesuffix(".)").rpartition(" ")[2])

    assert seen == [f"{number}: {line}" for number, line in enumerate(text.splitlines(), start=1)]


async def test_more_than_50_kb_are_not_shown_at_once(context: ToolContext) -> None:
    path = context.directory / "a.txt"
    path.write_text("".join(f"{n} {'é' * 500}\n" for n in range(1, 201)))

    result = await read(context, path)

    shown = len(content(result))
    assert 40 < shown < 52
    assert note(result) == f"(Lines 1 to {shown}. Go on with offset {shown + 1}.)"
    assert len(result.output.encode()) < module.BYTES_MAX + 500
    assert (content(await read(context, path, offset=shown + 1)))[0].startswith(f"{shown + 1}: {shown + 1} é")


async def test_long_lines_are_cut(context: ToolContext) -> None:
    path = context.directory / "a.txt"
    path.write_text("short\n" + "€" * 100_000 + "\n" + "€" * 2000 + "\nlast")

    first, cut, whole, last = content(await read(context, path))

    assert first == "1: short"
    assert cut.startswith("2: " + "€" * 2000 + " … (cut")
    assert whole == "3: " + "€" * 2000
    assert last == "4: last"


async def test_the_end_of_a_huge_file_is_read_without_loading_it(context: ToolContext) -> None:
    path = context.directory / "huge.txt"
    with path.open("wb") as file:
        for _ in range(50):
            file.write(b"x" * 999_999 + b"\n")
        file.write(b"y" * 20_000_000)
        file.write(b"\nlast line\n")
    await read(context, path, limit=1)
    tracemalloc.start()
    try:
        result = await read(context, path, offset=51)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [line[:12] for line in content(result)] == ["51: yyyyyyyy", "52: last lin"]
    assert peak < 5_000_000


async def test_an_offset_behind_the_end_is_told(context: ToolContext) -> None:
    for text in ("one\ntwo\n", "one\ntwo"):
        (context.directory / "a.txt").write_text(text)
        with pytest.raises(ToolFailure, match="has only 2 lines: offset 3"):
            await read(context, "a.txt", offset=3)
        with pytest.raises(ToolFailure, match="has only 2 lines: offset 300"):
            await read(context, "a.txt", offset=300)


async def test_an_empty_file_says_so(context: ToolContext) -> None:
    (context.directory / "a.txt").touch()

    result = await read(context, "a.txt")

    assert content(result) == []
    assert note(result) == "(The file is empty.)"


async def test_odd_text_is_shown_as_well_as_can_be(context: ToolContext) -> None:
    (context.directory / "a.txt").write_bytes(b"\xef\xbb\xbfwith mark\r\ncaf\xe9\r\n\x1b[31mred\x1b[0m")

    assert content(await read(context, "a.txt")) == ["1: with mark", "2: caf\ufffd", "3: \x1b[31mred\x1b[0m"]


# --- what is not text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "mime"),
    [
        ("picture", PNG, "image/png"),
        ("photo.jpg", b"\xff\xd8\xff\xe0 rest", "image/jpeg"),
        ("moving.gif", b"GIF89a rest", "image/gif"),
        ("new.webp", b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
        ("paper.pdf", b"%PDF-1.7\n\0\0", "application/pdf"),
    ],
)
async def test_images_and_pdfs_are_attached(context: ToolContext, name: str, data: bytes, mime: str) -> None:
    (context.directory / name).write_bytes(data)

    result = await read(context, name)

    (attachment,) = result.attachments
    assert attachment.mime == mime
    assert attachment.filename == name
    assert attachment.url == f"data:{mime};base64,{base64.b64encode(data).decode()}"
    assert attachment.id.startswith("prt_")
    assert (attachment.session_id, attachment.message_id) == (context.session_id, context.message_id)
    assert "attached" in result.output


async def test_an_attachment_that_is_too_large_is_refused(context: ToolContext) -> None:
    with (context.directory / "large.png").open("wb") as file:
        file.write(PNG)
        file.truncate(module.ATTACHMENT_BYTES_MAX + 1)

    with pytest.raises(ToolFailure, match="larger than 5 MB"):
        await read(context, "large.png")


@pytest.mark.parametrize("data", [b"\x7fELF\x02\x01\x01\0\0\0", bytes(range(1, 32)) * 10])
async def test_other_binary_files_are_refused(context: ToolContext, data: bytes) -> None:
    (context.directory / "program").write_bytes(data)

    with pytest.raises(ToolFailure, match="is a binary file"):
        await read(context, "program")


async def test_pipes_sockets_and_devices_are_refused_and_never_waited_for(context: ToolContext) -> None:
    os.mkfifo(context.directory / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        place = os.open(context.directory, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{place}/socket" if os.path.exists("/proc/self/fd") else "socket")
        finally:
            os.close(place)

        for name in ("pipe", "socket", "/dev/zero"):
            with pytest.raises(ToolFailure, match="cannot be read"):
                await read(context, name)


# --- directories ------------------------------------------------------------------------------------------------


async def test_a_directory_is_listed(context: ToolContext) -> None:
    for name in ("b.txt", "a.txt", ".hidden"):
        (context.directory / name).touch()
    (context.directory / "sub").mkdir()
    (context.directory / "link").symlink_to("sub")
    (context.directory / "circle").symlink_to("circle")

    result = await read(context, ".")

    assert content(result) == [".hidden", "a.txt", "b.txt", "circle", "link/", "sub/"]
    assert note(result) == "(6 entries in all.)"


async def test_a_large_directory_is_listed_in_parts(context: ToolContext) -> None:
    for n in range(25):
        (context.directory / f"{n:02}").touch()

    first = await read(context, ".", limit=10)
    last = await read(context, ".", offset=21, limit=10)

    assert content(first) == [f"{n:02}" for n in range(10)]
    assert note(first) == "(There are more entries. Go on with offset 11.)"
    assert content(last) == ["20", "21", "22", "23", "24"]
    assert note(last) == "(25 entries in all.)"


async def test_a_name_that_is_no_text_can_be_recorded(context: ToolContext) -> None:
    try:
        os.close(os.open(os.fsencode(context.directory) + b"/caf\xe9", os.O_CREAT | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")

    (await read(context, ".")).output.encode()
    with pytest.raises(ToolFailure) as failed:
        await read(context, "cafe")
    failed.value.message.encode()


# --- what is not there ------------------------------------------------------------------------------------------


async def test_a_missing_file_suggests_names_that_are_near(context: ToolContext) -> None:
    for name in ("Readme.md", "server.py", "settings.toml", "unrelated"):
        (context.directory / name).touch()

    for wrong, right in (("README.md", "Readme.md"), ("sever.py", "server.py"), ("settings.json", "settings.toml")):
        with pytest.raises(ToolFailure) as failed:
            await read(context, wrong)
        assert f"Did you mean one of these?\n{context.directory / right}" in failed.value.message
        assert "unrelated" not in failed.value.message


async def test_a_missing_directory_names_the_nearest_that_exists(context: ToolContext) -> None:
    (context.directory / "file").touch()

    for path in ("no/such/place.txt", "file/below.txt"):
        with pytest.raises(ToolFailure, match=f"The nearest directory that exists is {context.directory}"):
            await read(context, path)


@pytest.mark.parametrize("path", ["nul\0", "sur\ud800rogate", "x" * 5000, "circle"])
async def test_paths_that_cannot_be_opened_fail_clearly(context: ToolContext, path: str) -> None:
    (context.directory / "circle").symlink_to("circle")

    with pytest.raises(ToolFailure, match="cannot be"):
        await read(context, path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_file_without_permission_fails_clearly(context: ToolContext) -> None:
    (context.directory / "secret").touch(mode=0)

    with pytest.raises(ToolFailure, match="Permission denied"):
        await read(context, "secret")


async def test_reading_again_gives_the_same(context: ToolContext) -> None:
    """After a crash, `read` is simply run again."""
    (context.directory / "picture.png").write_bytes(PNG)

    assert await read(context, "picture.png") == await read(replace(context), "picture.png")
