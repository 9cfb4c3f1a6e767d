-- The whole schema as all migrations together make it, to be read in one place; a test holds the two equal.
-- Times are milliseconds. A position is an integer that orders everything in the store (core/offsets.py).

-- ---------------------------------------------------------------------------------------------------------------
-- The log of the sessions. It is the truth; all other tables about sessions can be made from it again.

-- One stream per session, for ever: a deleted session keeps its stream, so that its id is never used again.
-- directory and project_id are those the session was created with; created and updated are what it said last.
CREATE TABLE stream (
    id INTEGER PRIMARY KEY,
    session_id TEXT NOT NULL UNIQUE,
    directory TEXT NOT NULL,
    project_id TEXT NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
) STRICT;

-- version counts the records of a stream. part: the position of the record that added the part this one is about, if it
-- is about one. data: the wire JSON, made once.
CREATE TABLE record (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    version INTEGER NOT NULL,
    tag TEXT NOT NULL,
    part INTEGER,
    data BLOB NOT NULL
) STRICT;

-- An index entry ends with the position: this orders a stream by position, and no other index is needed.
CREATE INDEX record_stream ON record (stream);

-- ---------------------------------------------------------------------------------------------------------------
-- State, folded from the log in the same transaction. data, status, todo and turns are wire JSON; the other columns say
-- nothing that the JSON does not, and are there to be searched. position is that of the record that added the row.

CREATE TABLE session (
    stream INTEGER PRIMARY KEY,
    directory TEXT NOT NULL,
    project_id TEXT NOT NULL,
    parent_id TEXT,
    title_folded TEXT NOT NULL, -- without letter case
    archived INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    busy INTEGER NOT NULL, -- the status is not idle
    unfinished INTEGER NOT NULL, -- a turn is active, or a prompt waits
    data BLOB NOT NULL,
    status BLOB NOT NULL,
    todo BLOB NOT NULL,
    turns BLOB NOT NULL
) STRICT;

CREATE INDEX session_updated ON session (updated);
CREATE INDEX session_directory ON session (directory, updated);
CREATE INDEX session_project ON session (project_id, updated);
CREATE INDEX session_parent ON session (parent_id, updated) WHERE parent_id IS NOT NULL;
CREATE INDEX session_busy ON session (stream) WHERE busy;
CREATE INDEX session_unfinished ON session (stream) WHERE unfinished;

-- version: of the session, when the message was added. It orders messages. parent_id: of an assistant's message.
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

-- message: its position. grows_after: the part is open, and the deltas that the log has after this position belong to it.
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

-- The words of texts (core/search.py), by the position of their part. It has no copy of them; text_word shows what it has.
CREATE VIRTUAL TABLE text_index USING fts5 (words, content = '', contentless_delete = 1, tokenize = 'ascii');
CREATE VIRTUAL TABLE text_word USING fts5vocab ('text_index', 'instance');

-- kind: permission or question. Gone when the turn ends, answered or not.
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

-- What users allowed for good, in a project. Outlives the session in which it was said.
CREATE TABLE approval (
    id INTEGER PRIMARY KEY,
    project_id TEXT NOT NULL,
    permission TEXT NOT NULL,
    pattern TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX approval_rule ON approval (project_id, permission, pattern);

-- ---------------------------------------------------------------------------------------------------------------
-- Beside log and state.

-- Idempotency keys, and what the append that came with one was answered. Goes with the session.
CREATE TABLE receipt (
    stream INTEGER NOT NULL,
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    version INTEGER NOT NULL,
    recorded INTEGER NOT NULL,
    PRIMARY KEY (stream, key)
) STRICT, WITHOUT ROWID;

-- Work for compaction: since since_ms, the records of the part (of the whole stream, if NULL) between the positions first
-- and last, both left out, say nothing that a later one does not.
CREATE TABLE redundant (
    id INTEGER PRIMARY KEY,
    since_ms INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    part INTEGER,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT;

CREATE INDEX redundant_since ON redundant (since_ms);

-- ---------------------------------------------------------------------------------------------------------------
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

-- One row: a position that no stream or record may have any more, also when those that had it are gone.
CREATE TABLE byte_position (
    newest INTEGER NOT NULL
) STRICT;

-- Subscriptions on streams: state as JSON (core.subscriptions.Subscription), and the keys that webhooks are signed with.
CREATE TABLE subscription (
    id TEXT PRIMARY KEY,
    data BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_key (
    kid TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL,
    private BLOB NOT NULL
) STRICT, WITHOUT ROWID;
