"""What a client lacks of the logs of a directory, told by how far it knows each session: for clients that keep a copy.

A record's place in its session is its `seq`, from 0; compaction leaves gaps, and who folds what is left ends in the same state.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from holdfast.core.offsets import BEGINNING
from holdfast.core.store import DirectoryScope, Recorded, SessionStore

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
        found: list[SyncRecord] = []
        size = 0
        after = BEGINNING
        while batch := await self._store.read(DirectoryScope(directory), after=after):
            after = batch[-1].offset
            for record in batch:
                if record.version - 1 > known.get(record.session_id, -1):
                    found.append(_row(record))
                    size += len(record.data)
                    if len(found) >= _RECORDS_MAX or size >= _BYTES_MAX:
                        return found
        return found


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
