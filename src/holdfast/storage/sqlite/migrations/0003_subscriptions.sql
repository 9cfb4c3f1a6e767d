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
