"""Finds files and text in a directory, as a developer means it: without what version control ignores, and without `.git`.

 - *Files*: inside a git work tree, what git tracks or would track; elsewhere, and in a directory that git ignores, everything.
   A nested repository that the outer one does not know is left out.
 - *Text*: with ripgrep if there is one (its own ignore files count too), else with a worker of ours, which takes Python's
   regular expressions. Binary files, files over 10 MB and symbolic links are not searched.

All of it is bounded in time and output, and dead when nobody waits any more.
"""

import asyncio
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from holdfast.agent import search_worker
from holdfast.agent.git import Git, GitFailed, is_installed
from holdfast.agent.globs import Glob
from holdfast.agent.programs import Ended, run
from holdfast.core.errors import Invalid, Unavailable
from holdfast.core.workspace import Submatch, Text, TextMatch

FILES_MAX: Final = 200_000
MATCHES_MAX: Final = 100
PATTERN_CHARACTERS_MAX: Final = 1000
FILE_BYTES_MAX: Final = 10 * 1024 * 1024
SECONDS_MAX: Final = 10.0

_LINE_CHARACTERS_MAX: Final = 2000
_OUTPUT_BYTES_MAX: Final = 8 * 1024 * 1024


class Found(msgspec.Struct, frozen=True):
    """File names relative to the directory, sorted; `is_cut` when there were more."""

    names: tuple[bytes, ...]
    is_cut: bool


async def find_files(directory: str) -> Found:
    """Raises Unavailable if it takes too long."""
    if is_installed():
        try:
            return await _tracked(directory)
        except GitFailed:  # not in a work tree, or not in one that git trusts
            pass
    stopped = threading.Event()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            return await asyncio.to_thread(_walk, os.fsencode(directory), stopped)
    except TimeoutError:
        raise _slow() from None
    finally:
        stopped.set()


async def find_text(
    directory: str, pattern: str, *, matches_max: int = MATCHES_MAX, include: str | None = None
) -> tuple[TextMatch, ...]:
    """The first lines that match, in no particular order, in files that match the pattern of file names `include`
    (`agent.globs`). Raises Invalid for a pattern that is none, Unavailable if the search takes too long (as it may for ever
    with some patterns)."""
    if not pattern or "\0" in pattern or len(pattern) > PATTERN_CHARACTERS_MAX:
        raise Invalid(f"A pattern has 1 to {PATTERN_CHARACTERS_MAX} characters and no NUL.", field="pattern")
    try:
        wanted = Glob(include) if include is not None else None
    except ValueError as error:
        raise Invalid(str(error), field="include") from None
    try:
        program = shutil.which("rg")
        if program is not None:
            ended = await _ripgrep(program, directory, pattern, include)
        else:
            ended = await _worker(directory, pattern, matches_max, wanted)
    except TimeoutError:
        raise _slow() from None
    if ended.status == 2 and not ended.output:
        raise Invalid(f"Not a regular expression: {ended.errors[:500]}", field="pattern")
    matches: list[TextMatch] = []
    for match in _matches(ended.output):
        if wanted is not None and not wanted.matches(match.path.text.encode()):
            continue
        matches.append(match)
        if len(matches) == matches_max:
            break
    return tuple(matches)


# --- files ------------------------------------------------------------------------------------------------------


async def _tracked(directory: str) -> Found:
    """Raises GitFailed where git does not say."""
    ended = await Git(directory=directory).run(
        *("ls-files", "-z", "-t", "--cached", "--deleted", "--others", "--exclude-standard"), seconds_max=SECONDS_MAX
    )
    names: set[bytes] = set()
    deleted: set[bytes] = set()
    for field in ended.output.split(b"\0"):
        if field and not field.endswith(b"/"):
            (deleted if field.startswith(b"R") else names).add(field[2:])
    if not names and await _is_ignored(directory):
        raise GitFailed("ls-files", 0, "the directory is ignored")
    found = sorted(names - deleted)
    return Found(tuple(found[:FILES_MAX]), ended.is_cut or len(found) > FILES_MAX)


