CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE,
    directory TEXT NOT NULL,
    project_id TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    version INTEGER NOT NULL,
    tag TEXT NOT NULL,
    part INTEGER,
    data BLOB NOT NULL
) STRICT;

CREATE INDEX record_stream ON record (stream);

CREATE TABLE session (
    stream INTEGER PRIMARY KEY,
    directory TEXT NOT NULL,
    project_id TEXT NOT NULL,
    parent_id TEXT,
    title_folded TEXT NOT NULL,
    updated INTEGER NOT NULL,
    busy INTEGER NOT NULL,
    unfinished INTEGER NOT NULL,
    data BLOB NOT NULL,
    status BLOB NOT NULL,
    todo BLOB NOT NULL,
    turns BLOB NOT NULL
) STRICT;

CREATE INDEX session_updated ON session (updated);
CREATE INDEX session_directory ON session (directory, updated);
CREATE INDEX session_parent ON session (parent_id, updated) WHERE parent_id IS NOT NULL;
CREATE INDEX session_busy ON session (stream) WHERE busy;
CREATE INDEX session_unfinished ON session (stream) WHERE unfinished;

CREATE TABLE message (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    version INTEGER NOT NULL,
    id TEXT NOT NULL,
    parent_id TEXT,
    data BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX message_id ON message (stream, id);
CREATE INDEX message_version ON message (stream, version);
CREATE INDEX message_parent ON message (stream, parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE part (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    message INTEGER NOT NULL,
    id TEXT NOT NULL,
    grows_after INTEGER,
    data BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX part_id ON part (stream, id);
CREATE INDEX part_message ON part (stream, message);

CREATE TABLE request (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    pending INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX request_id ON request (stream, kind, id);
CREATE INDEX request_pending ON request (kind) WHERE pending;

CREATE TABLE approval (
    id INTEGER PRIMARY KEY,
    project_id TEXT NOT NULL,
    permission TEXT NOT NULL,
    pattern TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX approval_rule ON approval (project_id, permission, pattern);

CREATE TABLE receipt (
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    version INTEGER NOT NULL,
    recorded INTEGER NOT NULL,
    PRIMARY KEY (stream, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE redundant (
    id INTEGER PRIMARY KEY,
    since_ms INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    part INTEGER,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT;

CREATE INDEX redundant_since ON redundant (since_ms);
