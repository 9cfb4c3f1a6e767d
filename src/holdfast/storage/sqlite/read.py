"""Queries: what readers ask of the database. Each runs in a reading thread, on a connection of its own, in one read
transaction, so that it sees one state of the store however many statements it takes.

Owns the SQL that reads state and log. Changes nothing.
"""

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any

from msgspec.structs import replace

from holdfast.core.errors import NotFound
from holdfast.core.messages import WithParts
from holdfast.core.offsets import Offset, to_offset, to_position
from holdfast.core.permissions import PermissionRule
from holdfast.core.search import terms_of
from holdfast.core.session import Session, SessionStatus, Todo
from holdfast.core.state import PermissionEntry, QuestionEntry, TurnState, prompts_of
from holdfast.core.store import (
    Directory,
    DirectoryScope,
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
from holdfast.storage.session_pages import FRACTIONS, Listed, page_of
from holdfast.storage.sqlite import search
from holdfast.storage.sqlite.database import Database
from holdfast.storage.sqlite.rows import (
    grown,
    to_message,
    to_part,
    to_permission,
    to_question,
    to_session,
    to_status,
    to_todo,
    to_turns,
)

STREAMS_KNOWN_MAX = 10_000
POSITION_MAX = (1 << 63) - 1
_ROWS_AT_A_TIME_MAX = 256


class Queries:
    """The queries of one connection, in one thread."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._all = database.all
        self._one = database.one
        self._streams: dict[int, tuple[str, str, str]] = {}

    # --- the log

    def read(self, scope: Scope, after: Offset, limit: int, bytes_max: int | None = None) -> list[Recorded]:
        position = to_position(after)
        columns = "r.position, r.stream, r.version, r.tag, r.data"
        match scope:
            case SessionScope():
                rows = self.database.each(
                    f"SELECT {columns} FROM record r WHERE stream = ? AND position > ? ORDER BY position LIMIT ?",
                    self.stream_id(scope.session_id),
                    position,
                    limit,
                )
            case DirectoryScope():
                # CROSS JOIN: walk the log from the position. The other order would collect and sort all of the directory.
                rows = self.database.each(
                    f"SELECT {columns} FROM record r CROSS JOIN stream s ON s.id = r.stream"
                    " WHERE r.position > ? AND s.directory = ? ORDER BY r.position LIMIT ?",
                    position,
                    scope.directory,
                    limit,
                )
            case _:
                rows = self.database.each(
                    f"SELECT {columns} FROM record r WHERE position > ? ORDER BY position LIMIT ?", position, limit
                )
        return first_of(map(self._recorded, rows), limit, bytes_max)

    def missing(self, directory: str, known: Mapping[str, int], limit: int, bytes_max: int) -> Sequence[Recorded]:
        """By session, each from the place that is known of it; so what is known costs nothing, wherever it lies in the log."""
        behind = [
            self._rows_after(stream, after)
            for stream, session_id in self._all("SELECT id, session_id FROM stream WHERE directory = ?", directory)
            if (after := self._place(stream, known.get(session_id, 0))) is not None
        ]
        return first_of(map(self._recorded, heapq.merge(*behind, key=itemgetter(0))), limit, bytes_max)

    def _place(self, stream: int, version: int) -> int | None:
        """The position behind which the records after that version of a stream stand; None if there are none."""
        newest = (
            "SELECT position, version FROM record WHERE stream = ? AND position <= ? ORDER BY position DESC LIMIT 1"
        )
        last, newest_version = self._one(newest, stream, POSITION_MAX) or (0, 0)
        if newest_version <= version:
            return None
        [low] = self._one("SELECT min(position) - 1 FROM record WHERE stream = ?", stream)
        high = last  # versions grow with positions: the one looked for is in [low, high)
        while version and low < high - 1:
            middle = (low + high) // 2
            found = self._one(newest, stream, middle)
            if found is not None and found[1] > version:
                high = found[0]
            else:
                low = middle
        return low

    def _rows_after(self, stream: int, position: int) -> Iterator[Any]:
        """As they are asked for: few at first, since most of many sessions are not the first to be asked."""
        count = 4
        while True:
            rows = self._all(
                "SELECT position, stream, version, tag, data FROM record WHERE stream = ? AND position > ?"
                " ORDER BY position LIMIT ?",
                stream,
                position,
                count,
            )
            yield from rows
            if len(rows) < count:
                return
            position = rows[-1][0]
            count = min(count * 4, _ROWS_AT_A_TIME_MAX)

    def _recorded(self, row: Any) -> Recorded:
        position, stream, version, tag, data = row
        return Recorded(to_offset(position), *self._stream(stream), version, tag, data)

    def _stream(self, id: int) -> tuple[str, str, str]:
        """session_id, directory, project_id of a stream; they never change."""
        known = self._streams.get(id)
        if known is None:
            if len(self._streams) >= STREAMS_KNOWN_MAX:
                self._streams.clear()
            known = self._one("SELECT session_id, directory, project_id FROM stream WHERE id = ?", id)
            self._streams[id] = known
        return known

    def stream_id(self, session_id: str) -> int:
        """Also of a session that was deleted."""
        row = self._one("SELECT id FROM stream WHERE session_id = ?", session_id)
        if row is None:
            raise NotFound("Session", session_id)
        return row[0]

    def is_over(self, session_id: str) -> bool:
        row = self._one("SELECT deleted FROM stream WHERE session_id = ?", session_id)
        if row is None:
            raise NotFound("Session", session_id)
        return bool(row[0])

    # --- sessions

    def _session(self, session_id: str, columns: str) -> Any:
        row = self._one(
            f"SELECT {columns} FROM stream JOIN session ON session.stream = stream.id WHERE session_id = ?", session_id
        )
        if row is None:
            raise NotFound("Session", session_id)
        return row

    def session(self, session_id: str) -> Session:
        return to_session(self._session(session_id, "data")[0])

    def sessions(self, query: SessionQuery) -> list[bytes]:
        return [session.data for session in self._sessions(query, query.limit)]

    def session_page(self, query: SessionQuery) -> SessionPage:
        if query.limit is None:
            return SessionPage(tuple(self.sessions(query)))
        before = math.inf if query.updated_before is None else query.updated_before

        def updated_at(ms: int) -> list[Listed]:
            since = max(ms, query.updated_since or 0)
            return self._sessions(replace(query, updated_since=since, updated_before=min(before, ms + 1)), None)

        page, following = page_of(self._sessions(query, query.limit + 1), query.limit, updated_at)
        return SessionPage(tuple(session.data for session in page), following)

    def _sessions(self, query: SessionQuery, limit: int | None) -> list[Listed]:
        conditions: list[tuple[str, Any]] = []
        if query.directory is not None:
            conditions.append(("directory = ?", query.directory))
        if query.project_id is not None:
            conditions.append(("project_id = ?", query.project_id))
        if query.parent_id is not None:
            conditions.append(("parent_id = ?", query.parent_id))
        if query.updated_since is not None:
            conditions.append(("updated >= ?", query.updated_since))
        before = query.updated_before
        if before is not None:
            conditions.append(("updated < ?", math.ceil(before)))
            if before != int(before):
                conditions.append((f"updated + stream % {FRACTIONS} / {FRACTIONS}.0 < ?", before))
        where = [condition for condition, _ in conditions]
        bindings = [value for _, value in conditions]
        if query.roots:
            where.append("parent_id IS NULL")
        if query.archived is not None:
            where.append("archived" if query.archived else "NOT archived")
        terms = terms_of(query.search or "")
        if terms.of_title:
            found, looked_for = search.condition(terms)
            where.append(found)
            bindings += looked_for
        rows = self._all(
            f"SELECT data, updated, stream FROM session WHERE {' AND '.join(where) or 'true'}"
            " ORDER BY updated DESC, stream DESC LIMIT ?",
            *bindings,
            -1 if limit is None else limit,
        )
        return [Listed(*row) for row in rows]

    def statuses(self, directory: str | None) -> dict[str, SessionStatus]:
        rows = self._all(
            "SELECT st.session_id, s.status FROM session s JOIN stream st ON st.id = s.stream"
            " WHERE s.busy AND (?1 IS NULL OR st.directory = ?1) ORDER BY s.stream",
            directory,
        )
        return {session_id: to_status(status) for session_id, status in rows}

    def todos(self, session_id: str) -> tuple[Todo, ...]:
        return to_todo(self._session(session_id, "todo")[0]).todos

    def unfinished(self) -> list[str]:
        rows = self._all(
            "SELECT st.session_id FROM session s JOIN stream st ON st.id = s.stream WHERE s.unfinished ORDER BY s.stream"
        )
        return [session_id for (session_id,) in rows]

    def directories(self) -> list[Directory]:
        rows = self._all(
            "SELECT directory, project_id, min(created), max(updated) FROM stream GROUP BY directory ORDER BY directory"
        )
        return [Directory(*row) for row in rows]

    # --- messages

    def message(self, session_id: str, message_id: str) -> WithParts:
        (stream,) = self._session(session_id, "stream")
        row = self._one("SELECT position, data FROM message WHERE stream = ? AND id = ?", stream, message_id)
        if row is None:
            raise NotFound("Message", message_id)
        return self._with_parts(stream, [row])[0]

    def message_page(
        self, session_id: str, limit: int | None, before: int | None, after: int | None = None
    ) -> MessagePage:
        (stream,) = self._session(session_id, "stream")
        return self._page(stream, limit, before, after)

    def history(self, session_id: str) -> tuple[WithParts, ...]:
        (stream,) = self._session(session_id, "stream")
        return self._with_parts(
            stream, self._all("SELECT position, data FROM message WHERE stream = ? ORDER BY version", stream)
        )

    def _page(self, stream: int, limit: int | None, before: int | None, after: int | None = None) -> MessagePage:
        rows = self._all(
            "SELECT position, version, id, data FROM message WHERE stream = ? AND version < ? AND version > ?"
            f" ORDER BY version {'DESC' if after is None else 'ASC'} LIMIT ?",
            stream,
            before if before is not None else 1 << 62,
            after if after is not None else -1,
            limit + 1 if limit is not None else -1,
        )
        more = limit is not None and len(rows) > limit
        rows = rows[:limit][:: -1 if after is None else 1]
        parts = self._parts(stream, [row[0] for row in rows])
        return MessagePage(
            tuple(
                RawMessage(id, version, data, tuple(parts.get(position, ()))) for position, version, id, data in rows
            ),
            more,
        )

    def _with_parts(self, stream: int, rows: Sequence[tuple[int, bytes]]) -> tuple[WithParts, ...]:
        """Messages from (position, data), oldest first."""
        parts = self._parts(stream, [position for position, _ in rows])
        return tuple(
            WithParts(info=to_message(data), parts=tuple(to_part(part) for part in parts.get(position, ())))
            for position, data in rows
        )

    def _parts(self, stream: int, messages: Sequence[int]) -> dict[int, list[bytes]]:
        """The parts of the messages at these positions (ascending), open ones with what the log adds to their row."""
        found: dict[int, list[bytes]] = {}
        if not messages:
            return found
        rows = self._all(
            "SELECT message, position, grows_after, data FROM part"
            " WHERE stream = ? AND message BETWEEN ? AND ? ORDER BY message, position",
            stream,
            messages[0],
            messages[-1],
        )
        for message, position, grows_after, data in rows:
            if grows_after is not None:
                data = grown(self.database, stream, position, grows_after, data)
            found.setdefault(message, []).append(data)
        return found

    # --- turns and requests

    def turn_state(self, session_id: str) -> TurnState:
        stream, session, status, turns_data = self._session(session_id, "stream, data, status, turns")
        turns = to_turns(turns_data)
        prompts = prompts_of(turns)
        user: WithParts | None = None
        step: WithParts | None = None
        if prompts:
            rows = self._all("SELECT position, data FROM message WHERE stream = ? AND id = ?", stream, prompts[-1])
            user = next(iter(self._with_parts(stream, rows)), None)
        if turns.active:
            rows = self._all(
                "SELECT position, data FROM message WHERE stream = ?1"
                " AND version > ifnull((SELECT version FROM message WHERE stream = ?1 AND id = ?2), 0)"
                # From the newest back, to the prompt at most. Without + it would collect and sort all steps of the turn.
                f" AND +parent_id IN ({', '.join(f'?{n + 2}' for n in range(len(prompts)))}) ORDER BY version DESC LIMIT 1",
                stream,
                *prompts,
            )
            step = next(iter(self._with_parts(stream, rows)), None)
        requests = self._all("SELECT kind, data FROM request WHERE stream = ? ORDER BY position", stream)
        return TurnState(
            session=to_session(session),
            status=to_status(status),
            turns=turns,
            user=user,
            step=step,
            permissions=tuple(to_permission(data) for kind, data in requests if kind == "permission"),
            questions=tuple(to_question(data) for kind, data in requests if kind == "question"),
        )

    def pending_permissions(self, directory: str | None) -> list[PermissionEntry]:
        return [to_permission(data) for data in self._pending("permission", directory)]

    def pending_questions(self, directory: str | None) -> list[QuestionEntry]:
        return [to_question(data) for data in self._pending("question", directory)]

    def _pending(self, kind: str, directory: str | None) -> list[bytes]:
        rows = self._all(
            "SELECT r.data FROM request r JOIN stream s ON s.id = r.stream"
            " WHERE r.kind = ?1 AND r.pending AND (?2 IS NULL OR s.directory = ?2) ORDER BY r.position",
            kind,
            directory,
        )
        return [data for (data,) in rows]

    def approvals(self, project_id: str) -> list[PermissionRule]:
        rows = self._all("SELECT permission, pattern FROM approval WHERE project_id = ? ORDER BY id", project_id)
        return [PermissionRule(permission=permission, pattern=pattern, action="allow") for permission, pattern in rows]

    # --- snapshot

    def snapshot(self, scope: Scope, changed_since_ms: int, sessions_max: int, messages_max: int) -> Snapshot:
        match scope:
            case SessionScope():
                where, bindings = " AND st.id = ?", (self.stream_id(scope.session_id),)
            case DirectoryScope():
                where, bindings = " AND st.directory = ?", (scope.directory,)
            case _:
                where, bindings = "", ()
        head = self._one("SELECT ifnull(max(position), 0) FROM record")[0]
        # Each by its own index. Together (OR), the first one would be walked to the oldest session in search of a busy one.
        rows: dict[int, Any] = {}
        for condition, values, order in (
            ("s.updated >= ?", (changed_since_ms,), "s.updated"),
            ("s.busy", (), "+s.updated"),  # +: by the index of busy ones, not in order through all
        ):
            for stream, *row in self._all(
                "SELECT s.stream, s.updated, s.data, s.status, st.directory, st.project_id"
                " FROM session s CROSS JOIN stream st ON st.id = s.stream"
                f" WHERE {condition}{where} ORDER BY {order} DESC, s.stream DESC LIMIT ?",
                *values,
                *bindings,
                sessions_max,
            ):
                rows[stream] = row
        newest = sorted(rows.items(), key=lambda found: (found[1][0], found[0]), reverse=True)[:sessions_max]
        return Snapshot(
            to_offset(head),
            tuple(
                SessionSnapshot(
                    data, directory, project_id, to_status(status), self._page(stream, messages_max, None).messages
                )
                for stream, (_, data, status, directory, project_id) in newest
            ),
        )
