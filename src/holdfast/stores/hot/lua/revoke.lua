#!lua
-- Keep a revocation, never a weaker one than there is, under a new number; forget those that have lapsed.
-- KEYS: revocations, by number, by lapse, numbers given    ARGV: 1 what it is about, 2 before, 3 until, 4 by, 5 now
-- Answers before and until as they stand.
for _, about in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[5], 'LIMIT', 0, 1000)) do
  redis.call('HDEL', KEYS[1], about)
  redis.call('ZREM', KEYS[2], about)
  redis.call('ZREM', KEYS[3], about)
end
local before, ends = ARGV[2], ARGV[3]
local ended = redis.call('ZSCORE', KEYS[3], ARGV[1])
if ended and tonumber(ended) > tonumber(ARGV[5]) then
  local was = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1]))
  if tonumber(was[1]) > tonumber(before) then before = was[1] end
  if tonumber(was[2]) > tonumber(ends) then ends = was[2] end
end
redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack({before, ends, ARGV[4]}))
redis.call('ZADD', KEYS[2], redis.call('INCR', KEYS[4]), ARGV[1])
redis.call('ZADD', KEYS[3], ends, ARGV[1])
return {before, ends}
