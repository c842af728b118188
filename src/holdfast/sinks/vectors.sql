-- A text and its vector are kept once for each tenant, however many revisions hold them. Tenants share nothing, so that
-- none can learn from a forecast what another has published.

CREATE TABLE IF NOT EXISTS vector (
    tenant   TEXT NOT NULL,
    embedder TEXT NOT NULL,
    text     TEXT NOT NULL,             -- SHA-256 of the text, as hex
    value    BLOB NOT NULL,             -- little-endian float32
    crc      INTEGER NOT NULL,
    UNIQUE (tenant, embedder, text)
);

CREATE TABLE IF NOT EXISTS record (
    no     INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    text   TEXT NOT NULL,
    hash   TEXT NOT NULL,               -- SHA-256 of the text, empty where there is no text
    body   BLOB NOT NULL,
    UNIQUE (tenant, digest)
);
CREATE INDEX IF NOT EXISTS record_hash ON record (tenant, hash);

-- state: staged, live, past (was live; can be rolled back to), withdrawn (was rolled back), abandoned.
-- kept: its entries are here. A row stays for good: it is what fences late publishers out.
CREATE TABLE IF NOT EXISTS revision (
    no       INTEGER PRIMARY KEY,
    target   TEXT NOT NULL,
    revision TEXT NOT NULL,
    attempt  TEXT,
    state    TEXT NOT NULL,
    kept     INTEGER NOT NULL DEFAULT 1,
    opened   REAL NOT NULL,
    flip     INTEGER NOT NULL DEFAULT 0, -- the flip that last made it live
    UNIQUE (target, revision)
);

CREATE TABLE IF NOT EXISTS attempt (
    revision INTEGER NOT NULL REFERENCES revision (no),
    attempt  TEXT NOT NULL,
    PRIMARY KEY (revision, attempt)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS entry (
    revision INTEGER NOT NULL REFERENCES revision (no),
    number   INTEGER NOT NULL,
    key      TEXT NOT NULL,
    record   INTEGER NOT NULL REFERENCES record (no),
    PRIMARY KEY (revision, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entry_record ON entry (record);

-- Records that an entry was taken from: the only ones cleaning has to look at.
CREATE TABLE IF NOT EXISTS loose (record INTEGER PRIMARY KEY REFERENCES record (no) ON DELETE CASCADE);

-- Every change of what is live, with its receipt. Numbers are never used again.
CREATE TABLE IF NOT EXISTS flip (
    number    INTEGER PRIMARY KEY AUTOINCREMENT,
    target    TEXT NOT NULL,
    revision  TEXT,
    withdrawn TEXT,
    receipt   BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS flip_target ON flip (target, revision);

-- The pointer. The largest flip of a tenant's rows is the generation that readers compare what they hold in memory with.
CREATE TABLE IF NOT EXISTS live (
    target   TEXT PRIMARY KEY,
    tenant   TEXT NOT NULL,
    revision TEXT,
    flip     INTEGER NOT NULL REFERENCES flip (number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS live_tenant ON live (tenant, flip);
