#!lua flags=no-writes
-- The entry with a change id, and its step; nothing of one that is trimmed.
-- KEYS: log    ARGV: 1 change id
local step = redis.call('HGET', KEYS[1], 'c:' .. ARGV[1])
local entry = step and redis.call('HGET', KEYS[1], step)
return entry and {step, entry}
