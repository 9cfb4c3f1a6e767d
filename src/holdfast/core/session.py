"""A session and what hangs on it directly: status, todo list, file diffs. Shapes as in OpenCode's V1 API."""

from typing import Any, Literal

import msgspec

from holdfast.core.permissions import PermissionRule
from holdfast.core.wire import Wire


class CacheTokens(Wire):
    read: int
    write: int


class Tokens(Wire):
    """Counts of model tokens. `total` is what the provider reported, when it did."""

    total: int | None = None
    input: int
    output: int
    reasoning: int
    cache: CacheTokens


NO_TOKENS = Tokens(input=0, output=0, reasoning=0, cache=CacheTokens(read=0, write=0))


class FileDiff(Wire):
    """What happened to one file; `patch` is a unified diff. (`SnapshotFileDiff` in OpenCode's schema.)"""

    file: str | None = None
    patch: str | None = None
    additions: int
    deletions: int
    status: Literal["added", "deleted", "modified"] | None = None


class SessionSummary(Wire):
    additions: int
    deletions: int
    files: int
    diffs: tuple[FileDiff, ...] | None = None


class SessionShare(Wire):
    url: str


class SessionModel(Wire):
    """The LLM last used. Here the field is `id`; in messages it is `modelID`."""

    id: str
    provider_id: str
    variant: str | None = None


class SessionTime(Wire):
    created: int
    updated: int
    compacting: int | None = None
    archived: int | None = None


class SessionRevert(Wire):
    message_id: str
    part_id: str | None = None
    snapshot: str | None = None
    diff: str | None = None


class Session(Wire):
    id: str
    slug: str
    version: str
    project_id: str
    directory: str
    path: str | None = None
    workspace_id: str | None = None
    parent_id: str | None = None
    title: str
    agent: str | None = None
    model: SessionModel | None = None
    summary: SessionSummary | None = None
    share: SessionShare | None = None
    cost: float
    tokens: Tokens
    metadata: dict[str, Any] | None = None
    permission: tuple[PermissionRule, ...] | None = None
    revert: SessionRevert | None = None
    time: SessionTime


class StatusIdle(Wire, tag_field="type", tag="idle"):
    pass


class StatusBusy(Wire, tag_field="type", tag="busy"):
    pass


class StatusRetry(Wire, tag_field="type", tag="retry"):
    """The model's provider failed; attempt number `attempt` starts at the wall-clock time `next` (ms)."""

    attempt: int
    message: str
    next: int


SessionStatus = StatusIdle | StatusBusy | StatusRetry

IDLE = StatusIdle()
BUSY = StatusBusy()


class Todo(Wire):
    content: str
    status: str
    priority: str


def touched(session: Session, now_ms: int) -> Session:
    """The session as of now: `time.updated` moves, everything else stays."""
    return msgspec.structs.replace(session, time=msgspec.structs.replace(session.time, updated=now_ms))
