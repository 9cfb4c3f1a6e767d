"""Terminals that a client opens in a project: a program in a pty, its output for whoever connects, now or again.

Rules
 1. Terminals live in this process and die with it; nothing of them is recorded. What they run is guarded like the
    processes of tools: not even `kill -9` of the server leaves it behind.
 2. Connections are readers with a cursor (`screens`): any number may follow one terminal, one that comes back is told what
    it missed, a slow one costs only itself.
 3. A program that ended is no longer listed; the newest few can still be read to their end.
 4. A ticket opens one connection to one terminal, once, soon: for clients that cannot send a credential with a WebSocket.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

import msgspec
import structlog
from msgspec.structs import replace

from holdfast.agent.tools import Processes
from holdfast.agent.tools.terminals import Terminal, open_terminal
from holdfast.core.clock import Clock
from holdfast.core.errors import Denied, Invalid, NotFound, Unavailable
from holdfast.core.wire import Wire
from holdfast.core.workspace import Pty, PtySize, PtyTicket, Shell
from holdfast.service.projects import checked_directory
from holdfast.service.screens import Screen

log = structlog.get_logger()

PTY: Final = "PTY session"
TICKET_SECONDS: Final = 60
RUNNING_MAX: Final = 64
EXITED_KEPT: Final = 16
SIZE_MAX: Final = 10_000
INPUT_BYTES_MAX: Final = 1 << 20

_ROWS, _COLUMNS = 24, 80
_QUIET_SECONDS: Final = 0.1
_END_SECONDS_MAX: Final = 3.0
_TICKETS_MAX: Final = 1000
_TEXT_MAX: Final = 10_000
_LOGIN_SHELLS: Final = frozenset({"bash", "dash", "fish", "ksh", "sh", "zsh"})
_UNFIT_SHELLS: Final = frozenset({"fish", "nu"})
_NO_SHELLS: Final = frozenset({"false", "nologin"})
_SHELLS_FILE: Final = Path("/etc/shells")


class NewPty(Wire):
    """Without `command`, the user's shell. `cwd` may be any directory; without it, the project's."""

    command: str | None = None
    args: tuple[str, ...] = ()
    cwd: str | None = None
    title: str | None = None
    env: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class PtyPatch(Wire):
    title: str | None = None
    size: PtySize | None = None


class PtyEvent(Wire):
    """What happened to a terminal: told to who is there, not recorded. The fields are the wire's `properties`."""

    type: ClassVar[str]


class PtyCreated(PtyEvent):
    type = "pty.created"
    info: Pty


class PtyUpdated(PtyEvent):
    type = "pty.updated"
    info: Pty


class PtyExited(PtyEvent):
    type = "pty.exited"
    id: str
    exit_code: int


class PtyDeleted(PtyEvent):
    type = "pty.deleted"
    id: str


Announce = Callable[[str, PtyEvent], None]
"""Told (directory, what happened); must not wait."""


class Connection:
    """One reader of a terminal. `cursor` is what it has read up to; None in the beginning is "from now on"."""

    def __init__(self, terminal: Terminal, screen: Screen, cursor: int | None) -> None:
        self._terminal = terminal
        self._screen = screen
        self.cursor = screen.end if cursor is None else min(max(cursor, 0), screen.end)

    @property
    def end(self) -> int:
        """The cursor after all that was shown."""
        return self._screen.end

    def take(self, units_max: int) -> str:
        """What is there to read, at most that much; "" if there is nothing now."""
        text, self.cursor = self._screen.read(self.cursor, units_max)
        return text

    async def more(self) -> bool:
        """Wait until there is something to take; False at the end."""
        await self._screen.grown(self.cursor)
        return self.cursor < self._screen.end

    def type(self, text: str) -> None:
        self._terminal.write(text.encode(errors="replace")[:INPUT_BYTES_MAX])


class _Session:
    def __init__(self, directory: str, info: Pty, terminal: Terminal) -> None:
        self.directory = directory
        self.info = info
        self.terminal = terminal
        self.screen = Screen()
        self.watching: asyncio.Task[None] | None = None


