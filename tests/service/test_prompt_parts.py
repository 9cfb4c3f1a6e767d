import base64
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.agent.tools.stamps import seen_in, stamp_of
from holdfast.core.errors import Invalid, TooLarge
from holdfast.core.messages import FilePart, FileSource, Part, ResourceSource, SourceText, TextPart
from holdfast.service import prompt_parts
from holdfast.service.prompt_parts import AgentInput, FileInput, PartInput, SubtaskInput, TextInput, spelled_out

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


async def recorded(*parts: PartInput) -> Sequence[Part]:
    numbers = itertools.count(1)
    return await spelled_out(
        parts, session_id="ses_1", message_id="msg_1", new_id=lambda prefix: f"{prefix}_{next(numbers)}"
    )


async def one(url: str, *, mime: str = "text/plain", **more: Any) -> Sequence[Part]:
    return await recorded(FileInput(mime=mime, url=url, **more))


def kinds(parts: Sequence[Part]) -> list[str]:
    return [part.__struct_config__.tag for part in parts]  # type: ignore[misc]


def said(part: Part) -> str:
    assert isinstance(part, TextPart)
    assert part.synthetic
    return part.text


def file_of(part: Part) -> FilePart:
    assert isinstance(part, FilePart)
    return part


def data_url(data: bytes, mime: str = "text/plain") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    file = tmp_path / "some notes.txt"
    file.write_text("one\ntwo\nthree\nfour\n")
    return file


async def test_a_text_file_is_read_for_the_llm_before_the_file_part(notes: Path):
    call, content, file = await one(notes.as_uri(), filename="some notes.txt", id="prt_mine")

    assert said(call).endswith(f'{{"filePath":"{notes}"}}')
    assert "1: one\n2: two\n3: three\n4: four\n" in said(content)
    assert ("prt_mine", "text/plain", notes.as_uri()) == (file.id, file_of(file).mime, file_of(file).url)


async def test_what_was_read_counts_as_seen_so_that_an_edit_may_follow(notes: Path):
    _, content, _ = await one(notes.as_uri())
    assert seen_in(content) == {str(notes): stamp_of(notes.read_bytes())}


async def test_a_range_of_lines_is_read_alone_and_the_stamp_is_of_the_whole_file(notes: Path):
    call, content, file = await one(f"{notes.as_uri()}?start=2&end=3")

    assert said(call).endswith('"offset":2,"limit":2}')
    assert "2: two\n3: three\n" in said(content)
    assert "1: one" not in said(content)
    assert "4: four" not in said(content)
    assert file_of(file).url == f"{notes.as_uri()}?start=2&end=3"
    assert seen_in(content) == {str(notes): stamp_of(notes.read_bytes())}


async def test_a_range_without_an_end_goes_to_the_end(notes: Path):
    call, content, _ = await one(f"{notes.as_uri()}?start=3")
    assert said(call).endswith('"offset":3}')
    assert "3: three\n4: four\n" in said(content)
    assert "2: two" not in said(content)


async def test_a_directory_is_listed_whatever_the_request_calls_it(tmp_path: Path, notes: Path):
    _, content, file = await one(tmp_path.as_uri())
    assert "some notes.txt" in said(content)
    assert file_of(file).mime == "application/x-directory"


async def test_an_image_is_attached_under_what_it_is_and_not_under_what_it_is_called(tmp_path: Path):
    (tmp_path / "dot").write_bytes(PNG)
    call, file = await one((tmp_path / "dot").as_uri(), filename="dot")
    assert "read tool" in said(call)
    assert (file_of(file).mime, file_of(file).filename) == ("image/png", "dot")
    assert file_of(file).url == data_url(PNG, "image/png")


async def test_a_text_that_is_called_something_else_is_read_as_text(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"a": 1}\n')
    _, content, file = await one((tmp_path / "a.json").as_uri(), mime="application/json")
    assert '1: {"a": 1}' in said(content)
    assert file_of(file).mime == "text/plain"


async def test_sound_is_attached_when_it_says_that_it_is_sound(tmp_path: Path):
    (tmp_path / "a.wav").write_bytes(bytes(range(256)))
    _, file = await one((tmp_path / "a.wav").as_uri(), mime="audio/wav")
    assert file_of(file).url == data_url(bytes(range(256)), "audio/wav")


@pytest.mark.parametrize("mime", ["text/plain", "application/octet-stream"])
async def test_other_binary_files_are_refused_with_words_for_the_llm(tmp_path: Path, mime: str):
    (tmp_path / "a.bin").write_bytes(bytes(range(256)))
    _, failure = await one((tmp_path / "a.bin").as_uri(), mime=mime)
    assert "binary" in said(failure)


async def test_a_file_that_is_not_there_is_a_failed_read_and_not_a_failed_prompt(notes: Path):
    _, failure = await one((notes.parent / "some note.txt").as_uri())
    assert "There is no" in said(failure)
    assert str(notes) in said(failure), "what may have been meant"


