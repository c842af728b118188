#!lua flags=allow-oom
-- Give a lease back if it is the last one granted; its fence is not given again.
-- KEYS: session    ARGV: 1 fence
if redis.call('HGET', KEYS[1], 'fence') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'holder', 'until', 'seconds')
end
return 1
