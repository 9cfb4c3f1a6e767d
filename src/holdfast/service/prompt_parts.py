"""The parts of a prompt: as a client sends them, and as they are recorded, with the files they name spelled out for the LLM.

A file that the user names is read here, before the prompt is recorded, so what the LLM was told of it is in the log. The
user's word is the permission: no rule is asked, inside the project or out of it. What the content is counts, not what
`mime` says:

 - Text and directories become two synthetic texts, the call of the read tool and its result, before the file part. The
   result carries the file's stamp (`agent.tools.stamps`), so an edit may follow without another read.
 - Images, PDF files, and sound or video that calls itself so become a file part with a `data:` URL.
 - What cannot be read becomes a synthetic text that says why, and no file part. A request that is wrong in itself (no such
   scheme, a broken `data:` URL) is Invalid.
"""

import base64
import binascii
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, unquote_to_bytes, urlsplit

import msgspec
from msgspec.structs import replace

from holdfast.agent.tools import ToolFailure
from holdfast.agent.tools.read import LINES_MAX, attachment_type, is_binary, look
from holdfast.agent.tools.stamps import SEEN
from holdfast.core.errors import Invalid, TooLarge
from holdfast.core.ids import Prefix
from holdfast.core.messages import (
    AgentPart,
    AgentSource,
    FilePart,
    FilePartSource,
    MessageModel,
    Part,
    PartTime,
    ResourceSource,
    SubtaskPart,
    TextPart,
)
from holdfast.core.wire import Wire

DIRECTORY: Final = "application/x-directory"
SPELLED_OUT_BYTES_MAX: Final = 20 * 1024 * 1024
"""What the files of one prompt may add to it, all together."""
TEXT_BYTES_MAX: Final = 1024 * 1024
"""Of a text in a `data:` URL."""

_LINE_MAX: Final = 1_000_000_000
_PLAIN: Final = "text/plain"

# --- what a client sends ----------------------------------------------------------------------------------------


class TextInput(Wire, tag_field="type", tag="text"):
    id: str | None = None
    text: str
    synthetic: bool | None = None
    ignored: bool | None = None
    time: PartTime | None = None
    metadata: dict[str, object] | None = None


class FileInput(Wire, tag_field="type", tag="file"):
    id: str | None = None
    mime: str
    filename: str | None = None
    url: str
    source: FilePartSource | None = None


class AgentInput(Wire, tag_field="type", tag="agent"):
    id: str | None = None
    name: str
    source: AgentSource | None = None


class SubtaskInput(Wire, tag_field="type", tag="subtask"):
    id: str | None = None
    prompt: str
    description: str
    agent: str
    model: MessageModel | None = None
    command: str | None = None


PartInput = TextInput | FileInput | AgentInput | SubtaskInput

# --- what is recorded -------------------------------------------------------------------------------------------


async def spelled_out(
    parts: Sequence[PartInput], *, session_id: str, message_id: str, new_id: Callable[[Prefix], str]
) -> tuple[Part, ...]:
    """The parts as they are recorded. Reads files. Raises Invalid, naming the part."""
    made = _Made(session_id, message_id, new_id)
    for place, part in enumerate(parts):
        match part:
            case TextInput():
                made.add(_text(part, made.id_of(part), session_id, message_id))
            case FileInput():
                await _file(part, made, f"parts[{place}].url")
            case AgentInput(name=name, source=source):
                id = made.id_of(part)
                made.add(AgentPart(id=id, session_id=session_id, message_id=message_id, name=name, source=source))
                made.say(f"Call the task tool with subagent_type {name!r} and a prompt made from this message.")
            case SubtaskInput():
                made.add(_subtask(part, made.id_of(part), session_id, message_id))
    return tuple(made.parts)


class _Made:
    """The parts so far."""

    def __init__(self, session_id: str, message_id: str, new_id: Callable[[Prefix], str]) -> None:
        self.parts: list[Part] = []
        self._session_id = session_id
        self._message_id = message_id
        self._new_id = new_id
        self._bytes_left = SPELLED_OUT_BYTES_MAX

    def id_of(self, part: PartInput) -> str:
        return part.id or self._new_id("prt")

    def add(self, part: Part) -> None:
        self.parts.append(part)

    def say(self, text: str, *, metadata: dict[str, Any] | None = None) -> None:
        """Something that the user did not write and the LLM reads."""
        self.add(
            TextPart(
                id=self._new_id("prt"),
                session_id=self._session_id,
                message_id=self._message_id,
                text=text,
                synthetic=True,
                metadata=metadata,
            )
        )

    def file(self, part: FileInput, *, mime: str, url: str) -> None:
        self.add(
            FilePart(
                id=self.id_of(part),
                session_id=self._session_id,
                message_id=self._message_id,
                mime=mime,
                filename=part.filename,
                url=url,
                source=part.source,
            )
        )

    def takes(self, size: int) -> bool:
        """Whether so many bytes more are within what a prompt may have."""
        self._bytes_left -= size
        return self._bytes_left >= 0


async def _file(part: FileInput, made: _Made, field: str) -> None:
    if isinstance(part.source, ResourceSource):
        made.say(f"The resource {part.source.uri} of {part.source.client_name} could not be read.")
        return
    scheme = part.url.partition(":")[0].lower()
    if scheme == "file":
        await _local(part, _place(part.url, field), made)
    elif scheme == "data":
        _inline(part, made, field)
    elif scheme in ("http", "https"):
        made.file(part, mime=part.mime, url=part.url)
    else:
        raise Invalid("The url of a file begins with file:, data:, https: or http:.", field=field)


