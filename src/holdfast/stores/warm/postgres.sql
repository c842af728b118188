-- The warm tier in PostgreSQL. Each part below is applied once, in this order; what has been released is never altered, it
-- is followed by another part. {schema} is the schema of the tables. Text is compared byte by byte (COLLATE "C"): an order
-- that does not depend on the machine, and indexes that outlive an upgrade of its libraries.

-- migration 1: the catalogue, the log, snapshots, the audit, revocations

CREATE TABLE {schema}.session (
    id        text COLLATE "C" PRIMARY KEY,
    tenant    text COLLATE "C" NOT NULL,
    owner     text COLLATE "C" NOT NULL,
    kind      text COLLATE "C" NOT NULL,
    status    text COLLATE "C" NOT NULL,
    step      bigint           NOT NULL,
    version   bigint           NOT NULL,
    digest    bytea            NOT NULL,
    created   double precision NOT NULL,
    due       double precision,
    sealed    bytea            NOT NULL,
    key       bytea,                                -- wrapped data key; NULL: destroyed
    purged    boolean          NOT NULL DEFAULT false, -- of payloads only the hashes are left
    archive   text                                  -- key of the object in the cold tier that holds log and items
) WITH (fillfactor = 80);                           -- room for the next head beside this one: no index is touched
ALTER TABLE {schema}.session ALTER COLUMN sealed SET STORAGE EXTERNAL; -- what is sealed does not compress
CREATE INDEX session_all ON {schema}.session (created, id);
CREATE INDEX session_newest ON {schema}.session (tenant, created, id);
CREATE INDEX session_owner ON {schema}.session (tenant, owner, created, id);
CREATE INDEX session_kind ON {schema}.session (tenant, kind, created, id);
CREATE INDEX session_status ON {schema}.session (tenant, status, created, id);
CREATE INDEX session_kind_status ON {schema}.session (tenant, kind, status, created, id);
CREATE INDEX session_under_way ON {schema}.session (status, kind) WHERE status IN ('draft', 'locked');
CREATE INDEX session_due ON {schema}.session (due) WHERE due IS NOT NULL;
CREATE INDEX session_archived ON {schema}.session (id) WHERE archive IS NOT NULL;

CREATE TABLE {schema}.member (                      -- who beside the owner may know of a session
    tenant    text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    created   double precision NOT NULL,            -- as the session's: they are listed newest first
    id        text COLLATE "C" NOT NULL,            -- the session's
    PRIMARY KEY (tenant, principal, created, id)
);
CREATE INDEX member_session ON {schema}.member (id);

CREATE TABLE {schema}.log (
    session   text COLLATE "C" NOT NULL,
    step      bigint           NOT NULL,
    version   bigint           NOT NULL,
    made      boolean          NOT NULL,            -- a commit, which made the version; else a lifecycle step
    change    text COLLATE "C" NOT NULL,
    header    bytea            NOT NULL,
    payload   bytea            NOT NULL,
    digest    bytea            NOT NULL,
    PRIMARY KEY (session, step)
);
ALTER TABLE {schema}.log ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX log_change ON {schema}.log (session, change) INCLUDE (step);

CREATE TABLE {schema}.snapshot (
    session   text COLLATE "C" PRIMARY KEY,
    step      bigint           NOT NULL,            -- that the items stand at
    items     bytea            NOT NULL             -- all of them, packed: one row to write, be they two thousand
);
ALTER TABLE {schema}.snapshot ALTER COLUMN items SET STORAGE EXTERNAL;

CREATE TABLE {schema}.audit (
    chain     text COLLATE "C" NOT NULL,
    seq       bigint           NOT NULL,
    tenant    text COLLATE "C" NOT NULL,
    session   text COLLATE "C" NOT NULL,
    line      bytea            NOT NULL,
    mac       bytea            NOT NULL,
    PRIMARY KEY (chain, seq)
);
CREATE INDEX audit_tenant ON {schema}.audit (tenant, chain, seq);
CREATE INDEX audit_session ON {schema}.audit (session, chain, seq) WHERE session <> '';

CREATE TABLE {schema}.identity (                    -- one row: a name of what these tables hold
    id        text COLLATE "C" PRIMARY KEY
);
INSERT INTO {schema}.identity (id) VALUES (gen_random_uuid()::text);

CREATE TABLE {schema}.audit_chain (                 -- where each chain ends, apart from its lines: a truncation shows
    chain     text COLLATE "C" PRIMARY KEY,
    seq       bigint           NOT NULL,
    mac       bytea            NOT NULL,
    "end"     bytea            NOT NULL
);

