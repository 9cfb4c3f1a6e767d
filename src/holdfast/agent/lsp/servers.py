"""A language server, started when it is first asked for a name, or told of a file.

Rules
 1. It is owned like a tool's process (`agent.tools.processes`): it dies with Holdfast, however it dies.
 2. Whatever it does (it is missing, ends, says nothing, says nonsense, never stops talking), an ask finds nothing, in bounded
    time and memory, and `status` says that something is wrong.
 3. One that ended is started again by the next ask, but not at once. One that is only slow is left to work on.
 4. Who changed a file waits for what it says of that, but not again for one that said nothing in time: not before it speaks.
"""

import asyncio
import contextlib
import itertools
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, cast

import structlog
from msgspec.structs import replace

from holdfast import __version__
from holdfast.agent.lsp.answers import (
    DIAGNOSTIC,
    Asked,
    asked_from_the_start,
    published,
    registered,
    reported,
    settings_asked,
    symbols_of,
    unregistered,
)
from holdfast.agent.lsp.documents import QUIET_SECONDS, Documents
from holdfast.agent.tools.base import FileChange
from holdfast.agent.tools.conversations import LastWords, end, how_it_ended, listen, path_of, uninterrupted
from holdfast.agent.tools.diagnostics import FileErrors, joined
from holdfast.agent.tools.processes import Conversation, Processes
from holdfast.core.clock import Clock
from holdfast.core.config import LanguageServerConfig
from holdfast.core.workspace import Symbol
from holdfast.protocols.lsp import (
    METHOD_NOT_FOUND,
    Answer,
    Decoder,
    Message,
    Notification,
    RemoteProtocolError,
    Request,
    encode_answer,
    encode_notification,
    encode_refusal,
    encode_request,
)

ANSWER_SECONDS: Final = 10.0
"""How long an ask waits, the start included."""
START_SECONDS: Final = 60.0
"""How long a start may take: some read the whole project first. Who asked does not wait for it."""
PAUSE_MS: Final = 10_000
"""Between an end and the next start."""
CHECK_SECONDS: Final = 5.0
"""How long a change waits for what is wrong with it, the start included."""

_CHUNK_BYTES: Final = 64 * 1024
_UNSENT_BYTES_MAX: Final = 2 * 1024 * 1024
_BYTES_PER_SECOND_MAX: Final = 16 * 1024 * 1024
_MESSAGE_COST_BYTES: Final = 2048
_FAREWELL_SECONDS: Final = 0.5
_SECRET_LENGTH_MIN: Final = 6
_ASKED_MAX: Final = 8
"""In so many ways a server may want to be asked for diagnostics."""
_TRIES_MAX: Final = 3
_AGAIN: Final = frozenset({-32802, -32801, -32800})
"""The server called the question off, since the files changed or it was not ready: to be asked again."""

_DOES_NOTHING: Final = frozenset({"window/showMessageRequest", "window/workDoneProgress/create"})

_KINDS: Final = {"add": 1, "change": 2, "unlink": 3}

log = structlog.get_logger()


class LanguageServerFailed(Exception):
    """It is not there to be asked. The message is for the log."""


