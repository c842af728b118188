#!lua flags=allow-oom
-- Replace the wrapped data key if it is still the old one; without a new one, destroy it.
-- KEYS: session    ARGV: 1 old [, 2 new]
if redis.call('HGET', KEYS[1], 'key') ~= ARGV[1] then
  return 0
end
if ARGV[2] then
  redis.call('HSET', KEYS[1], 'key', ARGV[2])
else
  redis.call('HDEL', KEYS[1], 'key')
end
return 1