# --- files of this machine


class _Place(NamedTuple):
    """`first` and `last` are lines, from 1; None is the beginning, the end."""

    path: Path
    first: int | None
    last: int | None


def _place(url: str, field: str) -> _Place:
    try:
        parts = urlsplit(url)
        path = unquote(parts.path, errors="strict")
        first, last = (_line(parts, name, field) for name in ("start", "end"))
    except UnicodeDecodeError:
        raise Invalid("The path of a file: URL is UTF-8.", field=field) from None
    except ValueError as error:
        raise Invalid(f"Not a file: URL: {error}.", field=field) from None
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise Invalid("A file: URL names an absolute path of this machine.", field=field)
    if first is not None and last is not None and last < first:
        raise Invalid("The end of a range of lines is not before its start.", field=field)
    return _Place(Path(path), first, last)


def _line(url: SplitResult, name: str, field: str) -> int | None:
    given = parse_qs(url.query).get(name)
    if given is None:
        return None
    if not given[-1].isdecimal() or int(given[-1]) > _LINE_MAX:
        raise Invalid(f"{name} is the number of a line.", field=field)
    return max(int(given[-1]), 1)


async def _local(part: FileInput, place: _Place, made: _Made) -> None:
    first = place.first or 1
    count = place.last - first + 1 if place.last is not None else LINES_MAX
    range = {"offset": place.first} if place.first else {}
    made.say(_called({"filePath": str(place.path), **range, **({"limit": count} if place.last is not None else {})}))
    binary = part.mime if part.mime.startswith(("audio/", "video/")) else None
    try:
        path = Path(os.path.realpath(place.path))
        found = await look(path, first, count, binary=binary)
    except ToolFailure as failure:
        made.say(f"It failed: {failure.message}")
        return
    shown = found.attachment.url if found.attachment else found.output
    if not made.takes(len(shown.encode())):
        limit = f"{SPELLED_OUT_BYTES_MAX // 1024 // 1024} MB"
        made.say(f"It failed: the files of this message are larger than {limit} together. Read it when you need it.")
    elif found.attachment is not None:
        made.file(part, mime=found.attachment.mime, url=found.attachment.url)
    else:
        made.say(found.output, metadata={SEEN: found.metadata[SEEN]} if SEEN in found.metadata else None)
        made.file(part, mime=DIRECTORY if found.is_directory else _text_type(part.mime), url=part.url)


# --- files in the request


def _inline(part: FileInput, made: _Made, field: str) -> None:
    data = _content(part.url, field)
    sniffed = attachment_type(data)
    if sniffed is not None:
        made.file(part, mime=sniffed, url=_with_type(part.url, sniffed))
        return
    text = _decoded(data)
    if text is None:
        if _is_text_type(part.mime):
            raise Invalid(f"The content of a file is not {part.mime}.", field=field)
        made.file(part, mime=part.mime, url=part.url)
        return
    if len(data) > TEXT_BYTES_MAX:
        raise TooLarge(f"A text in a message is at most {TEXT_BYTES_MAX // 1024} KB.", field=field)
    made.say(_called({"filePath": part.filename or "(no name)"}))
    made.say(text)
    made.file(part, mime=_text_type(part.mime), url=part.url)


def _content(url: str, field: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise Invalid("A data: URL has a comma before its data.", field=field)
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode("".join(unquote(body).split()), validate=True)
    except (binascii.Error, ValueError):
        raise Invalid("The data of this data: URL is not base64.", field=field) from None


def _with_type(url: str, mime: str) -> str:
    """The same data under the name of what it is."""
    head, _, body = url.partition(",")
    return f"data:{mime}{';base64' if head.lower().endswith(';base64') else ''},{body}"


def _decoded(data: bytes) -> str | None:
    try:
        return None if is_binary(data[:8192]) or b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return None


# --- the rest


def _is_text_type(mime: str) -> bool:
    return mime.startswith("text/") or mime in ("application/json", "application/xml")


def _text_type(mime: str) -> str:
    """What a text that was spelled out is called: the conversation leaves texts out, since they are in it already."""
    return mime if mime.startswith("text/") else _PLAIN


def _called(input: dict[str, Any]) -> str:
    return f"The read tool was called with this input: {msgspec.json.encode(input).decode()}"


def _text(part: TextInput, id: str, session_id: str, message_id: str) -> TextPart:
    # A user's text is complete: without an end it would count as still growing.
    time = replace(part.time, end=part.time.start) if part.time and part.time.end is None else part.time
    return TextPart(
        id=id,
        session_id=session_id,
        message_id=message_id,
        text=part.text,
        synthetic=part.synthetic,
        ignored=part.ignored,
        time=time,
        metadata=part.metadata,
    )


def _subtask(part: SubtaskInput, id: str, session_id: str, message_id: str) -> SubtaskPart:
    return SubtaskPart(
        id=id,
        session_id=session_id,
        message_id=message_id,
        prompt=part.prompt,
        description=part.description,
        agent=part.agent,
        model=part.model,
        command=part.command,
    )
