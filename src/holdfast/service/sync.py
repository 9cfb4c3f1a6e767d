"""What a client lacks of the logs of a directory, told by how far it knows each session: for clients that keep a copy.

A record's place in its session is its `seq`, from 0; compaction leaves gaps, and who folds what is left ends in the same state.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from holdfast.core.store import Recorded, SessionStore

_RECORDS_MAX: Final = 10_000
_BYTES_MAX: Final = 8 * 1024 * 1024


class SyncRecord(msgspec.Struct, frozen=True):
    """A record as a row of OpenCode's event table. `data` is JSON."""

    id: str
    aggregate_id: str
    seq: int
    type: str
    data: msgspec.Raw


class SyncService:
    def __init__(self, store: SessionStore) -> None:
        self._store = store

    async def history(self, directory: str, known: Mapping[str, int]) -> list[SyncRecord]:
        """Records of the directory's sessions after the `seq` that is known of each, oldest first. A bounded number: ask
        again with what came, until nothing does."""
        versions = {session_id: seq + 1 for session_id, seq in known.items()}
        missing = await self._store.missing(directory, versions, limit=_RECORDS_MAX, bytes_max=_BYTES_MAX)
        return [_row(record) for record in missing]


class _Envelope(msgspec.Struct):
    id: str
    properties: msgspec.Raw


_envelope = msgspec.json.Decoder(_Envelope)


def _row(record: Recorded) -> SyncRecord:
    event = _envelope.decode(record.data)
    return SyncRecord(
        id=event.id,
        aggregate_id=record.session_id,
        seq=record.version - 1,
        type=record.tag,
        data=event.properties,
    )
