#!lua flags=allow-oom
-- Set when a session is next due, if it still stands at a step.
-- KEYS: session, due    ARGV: 1 session's id, 2 step, 3 due or ''
if redis.call('HGET', KEYS[1], 'step') ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], 'due')
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[1], 'due', ARGV[3])
  redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
end
return 1
