"""Byte streams checked: what a stream's row says of its records, its forks and its source, against the rows themselves.

One stream after the other, each in one read transaction, so writes may go on beside it. A difference names the stream's path
where those of sessions name the session.
"""

from collections.abc import Iterator

import msgspec

from holdfast.core.json_runs import split
from holdfast.core.store import Difference
from holdfast.core.streams import Stream
from holdfast.storage.sqlite.database import Database

_decode = msgspec.json.Decoder(Stream).decode


def structure(database: Database) -> list[Difference]:
    """Rows that belong to no stream, and forks that were not counted."""
    found: list[Difference] = []
    for table in ("byte_record", "byte_producer"):
        orphans = database.all(
            f"SELECT DISTINCT stream FROM {table} WHERE stream NOT IN (SELECT id FROM byte_stream) "
            "AND stream NOT IN (SELECT stream FROM byte_dropped)"
        )
        found += [Difference("", f"{table} of stream {stream}", "a row", None) for (stream,) in orphans]
    miscounted = database.all(
        "SELECT path, ifnull(data ->> '$.forks', 0) AS stored, ifnull(n, 0) AS counted FROM byte_stream LEFT JOIN "
        "(SELECT data ->> '$.source_id' AS source, count(*) AS n FROM byte_stream GROUP BY source) ON source = id "
        "WHERE stored != counted"
    )
    return found + [Difference(path, "forks", str(stored), str(counted)) for path, stored, counted in miscounted]


def stream_ids(database: Database) -> list[int]:
    return [stream_id for (stream_id,) in database.all("SELECT id FROM byte_stream ORDER BY id")]


def stream(database: Database, stream_id: int) -> list[Difference]:
    row = database.one("SELECT path, data FROM byte_stream WHERE id = ?", stream_id)
    return list(_differences(database, *row)) if row is not None else []


def _differences(database: Database, path: str, data: bytes) -> Iterator[Difference]:
    try:
        stream = _decode(data)
    except msgspec.MsgspecError as error:
        yield Difference(path, "state", f"unreadable: {error}", None)
        return
    count, size, newest = database.one(
        "SELECT count(*), ifnull(sum(length(data)), 0), max(position) FROM byte_record WHERE stream = ?", stream.id
    )
    for what, stored, found in (
        ("path", stream.path, path),
        ("records", stream.records, count),
        ("bytes", stream.bytes, size),
        ("tail", stream.tail, newest if newest is not None else stream.tail),
    ):
        if stored != found:
            yield Difference(path, what, str(stored), str(found))
    if stream.source_id is not None and not database.one("SELECT 1 FROM byte_stream WHERE id = ?", stream.source_id):
        yield Difference(path, "source", str(stream.source_id), None)
    if stream.is_json:
        for position, run in database.each("SELECT position, data FROM byte_record WHERE stream = ?", stream.id):
            try:
                split(run)
            except msgspec.MsgspecError as error:
                yield Difference(path, f"record {position}", f"not JSON: {error}", None)
