"""The tool `read`: a part of a text file with line numbers, the entries of a directory, or an image or PDF as an attachment.

Never loads more than it shows, whatever the size of the file, and never waits: pipes and devices are refused.
"""

import asyncio
import base64
import difflib
import heapq
import itertools
import os
import stat
import threading
from collections.abc import Sequence
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from holdfast.agent.permissions import Ask
from holdfast.agent.tools.base import ToolContext, ToolFailure, ToolResult
from holdfast.agent.tools.diagnostics import CodeChecks
from holdfast.agent.tools.places import external, is_inside, resolved, shown
from holdfast.agent.tools.stamps import SEEN, stamp_of_file
from holdfast.core.messages import FilePart, ToolPart

LINES_MAX: Final = 2000
BYTES_MAX: Final = 50 * 1024
LINE_CHARACTERS_MAX: Final = 2000
ATTACHMENT_BYTES_MAX: Final = 5 * 1024 * 1024

_SAMPLE_BYTES: Final = 8192
_BYTE_ORDER_MARK: Final = "\ufeff"
_SKIP_BYTES: Final = 1024 * 1024
_PREVIEW_LINES: Final = 20
_SUGGESTIONS_MAX: Final = 3
_NAMES_COMPARED_MAX: Final = 2000
_CONTROL_SHARE_MAX: Final = 0.1

_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"%PDF-", "application/pdf"),
)
_TEXT_CONTROLS: Final = frozenset(b"\t\n\v\f\r\b\x1b")


class Read:
    id = "read"
    repeatable = True
    description = f"""\
Reads a file, or lists a directory.

- `filePath` may be absolute or relative to the project directory.
- A text file is shown with a number before each line (`12: text`); the number is not part of the file. A call shows at most
  {LINES_MAX} lines or {BYTES_MAX // 1024} KB; go on with `offset` as the end of the result says. Lines longer than
  {LINE_CHARACTERS_MAX} characters are cut.
- A directory is listed by name; directories in it end with a slash.
- Images (PNG, JPEG, GIF, WebP) and PDF files are attached for you to look at. Other binary files cannot be read.
- To find the right place in a large file, search it first instead of reading it in small pieces."""
    parameters: dict[str, Any] = {  # noqa: RUF012 - the port's shape; nobody writes to it
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "filePath": {"type": "string", "minLength": 1, "description": "The file or directory to read"},
            "offset": {"type": "integer", "minimum": 0, "description": "The line to start at (default 1, the first)"},
            "limit": {
                "type": "integer",
                "minimum": 0,
                "description": f"How many lines to show (default and most: {LINES_MAX})",
            },
        },
        "required": ["filePath"],
    }

    def __init__(self, checks: CodeChecks | None = None) -> None:
        """`checks` are told of what is read."""
        self._checks = checks

    async def asks(self, input: dict[str, Any], context: ToolContext) -> Sequence[Ask]:
        path = resolved(context, input["filePath"])
        return [
            *external(context, path, is_directory=await asyncio.to_thread(path.is_dir)),
            Ask(permission="read", patterns=(shown(context, path),), always=("*",)),
        ]

    async def run(self, input: dict[str, Any], context: ToolContext) -> ToolResult:
        path = resolved(context, input["filePath"])
        # Some LLMs fill optional numbers with 0 when they mean none.
        found = await look(path, int(input.get("offset", 0)) or 1, int(input.get("limit", 0)) or LINES_MAX)
        attachment = found.attachment
        if SEEN in found.metadata:
            self._show(path, context)
        return ToolResult(
            title=shown(context, path),
            output=found.output,
            metadata=found.metadata,
            attachments=(_file_part(attachment, context),) if attachment is not None else (),
        )

    async def clean_up(self, part: ToolPart) -> None:
        """It only read."""

    def _show(self, path: Path, context: ToolContext) -> None:
        checks = self._checks
        if checks is not None and checks.take(context.directory, str(path)) and is_inside(context, path):
            checks.read(context.directory, str(path))


class Attached(NamedTuple):
    """A file that is no text but can be shown to an LLM. `url` is a `data:` URL."""

    mime: str
    filename: str
    url: str


