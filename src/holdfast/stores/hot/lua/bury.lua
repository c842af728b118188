#!lua flags=allow-oom
-- Take entries off the flush queue and put them among the dead letters. One that has left the queue stays out. What
-- waits of its session counts as flushed, until it is queued again.
-- KEYS: queue, dead letters, flushed [, the session of each entry]    ARGV: 1 reason, then the entries' ids
for at = 2, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[at], ARGV[at])[1]
  if entry then
    redis.call('HSET', KEYS[2], entry[1], cmsgpack.pack({ARGV[1], entry[2]}))
    redis.call('XDEL', KEYS[1], entry[1])
    local session = KEYS[at + 2]
    local stands = session and redis.pcall('HMGET', session, 'step', 'queued') or {}
    local first, ticket = string.match(stands[2] or '', '^(%d+) (.+)$')
    if ticket == entry[1] then
      redis.call('INCRBY', KEYS[3], tonumber(stands[1]) - tonumber(first) + 1)
      redis.call('HDEL', session, 'queued')
    end
  end
  redis.call('XACK', KEYS[1], 'flush', ARGV[at])
end
return 1
