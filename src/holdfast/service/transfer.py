"""Sessions as files: a session's log out of one store, and into another.

    {"format":"holdfast-session","version":1,"sessionID":"ses_…","holdfast":"0.1.0"}
    {"offset":"…","tag":"session.created.1","event":{"id":"evt_…","type":"session.created","properties":{…}}}
    …                                                                      one line per record, in order
    {"records":1234}

Rules
 1. What the events say stays as it is: ids of sessions, messages, parts and requests, times, order. Offsets and the ids of
    records are the store's own, so the other store gives new ones (decision 0008).
 2. An import is one append: all of it, or nothing. A session that exists, or was deleted, is not touched.
 3. The last line counts the records: a file that was cut off is refused.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from holdfast import __version__
from holdfast.core import codec
from holdfast.core.errors import Conflict, HoldfastError, Invalid, NotFound, VersionConflict
from holdfast.core.events import Event, MessageUpdated, PartUpdated, SessionCreated, SessionDeleted, SessionUpdated
from holdfast.core.ids import check_id
from holdfast.core.offsets import BEGINNING, Offset
from holdfast.core.session import Session
from holdfast.core.store import Recorded, Scope, SessionScope, SessionStore
from holdfast.service.projects import ProjectService, named_directory
from holdfast.service.sessions import TIME_MAX
from holdfast.service.turns import TurnService

FORMAT: Final = "holdfast-session"
VERSION: Final = 1
_PAGE_RECORDS: Final = 1000
_PAGE_BYTES_MAX: Final = 4 << 20


class _Head(msgspec.Struct):
    format: str
    version: int
    session_id: str = msgspec.field(name="sessionID")
    holdfast: str = ""


class _Record(msgspec.Struct):
    tag: str
    event: msgspec.Raw


class _End(msgspec.Struct, forbid_unknown_fields=True):
    records: int


class Imported(msgspec.Struct, frozen=True, rename={"session_id": "sessionID"}):
    """`unfinished`: the session has a turn that is taken up where it was left."""

    session_id: str
    records: int
    unfinished: bool


class Log(Protocol):
    """What an export needs of a store (`core.store`)."""

    async def session(self, session_id: str) -> Session: ...

    async def read(
        self, scope: Scope, *, after: Offset, limit: int = 1000, bytes_max: int | None = None
    ) -> Sequence[Recorded]: ...


class TransferService:
    """Both on a running server."""

    def __init__(self, store: SessionStore, turns: TurnService, projects: ProjectService) -> None:
        self._store = store
        self._turns = turns
        self._projects = projects

    async def export_session(self, session_id: str) -> AsyncIterator[bytes]:
        """Raises NotFound at once; see the function of that name for the rest."""
        await self._store.session(check_id("ses", session_id, "sessionID"))
        return export_session(self._store, session_id)

    async def import_session(self, lines: Iterable[bytes]) -> Imported:
        """Whatever the session has left to do is taken up."""
        await self._projects.look()
        imported = await import_session(self._store, lines)
        with contextlib.suppress(NotFound):  # deleted a moment later
            session = await self._store.session(imported.session_id)
            self._projects.entered(session.project_id, session.directory)
        if imported.unfinished:
            self._turns.wake(imported.session_id)
        return imported


async def export_session(log: Log, session_id: str) -> AsyncGenerator[bytes]:
    """The lines of the file, in pieces. What is recorded while this runs may or may not be in it. Raises NotFound before
    the first piece."""
    session = await log.session(check_id("ses", session_id, "sessionID"))
    yield _line(_Head(format=FORMAT, version=VERSION, session_id=session.id, holdfast=__version__))
    count = 0
    after = BEGINNING
    scope = SessionScope(session.id)
    while page := await log.read(scope, after=after, limit=_PAGE_RECORDS, bytes_max=_PAGE_BYTES_MAX):
        after = page[-1].offset
        count += len(page)
        yield b"".join(
            b'{"offset":"%s","tag":"%s","event":%s}\n' % (record.offset.encode(), record.tag.encode(), record.data)
            for record in page
        )
    yield _line(_End(records=count))


async def import_session(store: SessionStore, lines: Iterable[bytes]) -> Imported:
    """Raises Invalid for a file that is damaged, cut off, or of a newer Holdfast; Conflict if the session exists."""
    session_id, events = await asyncio.to_thread(read_lines, lines)  # it may be long
    try:
        appended = await store.append(session_id, events, expected=0)
    except (NotFound, Conflict) as error:
        if isinstance(error, VersionConflict) or (isinstance(error, NotFound) and error.kind == "Session"):
            raise Conflict(
                f"Session {session_id} exists already, or was deleted.",
                hint="A session can be imported where nobody has it yet.",
            ) from error
        raise Invalid(f"The records do not belong together: {error}", hint="Export the session again.") from error
    turns = (await store.turn_state(session_id)).turns
    return Imported(session_id, appended.recorded, unfinished=turns.active is not None or bool(turns.queue))


def read_lines(lines: Iterable[bytes]) -> tuple[str, list[Event]]:
    """The session's id and its events."""
    head: _Head | None = None
    end: _End | None = None
    events: list[Event] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if head is None:
                head = _checked_head(msgspec.json.decode(line, type=_Head))
            elif end is not None:
                raise Invalid("There is more after the last line.")
            elif line.startswith(b'{"records"'):
                end = msgspec.json.decode(line, type=_End)
            else:
                record = msgspec.json.decode(line, type=_Record)
                _, event = codec.decode(record.tag, bytes(record.event))
                events.append(_checked(head.session_id, event, first=not events))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, HoldfastError) as error:
            raise Invalid(f"Line {number} of the file: {error}", hint="Export the session again.") from error
    if head is None:
        raise Invalid("The file is empty.", hint="Export the session again.")
    if end is None or end.records != len(events) or not events:
        raise Invalid("The file was cut off.", hint="Export the session again.")
    return head.session_id, events


def _checked_head(head: _Head) -> _Head:
    if head.format != FORMAT:
        raise Invalid("This is not an exported session.")
    if head.version > VERSION:
        raise Invalid(f"The file is of a newer Holdfast ({head.holdfast}).", hint="Import it with that version.")
    check_id("ses", head.session_id, "sessionID")
    return head


def _checked(session_id: str, event: Event, *, first: bool) -> Event:
    """What a store takes on trust from its own server: that the pieces of a session name it, that what files, rows and addresses
    are made of will do for that, and that nothing follows its end."""
    named = {event.session_id}
    match event:
        case SessionCreated(info=info) | SessionUpdated(info=info):
            named.add(info.id)
            named_directory(info.directory)
            if not (0 <= info.time.created <= TIME_MAX and 0 <= info.time.updated <= TIME_MAX):
                raise Invalid("A time that no session can have.")
        case MessageUpdated(info=info):
            named.add(info.session_id)
            check_id("msg", info.id, "messageID")
        case PartUpdated(part=part):
            named.add(part.session_id)
            check_id("prt", part.id, "partID")
        case SessionDeleted():
            raise Invalid("The session was deleted.")
        case _:
            pass
    if named != {session_id}:
        raise Invalid("A record of another session.")
    if first != isinstance(event, SessionCreated):
        raise Invalid("The first record, and only it, creates the session.")
    return event


def _line(value: msgspec.Struct) -> bytes:
    return codec.to_json(value) + b"\n"
