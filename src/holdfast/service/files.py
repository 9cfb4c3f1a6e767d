"""What a client may see of the files of a project directory: lists, contents, searches.

Nothing outside of the directory is reachable, not by `..`, not by an absolute path and not through a symbolic link; what
is opened is opened step by step without following links, so that nobody can swap a directory in between. Pipes, devices
and sockets are refused without waiting for them. Everything here only reads, off the event loop.
"""

import asyncio
import base64
import errno
import heapq
import mimetypes
import os
import re
import stat
from collections.abc import Iterable
from typing import Final, Literal

from holdfast.agent import search
from holdfast.agent.git import FULL_CONTEXT, Git, Hunk, changes, hunks, is_installed, split
from holdfast.agent.git import patches as git_patches
from holdfast.core.errors import Invalid, NotFound, TooLarge, Unavailable
from holdfast.core.workspace import (
    FileChange,
    FileContent,
    FileNode,
    FilePatch,
    PatchHunk,
    TextMatch,
)
from holdfast.service.vcs import changed_files

CONTENT_BYTES_MAX: Final = 10 * 1024 * 1024
ENTRIES_MAX: Final = 10_000
FOUND_MAX: Final = 10
FOUND_MAX_MAX: Final = 200

_PATH_CHARACTERS_MAX: Final = 4096
_DIFF_BYTES_MAX: Final = 1024 * 1024
_SAMPLE_BYTES: Final = 8192
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
)

FileType = Literal["file", "directory"]


class FileService:
    """Of any project directory; each method is given the directory (absolute, without links)."""

    async def find_text(self, directory: str, pattern: str) -> tuple[TextMatch, ...]:
        """Raises Invalid for what is no regular expression."""
        return await search.find_text(directory, pattern)

    async def find_files(
        self, directory: str, query: str, *, type: FileType | None = None, dirs: bool = True, limit: int = FOUND_MAX
    ) -> tuple[str, ...]:
        """Paths that contain the characters of the query in that order, the closest match first; directories end with a
        slash, and are left out without `dirs`."""
        if not 1 <= limit <= FOUND_MAX_MAX:
            raise Invalid(f"limit is 1 to {FOUND_MAX_MAX}.", field="limit")
        found = await search.find_files(directory)
        return await asyncio.to_thread(_closest, found.names, query[:_PATH_CHARACTERS_MAX], type, dirs, limit)

    async def list(self, directory: str, path: str) -> tuple[FileNode, ...]:
        """The entries of a directory, directories first, then by name; at most ENTRIES_MAX. What is neither a file nor a
        directory, and links that lead out, are left out. Raises NotFound, Invalid."""
        nodes = await asyncio.to_thread(_list, directory, path)
        ignored = await _ignored(directory, [node.path for node in nodes])
        return tuple(
            FileNode(name=node.name, path=node.path, absolute=node.absolute, type=node.type, ignored=True)
            if node.path.rstrip("/") in ignored
            else node
            for node in nodes
        )

    async def read(self, directory: str, path: str) -> FileContent:
        """Raises NotFound; Invalid for what is no file in the directory; TooLarge over CONTENT_BYTES_MAX."""
        data = await asyncio.to_thread(_read, directory, path)
        try:
            if b"\0" in data:
                raise UnicodeDecodeError("utf-8", b"", 0, 1, "NUL")
            text = data.decode()
        except UnicodeDecodeError:
            mime = _mime(path, data)
            content = base64.b64encode(data).decode()
            return FileContent(type="binary", content=content, encoding="base64", mime_type=mime)
        diff = await _difference(directory, path)
        return FileContent(type="text", content=text, diff=diff, patch=_structured(path, diff) if diff else None)

    async def status(self, directory: str) -> tuple[FileChange, ...]:
        """Files in the directory that differ from the last commit, the new ones included. Empty outside of git."""
        return tuple(
            FileChange(path=change.file, added=change.additions, removed=change.deletions, status=change.status)
            for change in await changed_files(directory, below=directory)
        )


