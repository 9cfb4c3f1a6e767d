"""The backend that keeps everything in memory: the ports in their plainest form, for tests and for throw-away servers.

Durable for as long as the process. One `core.fold.Fold` per session is the stored state; nothing runs in a thread.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

from holdfast.core.codec import decode, encode, tag_of, to_json
from holdfast.core.errors import LeaseLost, NotFound, Unavailable, VersionConflict
from holdfast.core.events import Event, PartDelta, PartUpdated, SessionCreated, SessionDeleted, SessionUpdated
from holdfast.core.fold import Fold
from holdfast.core.ids import IdGenerator
from holdfast.core.messages import Part, WithParts, is_open
from holdfast.core.offsets import BEGINNING, Offset, position_of, to_offset, to_position
from holdfast.core.permissions import PermissionRule
from holdfast.core.reducer import Approve, Change, Clear, Delete, EndRequests, Get, Put
from holdfast.core.search import Terms, folded, has_terms, terms_of, text_of, words
from holdfast.core.session import Session, SessionStatus, StatusIdle, Todo
from holdfast.core.state import Entity, Key, PermissionEntry, QuestionEntry, TurnState
from holdfast.core.store import (
    Appended,
    Decide,
    Difference,
    Directory,
    DirectoryScope,
    Lease,
    MessagePage,
    RawMessage,
    Recorded,
    Scope,
    SessionPage,
    SessionQuery,
    SessionScope,
    SessionSnapshot,
    Snapshot,
    first_of,
)
from holdfast.storage.draft import draft
from holdfast.storage.memory_byte_streams import MemoryByteStreams
from holdfast.storage.memory_subscriptions import MemorySubscriptions
from holdfast.storage.session_pages import Listed, page_of, place_of
from holdfast.storage.tail import BYTES_MAX, PAGE_RECORDS, Subscription, Tails


class MemoryStore:
    """`ids` must not be used by another store. `tail_bytes_max` and `page_records` are for tests of the handover."""

    def __init__(
        self,
        clock_ms: Callable[[], int],
        ids: IdGenerator,
        *,
        tail_bytes_max: int = BYTES_MAX,
        page_records: int = PAGE_RECORDS,
    ) -> None:
        self.ids = ids
        self.byte_streams = MemoryByteStreams(clock_ms).streams
        self.subscriptions = MemorySubscriptions()
        self._clock_ms = clock_ms
        self._closed = False
        self._position = 0
        self._token = 0
        self._log: list[Recorded] = []
        self._streams: dict[str, _Stream] = {}
        self._leases: dict[str, tuple[Lease, int]] = {}
        self._redundant: list[_Redundant] = []
        self._approvals: dict[str, dict[tuple[str, str], PermissionRule]] = {}
        self._tails = Tails(self, self._is_over, bytes_max=tail_bytes_max, page_records=page_records)

    # --- the log

    def head(self) -> Offset:
        return self._log[-1].offset if self._log else BEGINNING

    async def read(
        self, scope: Scope, *, after: Offset, limit: int = 1000, bytes_max: int | None = None
    ) -> Sequence[Recorded]:
        if isinstance(scope, SessionScope):
            self._stream(scope.session_id, deleted=True)
        start = bisect_right(self._log, after, key=lambda record: record.offset)
        following = (self._log[index] for index in range(start, len(self._log)))
        found = (record for record in following if _is_in(scope, record.session_id, record.directory))
        return first_of(found, limit, bytes_max)

    async def missing(
        self, directory: str, known: Mapping[str, int], *, limit: int, bytes_max: int
    ) -> Sequence[Recorded]:
        unknown = [
            record
            for record in self._log
            if record.directory == directory and record.version > known.get(record.session_id, 0)
        ]
        return first_of(unknown, limit, bytes_max)

    def subscribe(self, scope: Scope, *, after: Offset | None = None) -> Subscription:
        return self._tails.subscribe(scope, after)

    async def _is_over(self, session_id: str) -> bool:
        return self._stream(session_id, deleted=True).deleted

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
        self._check_open()
        stream = self._streams.get(session_id)
        if stream is not None and key is not None and key in stream.keys:
            return stream.keys[key]
        if stream is not None and stream.deleted:
            raise NotFound("Session", session_id)
        version = stream.version if stream is not None else 0
        if expected is not None and expected != version:
            raise VersionConflict(f"Session {session_id} is at version {version}, not {expected}.")
        if lease is not None:
            held = self._leases.get(session_id)
            if held is None or held[0].token != lease.token:
                raise LeaseLost(session_id)
        get: Get = stream.fold.entities.get if stream is not None else _nothing
        steps = draft(session_id, get, events(get) if callable(events) else events)
        encoded = [encode(step.event, self.ids.new("evt")) for step in steps]
        if stream is None:
            first = steps[0].event if steps else None
            if not isinstance(first, SessionCreated):
                raise NotFound("Session", session_id)
            stream = _Stream(first.info, len(self._streams))

        self._streams[session_id] = stream
        self._position = max(self._position, position_of(self._clock_ms()))
        recorded: list[Recorded] = []
        for step, data in zip(steps, encoded, strict=True):
            self._position += 1
            stream.version += 1
            stream.offset = to_offset(self._position)
            self._note_redundant(stream, step.changes)
            stream.apply(step.event, step.changes, self._position)
            self._approve(step.changes)
            recorded.append(
                Recorded(
                    stream.offset,
                    session_id,
                    stream.directory,
                    stream.project_id,
                    stream.version,
                    tag_of(step.event),
                    data,
                )
            )
        self._log += recorded
        self._tails.publish(recorded)
        appended = Appended(stream.offset, stream.version, len(steps))
        if key is not None:
            stream.keys[key] = Appended(stream.offset, stream.version, len(steps), duplicate=True)
        return appended

    def _note_redundant(self, stream: "_Stream", changes: Sequence[Change]) -> None:
        """Before the changes are applied: what becomes redundant by them."""
        now, last = self._clock_ms(), self._position
        for change in changes:
            match change:
                case Clear():
                    self._redundant.append(_Redundant(now, stream, None, 0, last))
                case Delete(key) if key.kind == "message":
                    for other, entity in stream.fold.entities.items():
                        if isinstance(entity, Part) and entity.message_id == key.id and is_open(entity):
                            self._redundant.append(
                                _Redundant(now, stream, other.id, stream.added[other].position, last)
                            )
                case Put(key) | Delete(key) if key.kind == "part":
                    known = stream.fold.entities.get(key)
                    closes = not isinstance(change, Put) or not _is_open_part(change.entity)
                    if known is not None and _is_open_part(known) and closes:
                        self._redundant.append(_Redundant(now, stream, key.id, stream.added[key].position, last))
                case _:
                    pass

    def _approve(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Approve):
                known = self._approvals.setdefault(change.project_id, {})
                for pattern in change.patterns:
                    rule = PermissionRule(permission=change.permission, pattern=pattern, action="allow")
                    known.setdefault((change.permission, pattern), rule)

    async def claim(self, session_id: str, owner: str, *, now_ms: int, ttl_ms: int) -> Lease | None:
        self._check_open()
        self._stream(session_id)
        held = self._leases.get(session_id)
        if held is not None and held[0].owner == owner:
            lease = held[0]
        elif held is not None and held[1] > now_ms:
            return None
        else:
            self._token += 1
            lease = Lease(session_id, owner, self._token)
        self._leases[session_id] = lease, now_ms + ttl_ms
        return lease

    async def release(self, lease: Lease) -> None:
        held = self._leases.get(lease.session_id)
        if held is not None and held[0].token == lease.token:
            del self._leases[lease.session_id]

    # --- reading

    def _stream(self, session_id: str, *, deleted: bool = False) -> "_Stream":
        """`deleted`: also one that was deleted."""
        stream = self._streams.get(session_id)
        if stream is None or (stream.deleted and not deleted):
            raise NotFound("Session", session_id)
        return stream

    def _living(self, directory: str | None = None) -> "Iterator[_Stream]":
        for stream in self._streams.values():
            if not stream.deleted and directory in (None, stream.directory):
                yield stream

    async def session(self, session_id: str) -> Session:
        return self._stream(session_id).fold.session

    async def sessions(self, query: SessionQuery) -> Sequence[bytes]:
        return [to_json(stream.fold.session) for stream in self._found(query)[: query.limit]]

    async def session_page(self, query: SessionQuery) -> SessionPage:
        found = self._found(query)
        listed = [stream.listed() for stream in found]
        if query.limit is None:
            return SessionPage(tuple(one.data for one in listed))
        page, following = page_of(listed, query.limit, lambda ms: [one for one in listed if one.updated == ms])
        return SessionPage(tuple(one.data for one in page), following)

    def _found(self, query: SessionQuery) -> "list[_Stream]":
        terms = terms_of(query.search or "")
        return _newest_first(
            [
                stream
                for stream in self._living()
                if _answers(query, stream.fold.session, stream.number) and (not terms.of_title or stream.has(terms))
            ]
        )

    async def statuses(self, directory: str | None = None) -> dict[str, SessionStatus]:
        return {
            stream.session_id: stream.fold.status
            for stream in self._living(directory)
            if not isinstance(stream.fold.status, StatusIdle)
        }

    async def todos(self, session_id: str) -> tuple[Todo, ...]:
        return self._stream(session_id).fold.todos.todos

    async def message(self, session_id: str, message_id: str) -> WithParts:
        for message in self._stream(session_id).fold.messages():
            if message.info.id == message_id:
                return message
        raise NotFound("Message", message_id)

    async def message_page(
        self, session_id: str, *, limit: int | None = None, before: int | None = None, after: int | None = None
    ) -> MessagePage:
        return self._stream(session_id).page(limit, before, after)

    async def history(self, session_id: str) -> tuple[WithParts, ...]:
        return self._stream(session_id).fold.messages()

    async def turn_state(self, session_id: str) -> TurnState:
        return self._stream(session_id).fold.turn_state()

    async def unfinished(self) -> Sequence[str]:
        return [stream.session_id for stream in self._living() if stream.fold.turns.active or stream.fold.turns.queue]

    async def pending_permissions(self, directory: str | None = None) -> Sequence[PermissionEntry]:
        found = [
            (stream.added[Key("permission", entry.request.id)].position, entry)
            for stream in self._living(directory)
            for entry in stream.fold.permissions()
            if entry.reply is None
        ]
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    async def pending_questions(self, directory: str | None = None) -> Sequence[QuestionEntry]:
        found = [
            (stream.added[Key("question", entry.request.id)].position, entry)
            for stream in self._living(directory)
            for entry in stream.fold.questions()
            if entry.answers is None and not entry.rejected
        ]
        return [entry for _, entry in sorted(found, key=lambda pair: pair[0])]

    async def approvals(self, project_id: str) -> Sequence[PermissionRule]:
        return list(self._approvals.get(project_id, {}).values())

    async def directories(self) -> Sequence[Directory]:
        found: dict[str, Directory] = {}
        for stream in sorted(self._streams.values(), key=lambda stream: stream.info.time.updated):
            time = stream.info.time
            known = found.get(stream.directory)
            created = min(time.created, known.created) if known else time.created
            found[stream.directory] = Directory(stream.directory, stream.project_id, created, time.updated)
        return sorted(found.values(), key=lambda directory: directory.directory)

    async def snapshot(self, scope: Scope, *, changed_since_ms: int, sessions_max: int, messages_max: int) -> Snapshot:
        if isinstance(scope, SessionScope):
            self._stream(scope.session_id, deleted=True)
        found = [
            stream
            for stream in self._living()
            if _is_in(scope, stream.session_id, stream.directory)
            and (not isinstance(stream.fold.status, StatusIdle) or stream.info.time.updated >= changed_since_ms)
        ]
        return Snapshot(
            self.head(),
            tuple(
                SessionSnapshot(
                    to_json(stream.fold.session),
                    stream.directory,
                    stream.project_id,
                    stream.fold.status,
                    stream.page(messages_max, None).messages,
                )
                for stream in _newest_first(found)[:sessions_max]
            ),
        )

    # --- upkeep

    async def compact(self, *, closed_before_ms: int, records_max: int) -> int:
        self._check_open()
        removed: set[Offset] = set()
        for entry in [entry for entry in self._redundant if entry.since_ms < closed_before_ms]:
            if len(removed) >= records_max:
                break
            rows = [record.offset for record in self._log if entry.covers(record)]
            removed.update(rows[: records_max - len(removed)])
            if removed.issuperset(rows):
                self._redundant.remove(entry)
                if entry.is_whole:
                    entry.stream.keys.clear()
        self._log = [record for record in self._log if record.offset not in removed]
        return len(removed)

    async def forget_keys(self, *, before_ms: int, keys_max: int) -> int:
        self._check_open()
        old = [
            (stream, key)
            for stream in self._streams.values()
            for key, appended in stream.keys.items()
            if to_position(appended.offset) < before_ms * 1000
        ][:keys_max]
        for stream, key in old:
            del stream.keys[key]
        return len(old)

    async def verify(self) -> AsyncIterator[Difference]:
        for stream in self._streams.values():
            log = [record for record in self._log if record.session_id == stream.session_id]
            fold = Fold() if stream.deleted else Fold(decode(record.tag, record.data)[1] for record in log)
            for key in dict.fromkeys([*fold.entities, *stream.fold.entities]):
                stored, folded = stream.fold.get(key), fold.get(key)
                if stored != folded:
                    yield Difference(
                        stream.session_id,
                        f"{key.kind} {key.id}".strip(),
                        to_json(stored).decode() if stored is not None else None,
                        to_json(folded).decode() if folded is not None else None,
                    )

    async def close(self) -> None:
        self._closed = True
        self._tails.close()
        self.byte_streams.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("The store is closed.", hint="Start the server again.")


class _Added:
    """Where an entity was added: position in the store, version of its session."""

    __slots__ = ("position", "version")

    def __init__(self, position: int, version: int) -> None:
        self.position = position
        self.version = version


class _Stream:
    """A session's state. Directory and project are those it was created with; `info` is the last one recorded, and stays
    when the session is deleted. `number` counts the sessions of the store."""

    def __init__(self, info: Session, number: int) -> None:
        self.number = number
        self.session_id = info.id
        self.directory = info.directory
        self.project_id = info.project_id
        self.info = info
        self.version = 0
        self.offset = BEGINNING
        self.deleted = False
        self.fold = Fold()
        self.added: dict[Key, _Added] = {}
        self.keys: dict[str, Appended] = {}

    def apply(self, event: Event, changes: Sequence[Change], position: int) -> None:
        assert self.fold.apply(event)
        if isinstance(event, SessionCreated | SessionUpdated | SessionDeleted):
            self.info = event.info
            self.deleted = isinstance(event, SessionDeleted)
        for change in changes:
            if isinstance(change, Put):
                self.added.setdefault(change.key, _Added(position, self.version))
        if any(isinstance(change, Delete | Clear | EndRequests) for change in changes):
            self.added = {key: added for key, added in self.added.items() if key in self.fold.entities}

    def listed(self) -> Listed:
        return Listed(to_json(self.fold.session), self.info.time.updated, self.number)

    def has(self, terms: Terms) -> bool:
        """Whether a search for them finds the session."""
        title = folded(self.fold.session.title)
        if all(term in title for term in terms.of_title):
            return True
        texts = (text_of(entity) for entity in self.fold.entities.values() if isinstance(entity, Part))
        return any(text is not None and has_terms(words(text), terms) for text in texts)

    def page(self, limit: int | None, before: int | None, after: int | None = None) -> MessagePage:
        found = [
            (version, message)
            for message in self.fold.messages()
            for version in (self.added[Key("message", message.info.id)].version,)
            if (before is None or version < before) and (after is None or version > after)
        ]
        skipped = max(len(found) - limit, 0) if limit is not None else 0
        page = (
            RawMessage(message.info.id, version, to_json(message.info), tuple(to_json(part) for part in message.parts))
            for version, message in (found[skipped:] if after is None else found[: len(found) - skipped])
        )
        return MessagePage(tuple(page), skipped > 0)


class _Redundant:
    """The records of a part (of the whole session, if None) between two positions are redundant since a time."""

    def __init__(self, since_ms: int, stream: _Stream, part_id: str | None, first: int, last: int) -> None:
        self.since_ms = since_ms
        self.stream = stream
        self._part_id = part_id
        self._first = first
        self._last = last

    @property
    def is_whole(self) -> bool:
        return self._part_id is None

    def covers(self, record: Recorded) -> bool:
        if record.session_id != self.stream.session_id or not self._first < to_position(record.offset) < self._last:
            return False
        return self._part_id is None or _part_of(record) == self._part_id


def _nothing(key: Key) -> Entity | None:
    return None


def _part_of(record: Recorded) -> str | None:
    match decode(record.tag, record.data)[1]:
        case PartDelta(part_id=part_id):
            return part_id
        case PartUpdated(part=part):
            return part.id
        case _:
            return None


def _is_open_part(entity: object) -> bool:
    return isinstance(entity, Part) and is_open(entity)


def _is_in(scope: Scope, session_id: str, directory: str) -> bool:
    match scope:
        case SessionScope():
            return session_id == scope.session_id
        case DirectoryScope():
            return directory == scope.directory
        case _:
            return True


def _answers(query: SessionQuery, session: Session, number: int) -> bool:
    return (
        query.directory in (None, session.directory)
        and query.project_id in (None, session.project_id)
        and query.parent_id in (None, session.parent_id)
        and not (query.roots and session.parent_id is not None)
        and (query.updated_since is None or session.time.updated >= query.updated_since)
        and (query.updated_before is None or place_of(session.time.updated, number) < query.updated_before)
        and query.archived in (None, session.time.archived is not None)
    )


def _newest_first(streams: list[_Stream]) -> list[_Stream]:
    return sorted(streams, key=lambda stream: (stream.info.time.updated, stream.number), reverse=True)
