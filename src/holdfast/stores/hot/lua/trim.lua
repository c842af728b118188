#!lua flags=allow-oom
-- Forget the log below a step, a part at a time.
-- KEYS: session, log    ARGV: 1 below, 2 most entries
-- Answers 1 if more is left to forget.
local stands = redis.call('HMGET', KEYS[1], 'step', 'floor')
if not stands[1] then
  return 0
end
local first, below = tonumber(stands[2] or 1), math.min(tonumber(ARGV[1]), tonumber(stands[1]) + 1)
local upto = math.min(below, first + tonumber(ARGV[2]))
if upto <= first then
  return 0
end
for at = first, upto - 1 do
  local field = string.format('%.0f', at)
  local entry = redis.call('HGET', KEYS[2], field)
  if entry then
    redis.call('HDEL', KEYS[2], field, 'c:' .. string.sub(entry, 22, 21 + struct.unpack('>I4', entry, 10)))
  end
end
redis.call('HSET', KEYS[1], 'floor', string.format('%.0f', upto))
return upto < below and 1 or 0