class _Ticket(msgspec.Struct, frozen=True):
    pty_id: str
    expires_ms: int


class PtyService:
    """`environ` is the server's environment: its `SHELL` is the user's."""

    def __init__(self, processes: Processes, *, clock: Clock, environ: Mapping[str, str]) -> None:
        self._processes = processes
        self._clock = clock
        self._environ = environ
        self._sessions: dict[str, _Session] = {}
        self._tickets: dict[str, _Ticket] = {}
        self._opening = 0
        self.announce: Announce = lambda directory, event: None

    def list(self, directory: str) -> tuple[Pty, ...]:
        """Those that run, oldest first."""
        return tuple(session.info for session in self._running() if session.directory == directory)

    def get(self, directory: str, id: str) -> Pty:
        return self._session(directory, id).info

    def shells(self) -> tuple[Shell, ...]:
        """The login shells of this machine, the user's first."""
        return tuple(
            Shell(path=path, name=os.path.basename(path), acceptable=os.path.basename(path) not in _UNFIT_SHELLS)
            for path in self._shell_paths()
        )

    async def create(self, directory: str, request: NewPty) -> Pty:
        """Raises Invalid for a directory or program that is not there, Unavailable when no more terminals can be had."""
        if len(self._running()) + self._opening >= RUNNING_MAX:
            raise Unavailable(f"There are {RUNNING_MAX} terminals open already.", hint="Close some of them.")
        _check_texts(request)
        cwd = checked_directory(request.cwd or directory)
        program, arguments = self._program(request, cwd)
        id = f"pty_{secrets.token_hex(13)}"
        self._opening += 1
        try:
            terminal = await open_terminal(
                self._processes,
                program,
                arguments,
                directory=cwd,
                variables=request.env,
                id=id,
                rows=_ROWS,
                columns=_COLUMNS,
            )
        except ValueError:
            raise Invalid("The command, its arguments and its environment must be plain text.", field="env") from None
        except OSError as error:
            raise Unavailable(f"No terminal can be opened: {error.strerror}") from error
        finally:
            self._opening -= 1
        info = Pty(
            id=id,
            title=request.title or f"Terminal {id[-4:]}",
            command=request.command or program,
            args=arguments,
            cwd=cwd,
            status="running",
            pid=terminal.process.group,
        )
        session = self._sessions[id] = _Session(directory, info, terminal)
        session.watching = asyncio.create_task(self._watch(session))
        self.announce(directory, PtyCreated(info=info))
        return info

    def update(self, directory: str, id: str, patch: PtyPatch) -> Pty:
        """Another title or size. Raises NotFound, Invalid."""
        session = self._session(directory, id)
        if patch.size is not None:
            rows, columns = patch.size.rows, patch.size.cols
            if not (1 <= rows <= SIZE_MAX and 1 <= columns <= SIZE_MAX):
                raise Invalid(f"A terminal has 1 to {SIZE_MAX} rows and columns.", field="size")
            session.terminal.resize(rows, columns)
        if patch.title is not None:
            session.info = replace(session.info, title=patch.title[:_TEXT_MAX])
        self.announce(directory, PtyUpdated(info=session.info))
        return session.info

    async def remove(self, directory: str, id: str) -> None:
        """End it and all it started. Raises NotFound."""
        session = self._session(directory, id)
        del self._sessions[id]
        await _end(session)
        self.announce(directory, PtyDeleted(id=id))

    def ticket(self, directory: str, id: str) -> PtyTicket:
        """Raises NotFound."""
        self._session(directory, id)
        now = self._clock.now_ms()
        self._tickets = {text: ticket for text, ticket in self._tickets.items() if ticket.expires_ms > now}
        while len(self._tickets) >= _TICKETS_MAX:
            del self._tickets[next(iter(self._tickets))]
        text = secrets.token_urlsafe(24)
        self._tickets[text] = _Ticket(id, now + TICKET_SECONDS * 1000)
        return PtyTicket(ticket=text, expires_in=TICKET_SECONDS)

    def redeem(self, id: str, ticket: str) -> None:
        """Raises Denied unless this is a ticket for that terminal which nobody used before."""
        found = self._tickets.pop(ticket, None)
        if found is None or found.pty_id != id or found.expires_ms <= self._clock.now_ms():
            raise Denied("The ticket is not valid for this terminal, or was used, or is too old.")

    def connect(self, id: str, cursor: int | None = 0) -> Connection:
        """A reader from a cursor on; None: only what comes. Raises NotFound."""
        session = self._sessions.get(id)
        if session is None:
            raise NotFound(PTY, id[:64])
        return Connection(session.terminal, session.screen, cursor)

    async def close(self) -> None:
        """The server stops: connections and programs end."""
        sessions = tuple(self._sessions.values())
        self._sessions.clear()
        await asyncio.gather(*(_end(session) for session in sessions))

    def _running(self) -> Sequence[_Session]:
        return [session for session in self._sessions.values() if session.info.status == "running"]

    async def _watch(self, session: _Session) -> None:
        """Show what the program writes, and see it end. What it left in the background is hung up on; what does not mind that
        (`nohup`) goes on until the server ends. A terminal that cannot be read any more is ended: it is of no use."""
        terminal = session.terminal
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_show(terminal, session.screen))
                group.create_task(_exited(terminal))
        except Exception:
            log.exception("pty.failed", pty=session.info.id)
            await terminal.end()
        terminal.close()
        session.screen.finish()
        status = terminal.process.status
        session.info = replace(session.info, status="exited", exit_code=status if status is not None else 137)
        if session.info.id in self._sessions:
            self.announce(session.directory, PtyExited(id=session.info.id, exit_code=session.info.exit_code or 0))
        exited = [id for id, other in self._sessions.items() if other.info.status == "exited"]
        for id in exited[:-EXITED_KEPT]:
            del self._sessions[id]

    def _session(self, directory: str, id: str) -> _Session:
        session = self._sessions.get(id)
        if session is None or session.directory != directory:
            raise NotFound(PTY, id[:64])
        return session

    def _program(self, request: NewPty, cwd: str) -> tuple[str, tuple[str, ...]]:
        wanted = request.command or next(iter(self._shell_paths()), "/bin/sh")
        path = self._environ.get("PATH")
        program = shutil.which(os.path.join(cwd, wanted) if "/" in wanted else wanted, path=path)
        if program is None:
            raise Invalid(f"There is no program {wanted[:200]!r}", field="command")
        is_login = os.path.basename(program) in _LOGIN_SHELLS and not {"-l", "-c", "--login"} & {*request.args}
        return program, (*request.args, "-l") if is_login else request.args

    def _shell_paths(self) -> tuple[str, ...]:
        listed = [self._environ.get("SHELL", "")]
        if _SHELLS_FILE.is_file():
            listed += [line.strip() for line in _SHELLS_FILE.read_text(errors="replace").splitlines()]
        listed += ["/bin/bash", "/bin/sh"]
        usable = [
            path
            for path in listed
            if os.path.isabs(path) and os.access(path, os.X_OK) and os.path.basename(path) not in _NO_SHELLS
        ]
        return tuple(dict.fromkeys(usable))


async def _end(session: _Session) -> None:
    await session.terminal.end()
    if session.watching is not None:
        await asyncio.wait((session.watching,), timeout=_END_SECONDS_MAX)


async def _exited(terminal: Terminal) -> None:
    await terminal.process.wait()
    terminal.process.output.finish(_QUIET_SECONDS)


async def _show(terminal: Terminal, screen: Screen) -> None:
    while data := await terminal.read():
        screen.show(data)


def _check_texts(request: NewPty) -> None:
    texts = (request.command or "", request.title or "", *request.args, *request.env, *request.env.values())
    if any("\0" in text or len(text) > _TEXT_MAX for text in texts) or len(texts) > _TEXT_MAX:
        raise Invalid(f"Texts have at most {_TEXT_MAX} characters and no NUL.", field="args")
    if any(not name or "=" in name for name in request.env):
        raise Invalid("The name of a variable is not empty and has no '='.", field="env")
