"""Compaction, in the writing thread: records that a later record of the same part made redundant go away.

The work is a list of ranges, written by the appends that close or remove a part (`redundant`): between the record that
added a part and the one that closed it, every record of that part says only what the closing one says too. The first
one stays, because it gives the part its place, and the closing one, because it carries the text; so a fold of what is left
ends in the same state, from any offset. Of a deleted session only `session.deleted` stays.
"""

from holdfast.storage.sqlite.database import Database


def compact(database: Database, closed_before_ms: int, records_max: int) -> int:
    """One batch, at most `records_max` records. Answers how many went away; 0 only when nothing is left to do."""
    removed = 0
    while removed < records_max:
        entry = database.one(
            "SELECT id, stream, part, first, last FROM redundant WHERE since_ms < ? ORDER BY since_ms, id LIMIT 1",
            closed_before_ms,
        )
        if entry is None:
            break
        id, stream, part, first, last = entry
        wanted = records_max - removed
        positions = database.all(
            "SELECT position FROM record WHERE stream = ?1 AND position > ?2 AND position < ?3"
            " AND (?4 IS NULL OR part = ?4) ORDER BY position LIMIT ?5",
            stream,
            first,
            last,
            part,
            wanted,
        )
        database.run_many("DELETE FROM record WHERE position = ?", positions)
        removed += len(positions)
        if len(positions) == wanted:
            database.run("UPDATE redundant SET first = ? WHERE id = ?", positions[-1][0], id)
        else:
            database.run("DELETE FROM redundant WHERE id = ?", id)
            if part is None:
                database.run("DELETE FROM receipt WHERE stream = ?", stream)
    return removed


def forget_keys(database: Database, before_ms: int, keys_max: int) -> int:
    """One batch of receipts. The position in one is that of its append, and so the time of it (`append`, rule 2)."""
    old = database.all(
        "DELETE FROM receipt WHERE (stream, key) IN (SELECT stream, key FROM receipt WHERE position < ? LIMIT ?)"
        " RETURNING 1",
        before_ms * 1000,
        keys_max,
    )
    return len(old)
