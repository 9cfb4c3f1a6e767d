"""The files that a language server has open: what it is told of them, and what it says is wrong in them: by itself, or because
it is asked (LSP 3.17: some only answer).

Rules
 1. It is told what is on the disk, always the whole text. Each time a file is touched, all open ones are looked at: so it also
    hears of what was changed by other programs.
 2. Nobody waits until it was told: a task does that, at the pace at which the server reads.
 3. So many files, and so many bytes of them, are open; the one that was not touched for longest is closed first.
 4. What it said of an older text of an open file does not count.
 5. One that wants to be asked is asked of each text that it is told, and of all others if it says that they may depend on it. One
    question about a file is under way at a time: another text calls it off. If it has no answer, what it says by itself counts.
"""

import asyncio
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import structlog

from holdfast.agent.lsp.answers import Published
from holdfast.agent.lsp.languages import language_of
from holdfast.agent.tools.diagnostics import FileErrors, joined
from holdfast.agent.tools.read import is_binary
from holdfast.agent.tools.stamps import stamp_of
from holdfast.protocols.lsp import encode_notification

OPEN_MAX: Final = 64
OPEN_BYTES_MAX: Final = 4 * 1024 * 1024
FILE_BYTES_MAX: Final = 512 * 1024
QUIET_SECONDS: Final = 0.15
"""Many servers say what they find in several steps. This long after the last one it is taken for all there is."""
LAST_SECONDS: Final = 1.0
"""No longer than this after the first; so long are others waited for that depend on what changed."""

_SAMPLE_BYTES: Final = 8192
_FILES_WITH_ERRORS_MAX: Final = 200

log = structlog.get_logger()

Identity = tuple[int, int, int]
"""Of a file's content, without reading it: inode, size, time of the last change."""


class _Text(NamedTuple):
    identity: Identity
    data: bytes


class _Document:
    """`version` is what the server was told last. `first`, `last`: when it spoke of that version. `asking`: the question about it
    that is under way. `answer`: what came of one about that version."""

    def __init__(self, text: _Text) -> None:
        self.identity = text.identity
        self.stamp = stamp_of(text.data)
        self.size = len(text.data)
        self.version = 0
        self.first: float | None = None
        self.last = 0.0
        self.asking: asyncio.Task[None] | None = None
        self.answer: FileErrors | None = None

    def become(self, text: _Text) -> bool:
        """Whether the text is another one."""
        self.identity = text.identity
        stamp = stamp_of(text.data)
        if stamp == self.stamp:
            return False
        self.stamp = stamp
        self.size = len(text.data)
        self.version += 1
        self.first = None
        self.answer = None
        self.ask(None)
        return True

    def speak(self, now: float) -> None:
        self.first = now if self.first is None else self.first
        self.last = now

    def quiet_at(self) -> float | None:
        """When what the server says of the text is taken for all; None if it said nothing yet."""
        if self.asking is not None:
            return None
        if self.answer is not None:
            return 0.0
        return None if self.first is None else min(self.last + QUIET_SECONDS, self.first + LAST_SECONDS)

    def ask(self, asking: "asyncio.Task[None] | None") -> None:
        """Instead of what is being asked."""
        if self.asking is not None:
            self.asking.cancel()
        self.asking = asking

    @property
    def is_current(self) -> bool:
        return self.asking is None and (self.answer is not None or self.first is not None)


class Listener(Protocol):
    """The server's end of it."""

    @property
    def wants_to_be_asked(self) -> bool:
        """What is wrong in a file."""
        ...

    @property
    def are_files_connected(self) -> bool:
        """Whether a change of one may make others wrong."""
        ...

    async def ask(self, path: str) -> FileErrors | None:
        """What is wrong in a file, as it was last told; None if it does not say. Raises nothing."""
        ...

    def send(self, data: bytes) -> None: ...

    async def drain(self) -> None:
        """Return when most of what was sent has been read. Raises OSError if it cannot be."""
        ...


