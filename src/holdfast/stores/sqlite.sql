-- The embedded hot and warm tiers, in one file. Both see the same log: what is committed hot is warm already, and nothing is
-- kept twice. Sessions are numbered here so that index entries stay short. A file that was made by an older Holdfast is brought
-- to this by UPGRADES in sqlite_rows.py.

CREATE TABLE IF NOT EXISTS session (
    no        INTEGER PRIMARY KEY,
    id        TEXT    NOT NULL UNIQUE,
    tenant    TEXT    NOT NULL,
    owner     TEXT    NOT NULL,
    kind      TEXT    NOT NULL,
    status    TEXT    NOT NULL,
    step      INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    digest    BLOB    NOT NULL,
    created   REAL    NOT NULL,
    due       REAL,
    fence     INTEGER NOT NULL DEFAULT 0,   -- the last granted; it never falls
    holder    TEXT,                         -- of the lease; NULL: released or never held
    until     REAL    NOT NULL DEFAULT 0,
    seconds   REAL    NOT NULL DEFAULT 0,
    key       BLOB,                         -- wrapped data key; NULL: destroyed
    purged    INTEGER NOT NULL DEFAULT 0,   -- 1: of payloads only the hashes are left
    sealed    BLOB    NOT NULL,
    archive   TEXT,                         -- key of the object in the cold tier that holds log and items
    snapped   INTEGER                       -- the step its items stand at; NULL: none are kept
) STRICT;
CREATE INDEX IF NOT EXISTS session_newest ON session (tenant, created DESC, id DESC);
CREATE INDEX IF NOT EXISTS session_owner ON session (tenant, owner, created DESC, id DESC);
CREATE INDEX IF NOT EXISTS session_under_way ON session (status, kind) WHERE status IN ('draft', 'locked');
CREATE INDEX IF NOT EXISTS session_due ON session (due) WHERE due IS NOT NULL;
CREATE INDEX IF NOT EXISTS session_archived ON session (no) WHERE archive IS NOT NULL;

CREATE TABLE IF NOT EXISTS member (         -- who beside the owner may know of a session
    tenant    TEXT    NOT NULL,
    principal TEXT    NOT NULL,
    created   REAL    NOT NULL,             -- as the session's: they are listed newest first
    id        TEXT    NOT NULL,             -- the session's
    PRIMARY KEY (tenant, principal, created, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS member_session ON member (id);

CREATE TABLE IF NOT EXISTS item (           -- the newest snapshot, which each hot write keeps up with the session
    session   INTEGER NOT NULL,
    id        BLOB    NOT NULL,
    version   INTEGER NOT NULL,
    sealed    BLOB    NOT NULL,
    UNIQUE (session, id)
) STRICT;

CREATE TABLE IF NOT EXISTS log (
    session   INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    version   INTEGER NOT NULL,
    made      INTEGER NOT NULL,             -- 1: a commit, which made the version; 0: a lifecycle step
    change    TEXT    NOT NULL,
    header    BLOB    NOT NULL,
    payload   BLOB    NOT NULL,
    digest    BLOB    NOT NULL,
    UNIQUE (session, step),
    UNIQUE (session, change)
) STRICT;

CREATE TABLE IF NOT EXISTS audit (
    chain     TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    tenant    TEXT    NOT NULL,
    session   TEXT    NOT NULL,
    line      BLOB    NOT NULL,
    mac       BLOB    NOT NULL,
    PRIMARY KEY (chain, seq)
) STRICT;
CREATE INDEX IF NOT EXISTS audit_session ON audit (session, chain, seq) WHERE session <> '';

CREATE TABLE IF NOT EXISTS audit_chain (    -- where each chain ends, apart from its lines: a truncation shows
    chain     TEXT    PRIMARY KEY,
    seq       INTEGER NOT NULL,
    mac       BLOB    NOT NULL,
    "end"     BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS epoch (
    boot      TEXT    PRIMARY KEY,
    instant   REAL    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS identity (       -- one row, made when it is first asked for
    id        TEXT    PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS revocation (
    no        INTEGER PRIMARY KEY AUTOINCREMENT,   -- grows with each change, also of a row that was there
    tenant    TEXT    NOT NULL,
    token     TEXT    NOT NULL,
    principal TEXT    NOT NULL,
    before    REAL    NOT NULL,
    until     REAL    NOT NULL,
    "by"      TEXT    NOT NULL,
    UNIQUE (tenant, token, principal)
) STRICT;
CREATE INDEX IF NOT EXISTS revocation_until ON revocation (until);