async def _is_ignored(directory: str) -> bool:
    git = Git(directory=directory, variables={"GIT_LITERAL_PATHSPECS": "0"})  # else this command refuses to work
    return (await git.run("check-ignore", "-q", ".", accept=(0, 1, 128))).status == 0


def _walk(directory: bytes, stopped: threading.Event) -> Found:
    names: list[bytes] = []
    waiting = [b""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(os.path.join(directory, inside)) as entries:
                for entry in entries:
                    if stopped.is_set() or len(names) >= FILES_MAX:
                        return Found(tuple(sorted(names)), True)
                    name = os.path.join(inside, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        if entry.name != b".git":
                            waiting.append(name)
                    elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        names.append(name)
        except OSError:  # gone, or not for us to see
            continue
    return Found(tuple(sorted(names)), False)


# --- text -------------------------------------------------------------------------------------------------------


async def _ripgrep(program: str, directory: str, pattern: str, include: str | None) -> Ended:
    # A first `!` would mean the opposite; here it is a character like any other.
    globs = (f"--glob={'[!]' + include[1:] if include.startswith('!') else include}",) if include else ()
    return await run(
        *(program, "--json", "--no-config", "--no-messages", "--hidden", *globs, "--glob=!.git", "--max-filesize=10M"),
        *(f"--regexp={pattern}", "--", "."),
        directory=directory,
        environment=Git(directory=directory).environment(),
        seconds_max=SECONDS_MAX,
        output_bytes_max=_OUTPUT_BYTES_MAX,
    )


async def _worker(directory: str, pattern: str, matches_max: int, wanted: Glob | None) -> Ended:
    order = {
        "pattern": pattern,
        "matches_max": matches_max,
        "file_bytes_max": FILE_BYTES_MAX,
        "seconds_max": SECONDS_MAX - 2,  # then it says what it has
    }
    names = (await find_files(directory)).names
    if wanted is not None:
        names = await asyncio.to_thread(tuple, filter(wanted.matches, names))
    return await run(
        *(sys.executable, "-I", "-S", search_worker.__file__),
        directory=directory,
        environment={"PYTHONIOENCODING": "utf-8"},
        seconds_max=SECONDS_MAX,
        output_bytes_max=_OUTPUT_BYTES_MAX,
        input=msgspec.json.encode(order) + b"\n" + b"\0".join(names),
    )


class _Blob(msgspec.Struct):
    """Text; base64 if it is not UTF-8."""

    text: str | None = None
    base64: bytes = msgspec.field(name="bytes", default=b"")

    def __str__(self) -> str:
        return self.text if self.text is not None else self.base64.decode(errors="replace")


class _Span(msgspec.Struct):
    match: _Blob
    start: int
    end: int


class _Data(msgspec.Struct):
    path: _Blob
    lines: _Blob
    line_number: int
    absolute_offset: int
    submatches: list[_Span]


class _Match(msgspec.Struct):
    data: _Data


_decoder = msgspec.json.Decoder(_Match)


def _matches(output: bytes) -> Iterator[TextMatch]:
    for line in output.split(b"\n"):
        if not line.startswith(b'{"type": "match"') and not line.startswith(b'{"type":"match"'):
            continue
        try:
            found = _decoder.decode(line).data
        except msgspec.MsgspecError:  # the last line, if the output was cut
            continue
        text = str(found.lines)
        yield TextMatch(
            path=Text(text=str(found.path).removeprefix("./")),
            lines=Text(text=text if len(text) <= _LINE_CHARACTERS_MAX else text[:_LINE_CHARACTERS_MAX]),
            line_number=found.line_number,
            absolute_offset=found.absolute_offset,
            submatches=_submatches(found.submatches),
        )


def _submatches(spans: Sequence[_Span]) -> tuple[Submatch, ...]:
    return tuple(
        Submatch(match=Text(text=str(span.match)[:_LINE_CHARACTERS_MAX]), start=span.start, end=span.end)
        for span in spans[:_SUBMATCHES_MAX]
    )


_SUBMATCHES_MAX: Final = 100


def _slow() -> Unavailable:
    return Unavailable(
        f"The search took longer than {SECONDS_MAX:.0f} s and was stopped.",
        hint="Search in a smaller directory, or with a simpler pattern.",
    )
