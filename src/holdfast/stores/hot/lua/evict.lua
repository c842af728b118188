#!lua flags=allow-oom
-- Forget a session, but for its id, the step it stood at and the last fence granted: no creation and no older state may
-- come in its place, and no fence that was granted before.
-- Who follows the session may not have seen its last write yet: of those evicted last the number of that write is kept.
-- The warm tier has all of it, so that it leaves the flush queue too.
-- KEYS: session, log, due, moved, evicted, lately, queue, flushed
-- ARGV: 1 session's id, 2 step, 3 now, 4 '1' for by force
-- Answers 1 if it was here and is not any more.
local id = ARGV[1]
local stands = redis.call('HMGET', KEYS[1], 'step', 'status', 'holder', 'until', 'queued', 'fence')
if not stands[1] then
  local was = ARGV[4] == '1' and redis.call('HGET', KEYS[5], id)
  if was then -- whatever comes in its place now is welcome
    redis.call('HSET', KEYS[5], id, (string.gsub(was, '^(-?)%d+', '%10')))
  end
  return 0
end
if stands[1] ~= ARGV[2] then
  return 0
end
if ARGV[4] ~= '1' and stands[3] and tonumber(stands[4]) > tonumber(ARGV[3]) then
  return 0
end
local gone = stands[2] == 'discarded' or stands[2] == 'expired'
if stands[5] then
  local first, ticket = string.match(stands[5], '^(%d+) (.+)$')
  redis.call('XACK', KEYS[7], 'flush', ticket)
  redis.call('XDEL', KEYS[7], ticket)
  redis.call('INCRBY', KEYS[8], tonumber(stands[1]) - tonumber(first) + 1)
end
redis.call('UNLINK', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], id)
local fence = stands[6] and ' ' .. stands[6] or ''
redis.call('HSET', KEYS[5], id, (gone and '-' or '') .. (ARGV[4] == '1' and '0' or stands[1]) .. fence)
redis.call('LPUSH', KEYS[6], id)
while redis.call('LLEN', KEYS[6]) > 256 do
  local old = redis.call('RPOP', KEYS[6])
  redis.call('ZREM', KEYS[4], old)
  local was = redis.call('HGET', KEYS[5], old)
  if was and string.sub(was, 1, 1) == '-' then
    redis.call('HDEL', KEYS[5], old)
    local highest = string.match(was, ' (%d+)$')
    if highest and tonumber(highest) > tonumber(redis.call('HGET', KEYS[5], '') or 0) then
      redis.call('HSET', KEYS[5], '', highest)
    end
  end
end
return 1
