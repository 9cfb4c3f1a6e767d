-- The newest position of byte streams, which a restart under a clock that was set back could not know of any more when the record or
-- stream that had it was removed.
CREATE TABLE byte_position (
    newest INTEGER NOT NULL
) STRICT;

INSERT INTO byte_position
SELECT max(
    ifnull((SELECT max(position) FROM byte_record), 0),
    ifnull((SELECT max(id) FROM byte_stream), 0),
    ifnull((SELECT max(data ->> '$.tail') FROM byte_stream), 0)
);