async def test_a_pipe_is_not_waited_for(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    _, failure = await one((tmp_path / "pipe").as_uri())
    assert "cannot be read" in said(failure)


async def test_a_name_that_is_too_long_is_a_failed_read(tmp_path: Path):
    _, failure = await one(f"{tmp_path.as_uri()}/{'x' * 5000}")
    assert said(failure).startswith("It failed: ")


async def test_an_attachment_over_the_limit_is_a_failed_read(tmp_path: Path):
    (tmp_path / "big.png").write_bytes(PNG + bytes(6 * 1024 * 1024))
    _, failure = await one((tmp_path / "big.png").as_uri(), mime="image/png")
    assert "larger than 5 MB" in said(failure)


async def test_the_files_of_a_prompt_have_a_limit_together(notes: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prompt_parts, "SPELLED_OUT_BYTES_MAX", 200)
    parts = await recorded(*(FileInput(mime="text/plain", url=notes.as_uri()) for _ in range(2)))
    assert kinds(parts) == ["text", "text", "file", "text", "text"]
    assert said(parts[-1]).startswith("It failed: the files of this message")


@pytest.mark.parametrize("url", ["data:text/plain;base64,aMOkbGxv", "data:text/plain,h%C3%A4llo", "data:,h%C3%A4llo"])
async def test_a_text_in_the_request_is_shown_to_the_llm(url: str):
    call, content, file = await one(url, filename="a.txt")
    assert said(call).endswith('{"filePath":"a.txt"}')
    assert said(content) == "hällo"
    assert file_of(file).url == url


async def test_an_image_in_the_request_stays_as_it_is():
    (file,) = await one(data_url(PNG, "image/png"), mime="image/png", filename="a.png")
    assert (file_of(file).mime, file_of(file).url) == ("image/png", data_url(PNG, "image/png"))


async def test_an_image_in_the_request_that_is_called_another_kind_gets_its_own_name():
    (file,) = await one(data_url(PNG, "image/jpeg"), mime="image/jpeg")
    assert (file_of(file).mime, file_of(file).url) == ("image/png", data_url(PNG, "image/png"))


async def test_a_file_on_the_web_is_named_to_the_llm_as_it_is():
    (file,) = await one("https://example.org/a.png", mime="image/png")
    assert file_of(file).url == "https://example.org/a.png"


async def test_the_place_in_the_text_stays_with_the_file(notes: Path):
    source = FileSource(text=SourceText(value="@some notes.txt", start=4, end=19), path=str(notes))
    *_, file = await one(notes.as_uri(), source=source)
    assert file_of(file).source == source


async def test_a_resource_of_a_server_that_is_not_there_is_a_failed_read():
    source = ResourceSource(text=SourceText(value="@x", start=0, end=2), client_name="nobody", uri="x://y")
    (failure,) = await one("x://y", source=source)
    assert "could not be read" in said(failure)


@pytest.mark.parametrize(
    ("url", "mime"),
    [
        ("notes.txt", "text/plain"),
        ("ftp://example.org/a", "text/plain"),
        ("", "text/plain"),
        ("data:nonsense", "text/plain"),
        ("data:text/plain;base64,%%%", "text/plain"),
        ("data:text/plain;base64,AAECAwQFBgc=", "text/plain"),
        ("file://elsewhere/etc/hostname", "text/plain"),
        ("file:relative", "text/plain"),
        ("file:///a%00b", "text/plain"),
        ("file:///a%ffb", "text/plain"),
        ("file:///a?start=x", "text/plain"),
        ("file:///a?start=-1", "text/plain"),
        ("file:///a?start=4&end=3", "text/plain"),
        ("file:///a?start=99999999999999999999", "text/plain"),
        ("file://[/a", "text/plain"),
    ],
)
async def test_a_url_that_is_wrong_in_itself_is_refused_with_the_part_that_has_it(url: str, mime: str):
    with pytest.raises(Invalid) as refused:
        await recorded(TextInput(text="look"), FileInput(mime=mime, url=url))
    assert refused.value.field == "parts[1].url"


async def test_a_text_in_the_request_over_the_limit_is_refused():
    with pytest.raises(TooLarge):
        await one(data_url(b"x" * (1024 * 1024 + 1)))


async def test_an_agent_that_is_named_is_to_be_called():
    agent, hint = await recorded(AgentInput(name="explore"))
    assert kinds([agent, hint]) == ["agent", "text"]
    assert "task tool" in said(hint)
    assert "explore" in said(hint)


async def test_parts_keep_their_order_and_their_ids(notes: Path):
    parts = await recorded(
        TextInput(text="before", id="prt_a"),
        FileInput(mime="text/plain", url=notes.as_uri(), id="prt_b"),
        SubtaskInput(prompt="p", description="d", agent="general", id="prt_c"),
    )
    assert kinds(parts) == ["text", "text", "text", "file", "subtask"]
    assert [part.id for part in parts if part.id in ("prt_a", "prt_b", "prt_c")] == ["prt_a", "prt_b", "prt_c"]