class Found(NamedTuple):
    """What there is to see of a path. `metadata` has the stamp of a text file (`stamps.SEEN`)."""

    output: str
    metadata: dict[str, Any]
    attachment: Attached | None = None
    is_directory: bool = False


async def look(path: Path, first: int = 1, count: int = LINES_MAX, *, binary: str | None = None) -> Found:
    """At most `count` lines (or entries) of a file (or directory) from the `first` on. `path` is absolute, without links.
    `binary`: attach what is neither text, image nor PDF as this type. Raises ToolFailure, with what is wrong and what may
    have been meant."""
    if _printable(str(path)) != str(path):  # it would be shown, and recorded, as another one
        raise ToolFailure(
            f"The name of {_printable(str(path))} is not valid text, so the file cannot be read by its name."
        )
    stopped = threading.Event()
    try:
        return await asyncio.to_thread(_look, path, first, min(count, LINES_MAX), binary, stopped)
    except OSError as error:
        raise ToolFailure(f"{path} cannot be read: {error.strerror}.") from error
    finally:
        stopped.set()


def is_binary(sample: bytes) -> bool:
    """Whether the beginning of a file shows that it is no text."""
    controls = sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in sample)
    return b"\0" in sample or controls > _CONTROL_SHARE_MAX * len(sample)


def attachment_type(sample: bytes) -> str | None:
    """The media type of an image or PDF, told by how it begins; None if it is neither."""
    if sample.startswith(b"RIFF") and sample[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for magic, mime in _MAGIC if sample.startswith(magic)), None)


def _look(path: Path, first: int, count: int, binary: str | None, stopped: threading.Event) -> Found:
    try:
        # O_NONBLOCK: to open a named pipe would otherwise wait for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ToolFailure(_not_found(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            return _directory(descriptor, path, first, count)._replace(is_directory=True)
        if not stat.S_ISREG(mode):
            raise ToolFailure(
                f"{path} is neither a file nor a directory, but a device, pipe or socket: it cannot be read."
            )
        with BufferedReader(FileIO(descriptor, closefd=False), _SAMPLE_BYTES) as file:
            sample = file.peek()
            if (mime := attachment_type(sample)) is not None:
                return _attachment(file, path, mime)
            if is_binary(sample) and binary is not None:
                return _attachment(file, path, binary)
            if is_binary(sample):
                raise ToolFailure(
                    f"{path} is a binary file and cannot be shown as text. To learn what is in it, run a program for its "
                    "format with the bash tool."
                )
            # The stamp before the text: what changes in between makes the stamp too old, never too new.
            stamp = stamp_of_file(descriptor)
            found = _text(file, path, first, count, stopped)
            if stamp is None:
                return found
            return found._replace(metadata={**found.metadata, SEEN: {os.path.realpath(path): stamp}})
    finally:
        os.close(descriptor)


# --- text -------------------------------------------------------------------------------------------------------


def _text(file: "BufferedReader[FileIO]", path: Path, first: int, count: int, stopped: threading.Event) -> Found:
    lines_before = _skip_lines(file, first - 1, stopped)
    if lines_before < first - 1 or (first > 1 and not file.peek(1)):
        raise ToolFailure(f"{path} has only {lines_before} lines: offset {first} is behind its end.")
    shown: list[str] = []
    number = first
    bytes_left = BYTES_MAX
    is_more = False
    while len(shown) < count and (line := _next_line(file, stopped)) is not None:
        text = f"{number}: {line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line}"
        bytes_left -= len(text.encode()) + 1
        if bytes_left < 0:
            is_more = True
            break
        shown.append(text)
        number += 1
    if is_more or file.peek(1):
        note = f"(Lines {first} to {number - 1}. Go on with offset {number}.)"
        return _page(path, shown, note, True)
    note = f"(End of the file, {number - 1} lines in all.)" if number > 1 else "(The file is empty.)"
    return _page(path, shown, note, False)