# --- paths ------------------------------------------------------------------------------------------------------


def inside(directory: str, path: str) -> str:
    """The path relative to the directory, without links, "" for the directory itself. Raises Invalid if it leads out,
    NotFound if there is nothing."""
    if "\0" in path or len(path) > _PATH_CHARACTERS_MAX:
        raise Invalid(f"A path has at most {_PATH_CHARACTERS_MAX} characters and no NUL.", field="path")
    try:
        resolved = os.path.realpath(os.path.join(directory, path))
    except (OSError, ValueError):
        raise Invalid(f"Not a path: {path[:200]!r}", field="path") from None
    if resolved == directory:
        return ""
    below = directory.rstrip("/") + "/"
    if not resolved.startswith(below):
        raise Invalid(f"The path leads out of the project directory: {path[:200]!r}", field="path")
    if not os.path.lexists(resolved):
        raise NotFound("File", path[:200])
    return resolved.removeprefix(below)


def _open(directory: str, path: str) -> int:
    """A descriptor of a file or directory inside. It never waits, and never follows a link."""
    relative = inside(directory, path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(directory, flags | os.O_DIRECTORY)
    except OSError as error:  # it was there a moment ago
        raise Invalid(
            f"The directory {directory[:200]!r} cannot be opened: {error.strerror}", field="directory"
        ) from None
    try:
        *parents, name = relative.split("/") if relative else ["."]
        for parent in parents:
            above, descriptor = descriptor, os.open(parent, flags | os.O_DIRECTORY, dir_fd=descriptor)
            os.close(above)
        return os.open(name, flags, dir_fd=descriptor)
    except FileNotFoundError:
        raise NotFound("File", path[:200]) from None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EINVAL, errno.ENODEV):
            raise Invalid(f"Neither a file nor a directory: {path[:200]!r}", field="path") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise Invalid(f"The server may not read {path[:200]!r}", field="path") from None
        raise Unavailable(f"{path[:200]!r} cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


# --- lists and contents -----------------------------------------------------------------------------------------


def _list(directory: str, path: str) -> list[FileNode]:
    descriptor = _open(directory, path)
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise Invalid(f"Not a directory: {path[:200]!r}", field="path")
        relative = inside(directory, path)
        with os.scandir(descriptor) as entries:
            found = heapq.nsmallest(ENTRIES_MAX, _entries(entries, os.path.join(directory, relative), directory))
    finally:
        os.close(descriptor)
    return [
        FileNode(
            name=name,
            path=os.path.join(relative, name) + ("/" if type == "directory" else ""),
            absolute=os.path.join(directory, relative, name),
            type=type,
            ignored=False,
        )
        for type, name in found
    ]


def _entries(entries: Iterable[os.DirEntry[str]], place: str, directory: str) -> Iterable[tuple[FileType, str]]:
    """Sorts as listed: "directory" goes before "file"."""
    for entry in entries:
        try:
            entry.name.encode()
            if entry.is_symlink():
                inside(directory, os.path.join(place, entry.name))
                found = os.stat(os.path.join(place, entry.name)).st_mode
            elif entry.is_dir(follow_symlinks=False):
                found = stat.S_IFDIR
            else:
                found = stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0
        except (OSError, UnicodeEncodeError, Invalid, NotFound):
            continue
        if stat.S_ISDIR(found):
            yield "directory", entry.name
        elif stat.S_ISREG(found):
            yield "file", entry.name


async def _ignored(directory: str, paths: list[str]) -> set[str]:
    if not paths or not is_installed():
        return set()
    listed = b"".join(os.fsencode(path.rstrip("/")) + b"\0" for path in paths)
    # This command takes names only, and refuses to be told so. 1: none of them; 128: not in a git work tree.
    git = Git(directory=directory, variables={"GIT_LITERAL_PATHSPECS": "0"})
    ended = await git.run("check-ignore", "-z", "--stdin", input=listed, accept=(0, 1, 128))
    return {os.fsdecode(name) for name in split(ended.output)}


def _read(directory: str, path: str) -> bytes:
    descriptor = _open(directory, path)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise Invalid(f"Not a file: {path[:200]!r}", field="path")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(CONTENT_BYTES_MAX + 1) if found.st_size <= CONTENT_BYTES_MAX else b""
    finally:
        os.close(descriptor)
    if found.st_size > CONTENT_BYTES_MAX or len(data) > CONTENT_BYTES_MAX:
        raise TooLarge(
            f"{path[:200]!r} has {found.st_size} bytes, more than the {CONTENT_BYTES_MAX} that are sent.",
            field="path",
        )
    return data


def _mime(path: str, data: bytes) -> str:
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "image/webp"
    for magic, mime in _MAGIC:
        if data.startswith(magic):
            return mime
    guessed, encoding = mimetypes.guess_type(path)
    is_telling = guessed is not None and encoding is None and not guessed.startswith("text/")
    return guessed if is_telling and guessed is not None else "application/octet-stream"


async def _difference(directory: str, path: str) -> str | None:
    """What changed in one file since the last commit; None if nothing, or if git does not know it."""
    if not is_installed():
        return None
    git = Git(directory=directory)
    name = inside(directory, path)
    between = ("diff", "--relative", "HEAD")
    try:
        found = [change for change in await changes(git, *between, names=(name,)) if not change.is_binary]
        shown = await git_patches(git, found, *between, context=FULL_CONTEXT, bytes_max=_DIFF_BYTES_MAX)
    except Unavailable:  # no commit yet, no git: the file is there all the same
        return None
    return next(iter(shown.values()), None)


def _structured(path: str, diff: str) -> FilePatch:
    return FilePatch(
        old_file_name=path,
        new_file_name=path,
        old_header="",
        new_header="",
        hunks=tuple(_hunk(hunk) for hunk in hunks(diff)),
    )


def _hunk(hunk: Hunk) -> PatchHunk:
    return PatchHunk(
        old_start=hunk.old_start,
        old_lines=hunk.old_lines,
        new_start=hunk.new_start,
        new_lines=hunk.new_lines,
        lines=hunk.lines,
    )


# --- names ------------------------------------------------------------------------------------------------------


def _closest(names: Iterable[bytes], query: str, type: FileType | None, dirs: bool, limit: int) -> tuple[str, ...]:
    wanted = "".join(query.lower().split())
    pattern = re.compile(".*?".join(map(re.escape, wanted)), re.DOTALL) if wanted else None
    candidates = _candidates(
        names, files=type != "directory", directories=type == "directory" or (dirs and type is None)
    )
    ranked = ((_rank(path, wanted, pattern), path) for path in candidates)
    closest = heapq.nsmallest(limit, ((rank, path) for rank, path in ranked if rank is not None))
    return tuple(path for _, path in closest)


def _candidates(names: Iterable[bytes], *, files: bool, directories: bool) -> Iterable[str]:
    """Names that are text, and the directories they are in, each once."""
    seen: set[bytes] = set()
    for name in names:
        directory = os.path.dirname(name) if directories else b""
        while directory and directory not in seen:
            seen.add(directory)
            if (text := _text(directory)) is not None:
                yield text + "/"
            directory = os.path.dirname(directory)
        if files and (text := _text(name)) is not None:
            yield text


def _text(name: bytes) -> str | None:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None


def _rank(path: str, wanted: str, pattern: re.Pattern[str] | None) -> tuple[int, int, int] | None:
    """Smaller is closer; None if it does not match. Without a query, what is near the top goes first."""
    depth = path.rstrip("/").count("/")
    if pattern is None:
        return (path.startswith("."), depth, len(path))
    lower = path.lower()
    if pattern.search(lower) is None:
        return None
    name = lower.rstrip("/").rpartition("/")[2]
    if name == wanted:
        kind = 0
    elif name.startswith(wanted):
        kind = 1
    elif wanted in name:
        kind = 2
    elif wanted in lower:
        kind = 3
    else:
        kind = 4 if pattern.search(name) is not None else 5
    return (kind, len(path), depth)