class LanguageServer:
    """`changed` is told when `status` did; None is one that nobody has heard of yet."""

    def __init__(
        self,
        name: str,
        config: LanguageServerConfig,
        *,
        directory: str,
        processes: Processes,
        clock: Clock,
        changed: Callable[[], None],
        answer_seconds: float = ANSWER_SECONDS,
        check_seconds: float = CHECK_SECONDS,
    ) -> None:
        self.name = name
        self.config = config
        self.status: Literal["connected", "error"] | None = None
        self._directory = directory
        self._processes = processes
        self._clock = clock
        self._changed = changed
        self._answer_seconds = answer_seconds
        self._check_seconds = check_seconds
        self._documents = Documents(self._spoken)
        self._is_silent = False
        self._connection: _Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[_Connection] | None = None
        self._again_ms = 0
        self._is_closed = False
        values = {text for text in _texts([config.env, config.initialization]) if len(text) >= _SECRET_LENGTH_MIN}
        self._secrets = sorted(values, key=len, reverse=True)  # so that none leaves a part of another

    async def symbols(self, query: str) -> tuple[Symbol, ...]:
        """The first that fit, in the server's order."""
        connection = None
        try:
            async with asyncio.timeout(self._answer_seconds):
                connection = await self._reached()
                await self._documents.told()  # some know nothing but what is open
                answer = await connection.request("workspace/symbol", {"query": query})
        except TimeoutError:
            if connection is None or connection.is_open:
                self._settle("error", f"It did not answer within {self._answer_seconds:g} seconds.")
            return ()
        except LanguageServerFailed:  # whose end says so
            return ()
        if connection.is_open:
            self._settle("connected")
        if answer.error is not None:
            log.info("lsp.refused", server=self.name, reason=self._clean(answer.error[:500]))
            return ()
        return symbols_of(answer.result)

    @property
    def is_shown_files(self) -> bool:
        return bool(self._documents)

    def show(self, paths: Sequence[str]) -> None:
        """Have it open these files, soon. They are absolute."""
        self._documents.touch(paths)
        with contextlib.suppress(LanguageServerFailed):
            self._start()

    async def check(self, changes: Sequence[FileChange]) -> Mapping[str, FileErrors]:
        """What it says is wrong, once it has seen these changes."""
        gone = [change.path for change in changes if change.kind == "unlink"]
        there = [change.path for change in changes if change.kind != "unlink"]
        if self._connection is not None:
            self._connection.tell_of(changes)
        self._documents.forget(gone)
        self.show(there)
        if not self._is_silent:
            try:
                async with asyncio.timeout(self._check_seconds):
                    await self._reached()
                    await self._documents.settled(there)
            except TimeoutError:
                self._is_silent = True
                log.info("lsp.silent", server=self.name)
            except LanguageServerFailed:  # whose end says so
                return {}
        return {path: self._without_secrets(found) for path, found in self._documents.found.items()}

    async def close(self) -> None:
        """What it started is dead when this returns."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _spoken(self) -> None:
        self._is_silent = False

    async def _reached(self) -> "_Connection":
        """Raises LanguageServerFailed."""
        return await asyncio.shield(self._start())

    def _start(self) -> "asyncio.Future[_Connection]":
        """Unless it runs. Raises LanguageServerFailed."""
        if self._task is None or self._task.done():
            if self._is_closed or self._clock.now_ms() < self._again_ms:
                raise LanguageServerFailed("It is not running.")
            self._started = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._started))
        assert self._started is not None
        return self._started

    async def _run(self, started: "asyncio.Future[_Connection]") -> None:
        why = "Holdfast failed to speak to it."
        try:
            connection = await self._opened()
            try:
                async with asyncio.timeout(START_SECONDS):
                    await connection.initialize()
                self._settle("connected")
                self._connection = connection
                self._documents.begin(connection)
                keeping = asyncio.create_task(self._keep(connection))
                try:
                    started.set_result(connection)
                    why = await asyncio.shield(connection.over)
                finally:
                    keeping.cancel()
                    await asyncio.wait((keeping,))
                    self._documents.end()
            finally:
                self._connection = None
                await uninterrupted(connection.close())
        except LanguageServerFailed as error:
            why = str(error)
        except TimeoutError:
            why = f"It did not start within {START_SECONDS:g} seconds."
        except Exception as error:
            log.error("lsp.defect", server=self.name, kind=type(error).__name__)  # its text may hold a secret
        finally:
            if not started.done():
                started.set_exception(LanguageServerFailed(why))
                started.exception()  # nobody may be waiting any more
        self._again_ms = self._clock.now_ms() + PAUSE_MS
        self._settle("error", why)

    async def _keep(self, connection: "_Connection") -> None:
        try:
            await self._documents.keep()
        except OSError:  # if it has ended, there is more to be said of it
            await asyncio.wait((connection.over,), timeout=_FAREWELL_SECONDS)
            connection.give_up("It does not read what it is sent.")
        except Exception as error:
            log.error("lsp.defect", server=self.name, kind=type(error).__name__)
            connection.give_up("Holdfast failed to tell it of a file.")

    async def _opened(self) -> "_Connection":
        """Raises LanguageServerFailed."""
        command = self.config.command or ("",)
        variables = self.config.env or {}
        directory = Path(self._directory)
        program = path_of(command[0], directory, variables) if command[0] else None
        if program is None:
            raise LanguageServerFailed(f"There is no program {command[0][:200]!r}.")
        try:
            talk = await self._processes.converse(
                program,
                command[1:],
                directory=directory,
                variables=variables,
                id=f"lsp_{secrets.token_hex(8)}",
                line_max=_CHUNK_BYTES,
            )
        except ValueError:
            raise LanguageServerFailed(
                "Its command or its environment is not one that a program can be given."
            ) from None
        except OSError as error:
            raise LanguageServerFailed(f"It could not be started: {error.strerror}") from error
        words = LastWords(lambda line: log.info("lsp.stderr", server=self.name, line=self._clean(line)))
        settings = self.config.initialization or {}
        return _Connection(talk, words, directory=directory, settings=settings, documents=self._documents)

    def _settle(self, status: Literal["connected", "error"], why: str = "") -> None:
        if self._is_closed or status == self.status:
            return
        if status == "error":
            log.warning("lsp.failed", server=self.name, reason=self._clean(why))
        self.status = status
        self._changed()

    def _without_secrets(self, found: FileErrors) -> FileErrors:
        if not self._secrets:
            return found
        return FileErrors(
            tuple(replace(error, message=self._clean(error.message)) for error in found.errors), found.more
        )

    def _clean(self, text: str) -> str:
        """Without what the configuration may keep secret."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class _Connection:
    """A running program. `over` is done, with the reason, when nothing more comes from it."""

    def __init__(
        self,
        talk: Conversation,
        words: LastWords,
        *,
        directory: Path,
        settings: Mapping[str, Any],
        documents: Documents,
    ) -> None:
        self.over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._talk = talk
        self._words = words
        self._settings = settings
        self._documents = documents
        self._folder = {"uri": directory.as_uri(), "name": directory.name}
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._asked: dict[str, Asked] = {}
        self._listening = asyncio.create_task(listen(talk, words))
        self._reading = asyncio.create_task(self._read())

    @property
    def is_open(self) -> bool:
        return not self.over.done()

    async def initialize(self) -> None:
        """Raises LanguageServerFailed."""
        answer = await self.request(
            "initialize",
            {
                "processId": os.getpid(),  # one that looks after us ends by itself, too
                "clientInfo": {"name": "holdfast", "version": __version__},
                "rootUri": self._folder["uri"],
                "workspaceFolders": [self._folder],
                "initializationOptions": self._settings,
                "capabilities": {
                    "workspace": {
                        "symbol": {"symbolKind": {"valueSet": list(range(1, 27))}},
                        "configuration": True,
                        "workspaceFolders": True,
                        "diagnostics": {"refreshSupport": True},
                    },
                    "textDocument": {
                        "synchronization": {},
                        "publishDiagnostics": {"versionSupport": True},
                        "diagnostic": {"dynamicRegistration": True},
                    },
                    "window": {"workDoneProgress": True},
                },
            },
        )
        if answer.error is not None:
            raise LanguageServerFailed(f"It refused to start: {answer.error[:500]}")
        asked = asked_from_the_start(answer.result)
        if asked is not None:
            self._asked[""] = asked
        self.send(encode_notification("initialized", {}))
        if self._settings:
            self.send(encode_notification("workspace/didChangeConfiguration", {"settings": self._settings}))

    async def request(self, method: str, params: Any) -> Answer:
        """Who gives up waiting calls it off. Raises LanguageServerFailed."""
        if not self.is_open:
            raise LanguageServerFailed(self.over.result())
        id = next(self._ids)
        waiting = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            self.send(encode_request(id, method, params))
            return await waiting
        except asyncio.CancelledError:
            self.send(encode_notification("$/cancelRequest", {"id": id}))
            raise
        finally:
            self._waiting.pop(id, None)

    async def close(self) -> None:
        """Ask it to end, and see to it that it does."""
        if self.is_open:
            with contextlib.suppress(TimeoutError, LanguageServerFailed):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self.request("shutdown", None)
            self.send(encode_notification("exit", None))
            self.give_up("It was ended.")
        await end(self._talk, (self._reading, self._listening))

    async def _read(self) -> None:
        decoder = Decoder()
        try:
            while self.is_open and (data := await self._talk.stdout.read(_CHUNK_BYTES)):
                cost_bytes = len(data)
                for message in decoder.feed(data):
                    self._take(message)
                    cost_bytes += _MESSAGE_COST_BYTES
                # One that never stops talking is held back by its full pipe, and costs the others little.
                await asyncio.sleep(cost_bytes / _BYTES_PER_SECOND_MAX)
        except RemoteProtocolError as error:
            self.give_up(f"It does not speak the language server protocol: {error}.")
        except OSError as error:
            self.give_up(f"It cannot be read: {error.strerror}")
        except Exception as error:
            self.give_up(f"Holdfast failed to read it ({type(error).__name__}).")
        else:
            self.give_up(await how_it_ended(self._talk, self._listening, self._words))

    def _take(self, message: Message) -> None:
        match message:
            case Answer(id=id):
                waiting = self._waiting.get(id) if isinstance(id, int) else None
                if waiting is not None and not waiting.done():  # else nobody wants it any more
                    waiting.set_result(message)
            case Request():
                self.send(self._reply(message))
            case Notification(method="textDocument/publishDiagnostics"):
                said = published(message.params)
                if said is not None:
                    self._documents.heard(said)
            case Notification():
                pass

    def _reply(self, request: Request) -> bytes:
        match request.method:
            case "workspace/configuration":
                return encode_answer(request.id, settings_asked(request.params, self._settings))
            case "workspace/workspaceFolders":
                return encode_answer(request.id, [self._folder])
            case "client/registerCapability":
                self._ask_as({**self._asked, **registered(request.params)})
                return encode_answer(request.id, None)
            case "client/unregisterCapability":
                gone = unregistered(request.params)
                self._ask_as({id: asked for id, asked in self._asked.items() if id not in gone})
                return encode_answer(request.id, None)
            case "workspace/diagnostic/refresh":
                self._documents.ask_again()
                return encode_answer(request.id, None)
            case "workspace/applyEdit":  # the code is the agent's and the user's to change
                return encode_answer(request.id, {"applied": False})
            case method if method in _DOES_NOTHING or method.endswith("/refresh"):
                return encode_answer(request.id, None)
            case _:
                return encode_refusal(request.id, METHOD_NOT_FOUND, "This client does not know the method.")

    # --- what is wrong in a file

    @property
    def wants_to_be_asked(self) -> bool:
        return bool(self._asked)

    @property
    def are_files_connected(self) -> bool:
        return any(asked.inter_file_dependencies for asked in self._asked.values())

    async def ask(self, path: str) -> FileErrors | None:
        uri = Path(path).as_uri()
        answers = await asyncio.gather(*(self._reported(uri, asked) for asked in tuple(self._asked.values())))
        known = [{path: answer} for answer in answers if answer is not None]
        return joined(known)[path] if known else None

    async def _reported(self, uri: str, asked: Asked) -> FileErrors | None:
        name = {"identifier": asked.identifier} if asked.identifier is not None else {}
        for _ in range(_TRIES_MAX):
            try:
                answer = await self.request(DIAGNOSTIC, {"textDocument": {"uri": uri}, **name})
            except LanguageServerFailed:
                return None
            if answer.error is None:
                return reported(answer.result)
            if answer.code not in _AGAIN:
                return None
            await asyncio.sleep(QUIET_SECONDS)
        return None

    def _ask_as(self, asked: dict[str, Asked]) -> None:
        if asked != self._asked:
            self._asked = dict(itertools.islice(asked.items(), _ASKED_MAX))
            self._documents.ask_again()

    # --- its pipes

    def send(self, data: bytes) -> None:
        """Nobody waits until it was read: one that does not read is given up."""
        if not self.is_open or self._talk.stdin.is_closing():  # it has ended, and `over` will say so
            return
        self._talk.stdin.write(data)
        if self._talk.stdin.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
            self.give_up("It does not read what it is sent.")

    async def drain(self) -> None:
        """Until it has read most of it. Raises OSError if it ended."""
        await self._talk.stdin.drain()

    def tell_of(self, changes: Sequence[FileChange]) -> None:
        """Files on the disk, whether it has them open or not."""
        told = [{"uri": Path(change.path).as_uri(), "type": _KINDS[change.kind]} for change in changes]
        self.send(encode_notification("workspace/didChangeWatchedFiles", {"changes": told}))

    def give_up(self, why: str) -> None:
        if not self.is_open:
            return
        self.over.set_result(why)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(LanguageServerFailed(why))


def _texts(value: Any) -> Iterator[str]:
    """All that are in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in cast(dict[str, Any], value).values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in cast(list[Any], value):
            yield from _texts(inner)
