"""Ports: what Holdfast needs from a store. The docstrings are the contract; `holdfast.testing.store_conformance` checks it.

One backend object implements both ports over one database: a session's stream *is* a durable stream.

What every backend promises
 - *Recorded before told.* `append` returns, and subscribers see the events, only once they are durable (fsync).
 - *One truth.* Records and the rows folded from them (`core.reducer`) change in one transaction.
 - *Order.* Within a stream, and over all streams of a store, subscribers see events in commit order, each once per
   offset; offsets grow with it. A transaction that commits late never shows up before an offset already told.
 - *A slow reader costs only itself.* Subscriptions are cursors; a reader that lags behind the memory reads from disk.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Protocol

import msgspec

from holdfast.core.events import Event
from holdfast.core.messages import WithParts
from holdfast.core.offsets import Offset
from holdfast.core.permissions import PermissionRule
from holdfast.core.reducer import Get
from holdfast.core.session import Session, SessionStatus, Todo
from holdfast.core.state import PermissionEntry, QuestionEntry, TurnState

# --- values -----------------------------------------------------------------------------------------------------


class SessionScope(msgspec.Struct, frozen=True):
    """The events of one session."""

    session_id: str


class DirectoryScope(msgspec.Struct, frozen=True):
    """The events of all sessions of one project directory (absolute path)."""

    directory: str


class AllScope(msgspec.Struct, frozen=True):
    """The events of every session of the store."""


Scope = SessionScope | DirectoryScope | AllScope
ALL = AllScope()


class Recorded(msgspec.Struct, frozen=True):
    """One record. `data` is the wire JSON as it was encoded once; `tag` is type and shape version (`core.codec`);
    `version` counts the records of its stream from 1; `directory` and `project_id` are the session's."""

    offset: Offset
    session_id: str
    directory: str
    project_id: str
    version: int
    tag: str
    data: bytes


def first_of(records: Iterable[Recorded], limit: int, bytes_max: int | None) -> list[Recorded]:
    """At most so many, and none after that which brings their data to so many bytes."""
    if bytes_max is None:
        return list(islice(records, limit))
    found: list[Recorded] = []
    size = 0
    for record in islice(records, limit):
        found.append(record)
        size += len(record.data)
        if size >= bytes_max:
            break
    return found


def is_full(records: Sequence[Recorded], limit: int, bytes_max: int) -> bool:
    """More may follow what `first_of` found."""
    return len(records) == limit or sum(len(record.data) for record in records) >= bytes_max


class Appended(msgspec.Struct, frozen=True):
    """`offset` and `version` of the last record of the append (of the first append with that key, if `duplicate`);
    `recorded` is how many of the events were recorded: late and repeated ones are not (`core.reducer`)."""

    offset: Offset
    version: int
    recorded: int
    duplicate: bool = False


class Lease(msgspec.Struct, frozen=True):
    """Who acts for a session's turn. `token` grows with each claim and fences off every earlier holder."""

    session_id: str
    owner: str
    token: int


class SessionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions last updated at or after `updated_since` and before `updated_before` (ms), newest update first. A fraction in
    `updated_before` is that of a page's `next`. `search` is
    what title or texts have (`core.search`). `roots` leaves out child sessions; `archived` those that are not, False
    those that are."""

    directory: str | None = None
    project_id: str | None = None
    parent_id: str | None = None
    roots: bool = False
    updated_since: int | None = None
    updated_before: float | None = None
    archived: bool | None = None
    search: str | None = None
    limit: int | None = None


class SessionPage(msgspec.Struct, frozen=True):
    """Wire JSON of sessions. `next`: there are more, with this as `updated_before`; a whole number, unless the page ends between
    sessions that were updated in the same millisecond."""

    sessions: tuple[bytes, ...]
    next: int | float | None = None


class RawMessage(msgspec.Struct, frozen=True):
    """A message in wire JSON: `info` and each part as stored; open parts with the text streamed so far. `version` is the
    session version of the record that added the message: the order of messages, and the cursor of pages."""

    id: str
    version: int
    info: bytes
    parts: tuple[bytes, ...]


class MessagePage(msgspec.Struct, frozen=True):
    """Oldest first; `more` is True when there are further messages: older ones, or newer ones if the page was asked for
    with `after`."""

    messages: tuple[RawMessage, ...]
    more: bool


class SessionSnapshot(msgspec.Struct, frozen=True):
    """A session as of an offset: wire JSON of the session and of its newest messages."""

    session: bytes
    directory: str
    project_id: str
    status: SessionStatus
    messages: tuple[RawMessage, ...]


class Snapshot(msgspec.Struct, frozen=True):
    """Sessions as of `offset`: a subscription after it continues without gap or repeat."""

    offset: Offset
    sessions: tuple[SessionSnapshot, ...]


class Directory(msgspec.Struct, frozen=True):
    """A project directory that has, or had, sessions. Times in ms."""

    directory: str
    project_id: str
    created: int
    updated: int


class Difference(msgspec.Struct, frozen=True):
    """Stored state that the log does not give. `what` names the row; `stored` and `folded` are JSON, None if absent."""

    session_id: str
    what: str
    stored: str | None
    folded: str | None


Decide = Callable[[Get], Sequence[Event]]
"""State → events, pure and quick: run inside the transaction that records them, so that what it read is still true then
(a read-modify-write without conflicts). It sees entities as `core.reducer` does: open parts without all of
their deltas."""

# --- ports ------------------------------------------------------------------------------------------------------


class StreamStore(Protocol):
    """The durable, append-only streams of sessions, as they are read. Streams that anybody writes (create, close, fork,
    producers, expiry) are `core.streams`; to their readers, sessions are streams like those."""

    def head(self) -> Offset:
        """The offset of the newest durable record of the store, BEGINNING if there is none."""
        ...

    async def read(
        self, scope: Scope, *, after: Offset, limit: int = 1000, bytes_max: int | None = None
    ) -> Sequence[Recorded]:
        """The next records after an offset, oldest first, at most `limit`, and none after that which brings their data to
        `bytes_max`. Empty at the tail.

        Deltas of closed parts may have been compacted away; the record that closes the part is still there and carries
        all of its text, so a fold from any offset ends in the same state. Raises NotFound for an unknown session."""
        ...

    async def missing(
        self, directory: str, known: Mapping[str, int], *, limit: int, bytes_max: int
    ) -> Sequence[Recorded]:
        """Records of the directory's sessions behind the version that is known of each, oldest first; of sessions that are
        not named, all. At most `limit`, and none after that which brings their data to `bytes_max`. Costs what is missing,
        and a look at each session."""
        ...

    def subscribe(self, scope: Scope, *, after: Offset | None = None) -> AsyncIterator[Sequence[Recorded]]:
        """Every later event once, in order, in batches as they become durable: first what is recorded (catch-up), then
        live, without gap or repeat at the handover. `after=None` is "from now"; now is when this is called, not when
        iteration starts. Never ends by itself, except that the subscription of a session ends after its
        `session.deleted` and every subscription ends when the store closes."""
        ...


class SessionStore(StreamStore, Protocol):
    """Sessions: events in, state out."""

    # --- writing

    async def append(
        self,
        session_id: str,
        events: Sequence[Event] | Decide,
        *,
        expected: int | None = None,
        key: str | None = None,
        lease: Lease | None = None,
    ) -> Appended:
        """Record events of a session and the state they give, in one transaction, or nothing.

        `events` are the events, or a function that decides them from the state they will meet (possibly none).
        Each event gets an id (`evt_…`). The first event of a new session is `session.created`.
        `expected`: only if the session is at this version. `key`: idempotency key within the session; a second append
        with it records nothing and answers what the first was answered, until `forget_keys`. `lease`: only while it is
        the newest.

        Raises NotFound (no such session, or deleted), VersionConflict, LeaseLost, StorageError; an event that the
        reducer refuses (NotFound, Conflict) refuses the whole append. When it raises, nothing was recorded;
        only after a StorageError of a disk that failed in the commit nobody knows until it is read again (repeat it with
        its `key`). Cancelling the caller does not undo an append that has begun."""
        ...

    async def claim(self, session_id: str, owner: str, *, now_ms: int, ttl_ms: int) -> Lease | None:
        """Take or renew the lease of a session's turn; None while another owner's lease has not expired. A renewal by the
        holder keeps its token. Leases of a process that is gone do not outlive it on a store that one process owns."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease back; a later claim may succeed at once. Nothing happens if it is no longer the newest."""
        ...

    # --- reading

    async def session(self, session_id: str) -> Session: ...

    async def sessions(self, query: SessionQuery) -> Sequence[bytes]:
        """Wire JSON of each Session found."""
        ...

    async def session_page(self, query: SessionQuery) -> SessionPage: ...

    async def statuses(self, directory: str | None = None) -> dict[str, SessionStatus]:
        """Of every session that is not idle."""
        ...

    async def todos(self, session_id: str) -> tuple[Todo, ...]: ...

    async def message(self, session_id: str, message_id: str) -> WithParts:
        """Raises NotFound for a message of another session as for one that does not exist."""
        ...

    async def message_page(
        self, session_id: str, *, limit: int | None = None, before: int | None = None, after: int | None = None
    ) -> MessagePage:
        """The newest `limit` messages (all without), among those added before session version `before`. With `after`, the
        oldest instead, among those added after that version."""
        ...

    async def history(self, session_id: str) -> tuple[WithParts, ...]:
        """All messages, oldest first."""
        ...

    async def turn_state(self, session_id: str) -> TurnState:
        """What decides the session's next step."""
        ...

    async def unfinished(self) -> Sequence[str]:
        """Sessions with an active turn or a queued prompt: what a starting server has to take up."""
        ...

    async def pending_permissions(self, directory: str | None = None) -> Sequence[PermissionEntry]: ...

    async def pending_questions(self, directory: str | None = None) -> Sequence[QuestionEntry]: ...

    async def approvals(self, project_id: str) -> Sequence[PermissionRule]:
        """What users allowed for good in a project, oldest first. Recorded with the reply; outlives its session."""
        ...

    async def directories(self) -> Sequence[Directory]: ...

    async def snapshot(self, scope: Scope, *, changed_since_ms: int, sessions_max: int, messages_max: int) -> Snapshot:
        """Sessions of the scope that are not idle or were updated since, newest first, with their newest messages: one
        consistent view."""
        ...

    # --- upkeep

    async def compact(self, *, closed_before_ms: int, records_max: int) -> int:
        """Remove one small batch of records that a later record of the same part made redundant: deltas, and `running`
        updates of tools, of parts that closed before the given time; also the records of deleted sessions up to their
        `session.deleted`. Answers how many records went away (0: nothing left to do). Appends go on meanwhile."""
        ...

    async def forget_keys(self, *, before_ms: int, keys_max: int) -> int:
        """Forget one small batch of idempotency keys whose append is older than this. Answers how many (0: none is left)."""
        ...

    def verify(self) -> AsyncIterator[Difference]:
        """Fold every log again and compare with the stored state, row by row. Nothing yielded: all is well."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, end subscriptions, let go of the files."""
        ...
