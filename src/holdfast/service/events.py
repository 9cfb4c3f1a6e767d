"""What happens, as it is recorded: from any offset on, or from now with the state that leads up to it.

A client that says where it stopped gets every later event once. One that does not (the stock TUI never does, and never
asks again for what it missed) gets the present state of the sessions that matter, then every event after that state.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.offsets import Offset
from holdfast.core.permissions import PermissionRequest
from holdfast.core.questions import QuestionRequest
from holdfast.core.store import AllScope, DirectoryScope, Recorded, Scope, SessionScope, SessionStore, Snapshot

_CHANGED_WITHIN_MS: Final = 24 * 3600 * 1000  # longer than a lid stays closed over night
_SESSIONS_MAX: Final = 16
_MESSAGES_MAX: Final = 20


class Feed(msgspec.Struct, frozen=True, kw_only=True):
    """`live` is every event after `snapshot.offset`, or after the offset that was asked for if `snapshot` is None.
    `permissions` and `questions` are what waits for the user; they are read after the snapshot, so `live` may repeat or
    revoke one, but none is missing."""

    snapshot: Snapshot | None
    permissions: Sequence[PermissionRequest] = ()
    questions: Sequence[QuestionRequest] = ()
    live: AsyncIterator[Sequence[Recorded]]


class EventService:
    def __init__(self, store: SessionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def closed(self) -> None:
        """Return when the store closes, as the server stops: then every subscription ends, also one that nothing is told."""
        async for _ in self._store.subscribe(DirectoryScope("")):
            pass

    async def open(self, scope: Scope, after: Offset | None) -> Feed:
        """Raises NotFound for a session that never existed. An offset beyond the end of the log is none of this log's (it
        was restored from an older copy, say): whoever comes with one is given the present state."""
        if after is not None and after <= self._store.head():
            if isinstance(scope, SessionScope):
                await self._store.read(scope, after=after, limit=1)
            return Feed(snapshot=None, live=self._store.subscribe(scope, after=after))
        snapshot = await self._store.snapshot(
            scope,
            changed_since_ms=self._clock.now_ms() - _CHANGED_WITHIN_MS,
            sessions_max=_SESSIONS_MAX,
            messages_max=_MESSAGES_MAX,
        )
        live = self._store.subscribe(scope, after=snapshot.offset)
        directory = scope.directory if isinstance(scope, DirectoryScope) else None
        permissions = [entry.request for entry in await self._store.pending_permissions(directory)]
        questions = [entry.request for entry in await self._store.pending_questions(directory)]
        return Feed(
            snapshot=snapshot,
            permissions=[request for request in permissions if _is_in(scope, request.session_id)],
            questions=[request for request in questions if _is_in(scope, request.session_id)],
            live=live,
        )


def _is_in(scope: AllScope | DirectoryScope | SessionScope, session_id: str) -> bool:
    return not isinstance(scope, SessionScope) or scope.session_id == session_id
