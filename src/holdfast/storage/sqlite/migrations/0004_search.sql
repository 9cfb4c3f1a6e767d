-- Words of texts, to be searched; whether a session is archived; sessions of a project in order. The functions holdfast_…
-- are ours (search.py): what they answer of a row's JSON.
CREATE TABLE old_session AS SELECT * FROM session;
DROP TABLE session;

CREATE TABLE session (
    stream INTEGER PRIMARY KEY,
    directory TEXT NOT NULL,
    project_id TEXT NOT NULL,
    parent_id TEXT,
    title_folded TEXT NOT NULL,
    archived INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    busy INTEGER NOT NULL,
    unfinished INTEGER NOT NULL,
    data BLOB NOT NULL,
    status BLOB NOT NULL,
    todo BLOB NOT NULL,
    turns BLOB NOT NULL
) STRICT;

INSERT INTO session
SELECT stream, directory, project_id, parent_id, holdfast_title(data), holdfast_archived(data), updated, busy, unfinished,
    data, status, todo, turns
FROM old_session;
DROP TABLE old_session;

CREATE INDEX session_updated ON session (updated);
CREATE INDEX session_directory ON session (directory, updated);
CREATE INDEX session_project ON session (project_id, updated);
CREATE INDEX session_parent ON session (parent_id, updated) WHERE parent_id IS NOT NULL;
CREATE INDEX session_busy ON session (stream) WHERE busy;
CREATE INDEX session_unfinished ON session (stream) WHERE unfinished;

CREATE VIRTUAL TABLE text_index USING fts5 (words, content = '', contentless_delete = 1, tokenize = 'ascii');
CREATE VIRTUAL TABLE text_word USING fts5vocab ('text_index', 'instance');

INSERT INTO text_index (rowid, words)
SELECT position, holdfast_words(data) FROM part WHERE grows_after IS NULL AND holdfast_words(data) IS NOT NULL;
