#!lua flags=no-writes
-- The step of a change id, be its entry trimmed or not; 0 if the session has no such id.
-- KEYS: session, log    ARGV: 1 change id
return redis.call('EXISTS', KEYS[1]) == 1 and (tonumber(redis.call('HGET', KEYS[2], 'c:' .. ARGV[1])) or 0)
