#!lua
-- Put a session here that is not here, unless it was evicted at a later step than the one it comes with.
-- Its next fence is above the one that is named and above those that were granted before it was evicted.
-- Whether its owner's count has it is not known: its next write has it counted.
-- KEYS: session, log, due, moved, written, evicted, lately, flushed
-- ARGV: 1 session's id, 2 step, 3 due or '', 4 number of the last field, then fields and values of the session, then
--       those of the log
-- Answers 1, or 0 if nothing was changed.
local session, log, id = KEYS[1], KEYS[2], ARGV[1]
if redis.call('EXISTS', session) == 1 then
  return 0
end
local evicted = redis.call('HGET', KEYS[6], id)
if evicted and math.abs(tonumber(string.match(evicted, '^-?%d+'))) > tonumber(ARGV[2]) then
  return 0
end
local kept = string.match(evicted or ' ' .. (redis.call('HGET', KEYS[6], '') or ''), ' (%d+)$')
redis.call('UNLINK', log)
local last = tonumber(ARGV[4])
for first = 5, last, 4000 do
  redis.call('HSET', session, unpack(ARGV, first, math.min(first + 3999, last)))
end
for first = last + 1, #ARGV, 4000 do
  redis.call('HSET', log, unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
if kept and tonumber(kept) > tonumber(redis.call('HGET', session, 'fence') or 0) then
  redis.call('HSET', session, 'fence', kept)
end
redis.call('HSET', session, 'uncounted', '1')
if ARGV[3] ~= '' then
  redis.call('HSET', session, 'due', ARGV[3])
  redis.call('ZADD', KEYS[3], ARGV[3], id)
end
redis.call('ZADD', KEYS[4], redis.call('INCR', KEYS[5]), id)
redis.call('INCR', KEYS[8]) -- it comes from the warm tier: nothing waits
if evicted then
  redis.call('HDEL', KEYS[6], id)
  redis.call('LREM', KEYS[7], 0, id)
end
return 1
