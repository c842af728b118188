#!lua flags=allow-oom
-- Forget the log below a step, a part at a time; but not under which change ids it was written.
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
  redis.call('HDEL', KEYS[2], string.format('%.0f', at))
end
redis.call('HSET', KEYS[1], 'floor', string.format('%.0f', upto))
return upto < below and 1 or 0