class Documents:
    """They outlive the server's program: one that is started anew is told again of what was wanted last. `spoken` is told
    that the server said something of a file as it is now."""

    def __init__(self, spoken: Callable[[], None]) -> None:
        self._spoken = spoken
        self._listener: Listener | None = None
        self._wanted: dict[str, int] = {}  # which touch it was; the last one is the newest
        self._open: dict[str, _Document] = {}
        self._found: dict[str, FileErrors] = {}
        self._touched = 0
        self._looked = 0
        self._touch = asyncio.Event()
        self._asks_again: asyncio.TimerHandle | None = None
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def touch(self, paths: Iterable[str]) -> None:
        """Have these open, as they are on the disk now."""
        self._touched += 1
        for path in paths:
            self._wanted.pop(path, None)
            self._wanted[path] = self._touched
        while len(self._wanted) > OPEN_MAX:
            del self._wanted[next(iter(self._wanted))]
        self._touch.set()

    def forget(self, paths: Iterable[str]) -> None:
        """These are gone."""
        for path in paths:
            self._wanted.pop(path, None)
            self._found.pop(path, None)
        self._touched += 1
        self._touch.set()

    def begin(self, listener: Listener) -> None:
        """A program that knows of none, from now on."""
        self._listener = listener
        self._open.clear()
        self.touch(())

    def end(self) -> None:
        """The program is gone, or no longer to be told."""
        self._listener = None
        self._found.clear()
        if self._asks_again is not None:
            self._asks_again.cancel()
            self._asks_again = None
        for document in self._open.values():
            document.ask(None)
        self._tell()

    async def keep(self) -> None:
        """Tell the program, for as long as it runs. Raises OSError when it can no longer be told."""
        while True:
            await self._touch.wait()
            self._touch.clear()
            number = self._touched
            await self._look()
            self._looked = number
            self._tell()

    async def told(self) -> None:
        """Until the server was told of all that was touched so far, or nothing can be told it any more."""
        number = self._touched
        while self._looked < number and self._listener is not None:
            await asyncio.shield(self._news)

    async def settled(self, paths: Sequence[str]) -> None:
        """Until it has said of each what it has to say, or the program is gone. Who waits sees to it that this ends."""
        await self.told()
        loop = asyncio.get_running_loop()
        while self._listener is not None:
            quiet_at = [document.quiet_at() for path in paths if (document := self._open.get(path)) is not None]
            times = [time for time in quiet_at if time is not None]
            left = max(times, default=0.0) - loop.time()
            if len(times) == len(quiet_at) and left <= 0:
                break
            await asyncio.wait((self._news,), timeout=left if len(times) == len(quiet_at) else None)
        until = loop.time() + LAST_SECONDS
        while any(document.asking for document in self._open.values()) and (left := until - loop.time()) > 0:
            await asyncio.wait((self._news,), timeout=left)

    def heard(self, said: Published) -> None:
        document = self._open.get(said.path)
        if document is not None and said.version is not None and said.version != document.version:
            return
        self._found.pop(said.path, None)
        if said.found.errors:
            self._found[said.path] = said.found
            if len(self._found) > _FILES_WITH_ERRORS_MAX:
                del self._found[next(iter(self._found))]
        if document is not None:
            document.speak(asyncio.get_running_loop().time())
            self._spoken()
            self._tell()

    @property
    def found(self) -> Mapping[str, FileErrors]:
        """By file. Without those of whose text it said nothing yet, or was not even told."""
        said = {path: errors for path, errors in self._found.items() if self._has_spoken(path)}
        answered = {
            path: document.answer
            for path, document in self._open.items()
            if document.answer is not None and document.answer.errors and self._is_current(path)
        }
        return joined((said, answered)) if answered else said

    def _has_spoken(self, path: str) -> bool:
        document = self._open.get(path)
        return self._is_current(path) and (document is None or document.first is not None)

    def _is_current(self, path: str) -> bool:
        document = self._open.get(path)
        return self._wanted.get(path, 0) <= self._looked and (document is None or document.is_current)

    def ask_again(self) -> None:
        """What is wrong in all open files: the server says that it may be something else now. Soon, however often it says so."""
        if self._asks_again is None and self._listener is not None:
            self._asks_again = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._ask_of_all)

    def _ask_of_all(self) -> None:
        self._asks_again = None
        self._ask_of(tuple(self._open))

    def _ask_of(self, paths: Iterable[str]) -> None:
        listener = self._listening()
        for path in paths if listener.wants_to_be_asked else ():
            document = self._open[path]
            document.ask(asyncio.create_task(self._ask(listener, path, document)))

    async def _ask(self, listener: Listener, path: str, document: _Document) -> None:
        try:
            answer = await listener.ask(path)
            if answer is not None:
                document.answer = answer
                self._spoken()
        except Exception as error:
            log.error("lsp.defect", kind=type(error).__name__)
        document.asking = None
        self._tell()

    def _tell(self) -> None:
        self._news.set_result(None)
        self._news = asyncio.get_running_loop().create_future()

    async def _look(self) -> None:
        """At the disk, and tell the server what differs."""
        for path in [path for path in self._open if path not in self._wanted]:
            self._close(path)
        known = {path: self._open[path].identity if path in self._open else None for path in self._wanted}
        differing = await asyncio.to_thread(_differing, known)
        shown: list[str] = []
        for path in reversed(differing):  # what was touched last matters most
            if path not in self._wanted:
                continue
            await self._listening().drain()
            text = await asyncio.to_thread(_read, path)
            if text is None:
                self._wanted.pop(path, None)
                self._found.pop(path, None)
                self._close(path)
            elif path in self._wanted:
                if self._show(path, text):
                    shown.append(path)
                self._make_room()
        if shown:
            self._ask_of(self._open if self._listening().are_files_connected else [p for p in shown if p in self._open])

    def _listening(self) -> Listener:
        assert self._listener is not None
        return self._listener

    def _send(self, method: str, params: dict[str, Any]) -> None:
        self._listening().send(encode_notification(method, params))

    def _show(self, path: str, text: _Text) -> bool:
        """Whether it is new to the server."""
        document = self._open.get(path)
        if document is None:
            document = self._open[path] = _Document(text)
            about = {"uri": Path(path).as_uri(), "languageId": language_of(path), "version": document.version}
            self._send("textDocument/didOpen", {"textDocument": {**about, "text": _decoded(text)}})
            return True
        if document.become(text):
            about = {"uri": Path(path).as_uri(), "version": document.version}
            changes = [{"text": _decoded(text)}]
            self._send("textDocument/didChange", {"textDocument": about, "contentChanges": changes})
            return True
        return False

    def _make_room(self) -> None:
        size = sum(document.size for document in self._open.values())
        for path in tuple(self._wanted):
            if size <= OPEN_BYTES_MAX:
                return
            document = self._open.get(path)
            if document is not None:
                size -= document.size
                del self._wanted[path]
                self._close(path)

    def _close(self, path: str) -> None:
        document = self._open.pop(path, None)
        if document is not None:
            document.ask(None)
            self._send("textDocument/didClose", {"textDocument": {"uri": Path(path).as_uri()}})


def _decoded(text: _Text) -> str:
    return text.data.decode("utf-8-sig", errors="replace")


def _differing(known: Mapping[str, Identity | None]) -> list[str]:
    return [path for path, identity in known.items() if identity is None or _identity(path) != identity]


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _read(path: str) -> _Text | None:
    """None for what is no text that a server is shown."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_BYTES_MAX:
            return None
        # The identity before the text: what changes in between is looked at again.
        data = file.read(FILE_BYTES_MAX + 1)
    if len(data) > FILE_BYTES_MAX or is_binary(data[:_SAMPLE_BYTES]):
        return None
    return _Text((found.st_ino, found.st_size, found.st_mtime_ns), data)
