#!lua
-- Grant the lease with the next fence.
-- KEYS: session    ARGV: 1 holder, 2 now, 3 until, 4 seconds, 5 '1' to take it from whoever holds it
-- Answers the fence, nil for no such session, or who holds it.
local stands = redis.call('HMGET', KEYS[1], 'step', 'holder', 'until')
if not stands[1] then
  return false
end
if stands[2] and stands[2] ~= ARGV[1] and tonumber(stands[3]) > tonumber(ARGV[2]) and ARGV[5] ~= '1' then
  return {'held', stands[2], stands[3]}
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', ARGV[3], 'seconds', ARGV[4])
return redis.call('HINCRBY', KEYS[1], 'fence', 1)