def _skip_lines(file: "BufferedReader[FileIO]", count: int, stopped: threading.Event) -> int:
    """Go behind the first `count` lines; how many there were, if the file has less."""
    skipped = 0
    unfinished = False
    while skipped < count and not stopped.is_set():
        block = file.read(_SKIP_BYTES)
        if not block:
            return skipped + unfinished
        newlines = block.count(b"\n")
        if skipped + newlines < count:
            skipped += newlines
            unfinished = not block.endswith(b"\n")
            continue
        end = 0
        for _ in range(count - skipped):
            end = block.index(b"\n", end) + 1
        file.seek(end - len(block), os.SEEK_CUR)
        return count
    return skipped


def _next_line(file: "BufferedReader[FileIO]", stopped: threading.Event) -> str | None:
    """The next line without its end, cut if it is too long; None at the end of the file."""
    line = file.readline(4 * LINE_CHARACTERS_MAX + 2)
    if not line:
        return None
    is_whole = line.endswith(b"\n")
    text = line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="replace")
    if len(text) <= LINE_CHARACTERS_MAX:
        return text
    while not is_whole and not stopped.is_set():
        rest = file.readline(_SKIP_BYTES)
        is_whole = not rest or rest.endswith(b"\n")
    return f"{text[:LINE_CHARACTERS_MAX]} … (cut: the line is longer than {LINE_CHARACTERS_MAX} characters)"


# --- the rest ---------------------------------------------------------------------------------------------------


def _directory(descriptor: int, path: Path, first: int, count: int) -> Found:
    with os.scandir(descriptor) as entries:
        names = (f"{entry.name}/" if _is_directory(entry) else entry.name for entry in entries)
        found = heapq.nsmallest(first + count, names)
    shown = [_printable(name) for name in found[first - 1 : first - 1 + count]]
    if len(found) == first + count:
        return _page(path, shown, f"(There are more entries. Go on with offset {first + count}.)", True)
    return _page(path, shown, f"({len(found)} entries in all.)", False)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def _attachment(file: "BufferedReader[FileIO]", path: Path, mime: str) -> Found:
    data = file.read(ATTACHMENT_BYTES_MAX + 1)
    if len(data) > ATTACHMENT_BYTES_MAX:
        raise ToolFailure(
            f"{path} is larger than {ATTACHMENT_BYTES_MAX // 1024 // 1024} MB, the most that can be attached. Make a smaller "
            "copy with the bash tool and read that."
        )
    kind = "PDF file" if mime == "application/pdf" else "image" if mime.startswith("image/") else "file"
    said = f"The {kind} is attached."
    url = f"data:{mime};base64,{base64.b64encode(data).decode()}"
    return Found(said, {"preview": said, "truncated": False}, Attached(mime, path.name, url))


def _file_part(attachment: Attached, context: ToolContext) -> FilePart:
    return FilePart(
        id=f"{context.part_id}-1",
        session_id=context.session_id,
        message_id=context.message_id,
        mime=attachment.mime,
        filename=attachment.filename,
        url=attachment.url,
    )


def _page(path: Path, lines: list[str], note: str, truncated: bool) -> Found:
    body = "".join(f"{line}\n" for line in lines)
    return Found(
        f"<path>{path}</path>\n<content>\n{body}</content>\n{note}",
        {"preview": "\n".join(lines[:_PREVIEW_LINES]), "truncated": truncated},
    )


def _not_found(path: Path) -> str:
    """What is wrong with the path, and which one may have been meant."""
    if not path.parent.is_dir():
        nearest = next(parent for parent in path.parents if parent.is_dir())
        return f"There is no {path}. The nearest directory that exists is {nearest}."
    with os.scandir(path.parent) as entries:
        names = {entry.name.lower(): entry.name for entry in itertools.islice(entries, _NAMES_COMPARED_MAX)}
    wanted = path.name.lower()
    close = difflib.get_close_matches(wanted, names, n=_SUGGESTIONS_MAX)
    close += sorted(
        name for name in names if name not in close and (wanted in name or Path(name).stem == Path(wanted).stem)
    )
    if not close:
        return f"There is no {path}."
    meant = "\n".join(_printable(str(path.parent / names[name])) for name in close[:_SUGGESTIONS_MAX])
    return f"There is no {path}. Did you mean one of these?\n{meant}"


def _printable(name: str) -> str:
    """A file's name may be any bytes; what is recorded is text."""
    return os.fsencode(name).decode(errors="replace")
