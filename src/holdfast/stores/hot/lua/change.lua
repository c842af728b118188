#!lua flags=no-writes
-- The entry with a change id, and its step.
-- KEYS: log    ARGV: 1 change id
local step = redis.call('HGET', KEYS[1], 'c:' .. ARGV[1])
return step and {step, redis.call('HGET', KEYS[1], step)}
