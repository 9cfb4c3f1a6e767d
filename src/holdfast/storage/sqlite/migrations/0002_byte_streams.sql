-- Durable byte streams. `data` is the state of the stream as JSON (core.streams.Stream); the other columns are there to find
-- it. `look_ms`: not before then can it be expired. `retained`: it has a retention.
CREATE TABLE byte_stream (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    look_ms INTEGER,
    retained INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;

CREATE INDEX byte_stream_look ON byte_stream (look_ms) WHERE look_ms IS NOT NULL;
CREATE INDEX byte_stream_retained ON byte_stream (id) WHERE retained;

CREATE TABLE byte_record (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;

CREATE INDEX byte_record_stream ON byte_record (stream);

CREATE TABLE byte_producer (
    stream INTEGER NOT NULL,
    id TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (stream, id)
) STRICT, WITHOUT ROWID;

-- Streams that are gone, and whose records and producers still have to go.
CREATE TABLE byte_dropped (
    stream INTEGER PRIMARY KEY
) STRICT;