CREATE TABLE {schema}.revocation (
    no        bigint           NOT NULL,            -- grows with each change, also of a row that was there
    tenant    text COLLATE "C" NOT NULL,
    token     text COLLATE "C" NOT NULL,
    principal text COLLATE "C" NOT NULL,
    before    double precision NOT NULL,
    until     double precision NOT NULL,
    "by"      text             NOT NULL,
    PRIMARY KEY (tenant, token, principal)
);
CREATE UNIQUE INDEX revocation_no ON {schema}.revocation (no);
CREATE INDEX revocation_until ON {schema}.revocation (until);
CREATE TABLE {schema}.revocation_last (no bigint NOT NULL); -- one row: the last number given
INSERT INTO {schema}.revocation_last VALUES (0);

-- Ends the statement that asks for it. An error of our own, and no constraint: what a constraint says quotes the row.
CREATE FUNCTION {schema}.refuse(session text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'ZH001', MESSAGE = 'another entry stands at that step', DETAIL = session;
END
$$;

-- Keeps entries of sessions that are there, whose rows the caller holds. Those that are there already change nothing; another
-- one at a step, or under a change id, is refused.
CREATE FUNCTION {schema}.keep(entries json, bytes bytea) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    fresh bigint;
BEGIN
    INSERT INTO {schema}.log (session, step, version, made, change, header, payload, digest)
    SELECT
        e.session, e.step, e.version, e.made, e.change, substring(bytes FROM e.header[1] FOR e.header[2]),
        CASE WHEN s.purged THEN sha256(substring(bytes FROM e.payload[1] FOR e.payload[2]))
            ELSE substring(bytes FROM e.payload[1] FOR e.payload[2]) END,
        substring(bytes FROM e.digest[1] FOR e.digest[2])
    FROM json_to_recordset(entries) AS e (
            session text, step bigint, version bigint, made boolean, change text,
            header int[], payload int[], digest int[]
        )
        JOIN {schema}.session AS s ON s.id = e.session
    ORDER BY e.session COLLATE "C", e.step
    ON CONFLICT DO NOTHING;

    GET DIAGNOSTICS fresh = ROW_COUNT;
    IF fresh < json_array_length(entries) THEN -- some were there, and are looked at
        PERFORM {schema}.refuse(e.session)
        FROM json_to_recordset(entries) AS e (session text, step bigint, digest int[])
            LEFT JOIN {schema}.log AS kept ON kept.session = e.session AND kept.step = e.step
        WHERE kept.digest IS DISTINCT FROM substring(bytes FROM e.digest[1] FOR e.digest[2]);
    END IF;
END
$$;

-- A whole batch in one round trip, planned once for a server connection however many poolers stand before it. heads and
-- entries describe it; bytes has their bytes, each where the description says: [first, counted from 1; how many].
--
-- Each statement in here sees what was committed when that statement began. The first holds the rows of all its sessions
-- when it ends, taken in one order, so that two batches never wait for each other; what the next ones see of those sessions
-- is therefore as it will be: whose members they are, and whether they are purged.
CREATE FUNCTION {schema}.append(heads json, entries json, bytes bytea) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off AS $$ -- whatever the planner knew of the tables when the connection was new
DECLARE
    taken text[];
BEGIN
    WITH newer AS (
        INSERT INTO {schema}.session AS s
            (id, tenant, owner, kind, status, step, version, digest, created, due, sealed, key)
        SELECT
            h.id, h.tenant, h.owner, h.kind, h.status, h.step, h.version, substring(bytes FROM h.digest[1] FOR h.digest[2]),
            h.created, h.due, substring(bytes FROM h.sealed[1] FOR h.sealed[2]),
            substring(bytes FROM h.key[1] FOR h.key[2])
        FROM json_to_recordset(heads) AS h (
            id text, tenant text, owner text, kind text, status text, step bigint, version bigint,
            created double precision, due double precision, digest int[], sealed int[], key int[]
        )
        ORDER BY h.id COLLATE "C"
        ON CONFLICT (id) DO UPDATE SET
            owner = excluded.owner, status = excluded.status, step = excluded.step, version = excluded.version,
            digest = excluded.digest, due = excluded.due, sealed = excluded.sealed
        WHERE CASE -- the row is held even where it is not newer
            WHEN excluded.step = s.step AND excluded.digest <> s.digest THEN {schema}.refuse(s.id) > 0
            ELSE excluded.step > s.step END
        RETURNING s.id
    )
    SELECT array_agg(id) INTO taken FROM newer;

    DELETE FROM {schema}.member AS m
    USING json_to_recordset(heads) AS h (id text, members text[])
    WHERE m.id = h.id AND h.id = ANY (taken) AND h.members IS NOT NULL AND NOT m.principal = ANY (h.members);

    INSERT INTO {schema}.member (tenant, principal, created, id)
    SELECT s.tenant, principal, s.created, s.id
    FROM json_to_recordset(heads) AS h (id text, members text[])
        JOIN {schema}.session AS s ON s.id = h.id
        CROSS JOIN unnest(h.members) AS principal
    WHERE h.id = ANY (taken) AND NOT s.purged
    ON CONFLICT DO NOTHING;

    PERFORM {schema}.keep(entries, bytes);
END
$$;

-- The first statement waits for an append that is under way, and the second sees what it brought; one that comes later
-- finds the session purged.
CREATE FUNCTION {schema}.purge(purging text) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE
    before boolean;
BEGIN
    SELECT purged INTO before FROM {schema}.session WHERE id = purging FOR UPDATE;
    IF NOT before THEN -- a destroyed key alone does not say so: it may have been destroyed to shred the session
        UPDATE {schema}.log SET payload = sha256(payload) WHERE session = purging;
    END IF;
    DELETE FROM {schema}.member WHERE id = purging;
    DELETE FROM {schema}.snapshot WHERE session = purging;
    UPDATE {schema}.session SET key = NULL, due = NULL, archive = NULL, purged = true WHERE id = purging;
END
$$;

-- Each of the following holds the session's row first, for the same reason. It keeps the items of a session in place of those of
-- an earlier step.
CREATE FUNCTION {schema}.keep_items(keeping text, snapped bigint, packed bytea) RETURNS void LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM {schema}.session WHERE id = keeping AND NOT purged AND archive IS NULL FOR UPDATE;
    IF FOUND THEN
        INSERT INTO {schema}.snapshot AS kept (session, step, items) VALUES (keeping, snapped, packed)
        ON CONFLICT (session) DO UPDATE SET step = excluded.step, items = excluded.items
        WHERE excluded.step >= kept.step;
    END IF;
END
$$;

-- It makes a stub of a session; whether it has.
CREATE FUNCTION {schema}.archive(archiving text, at bigint, place text) RETURNS boolean LANGUAGE plpgsql
SET enable_seqscan = off AS $$
BEGIN
    UPDATE {schema}.session SET archive = place
    WHERE id = archiving AND step = at AND NOT purged AND archive IS NULL;
    IF NOT FOUND THEN -- unless by this very object: who asks again because the answer was lost must not remove it
        RETURN EXISTS (SELECT FROM {schema}.session WHERE id = archiving AND step = at AND archive = place);
    END IF;
    DELETE FROM {schema}.log WHERE session = archiving;
    DELETE FROM {schema}.snapshot WHERE session = archiving;
    RETURN true;
END
$$;

-- It takes back what a stub was made of, if it still is the stub of that object.
CREATE FUNCTION {schema}.restore(
    restoring text, place text, snapped bigint, packed bytea, entries json, bytes bytea
) RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    PERFORM FROM {schema}.session WHERE id = restoring AND archive = place FOR UPDATE;
    IF FOUND THEN
        PERFORM {schema}.keep(entries, bytes);
        UPDATE {schema}.session SET archive = NULL WHERE id = restoring;
        PERFORM {schema}.keep_items(restoring, snapped, packed);
    END IF;
END
$$;

-- The number of a revocation is not taken from a sequence: of two that are made at once the later number might be there to be
-- read before the earlier one, and who has read it goes on from it. The one row of revocation_last is held until the
-- revocation is there for all, and the next number is given after that.
CREATE FUNCTION {schema}.revoke(
    of_tenant text, of_token text, of_principal text, issued double precision, lapses double precision, by_whom text,
    instant double precision
) RETURNS TABLE (stands double precision, ends double precision) LANGUAGE plpgsql AS $$
DECLARE
    number bigint;
BEGIN
    UPDATE {schema}.revocation_last SET no = no + 1 RETURNING no INTO number;
    DELETE FROM {schema}.revocation WHERE until <= instant;
    RETURN QUERY
        INSERT INTO {schema}.revocation AS r (no, tenant, token, principal, before, until, "by")
        VALUES (number, of_tenant, of_token, of_principal, issued, lapses, by_whom)
        ON CONFLICT (tenant, token, principal) DO UPDATE SET
            no = excluded.no, before = greatest(r.before, excluded.before), until = greatest(r.until, excluded.until),
            "by" = excluded."by"
        RETURNING r.before, r.until;
END
$$;
