#!lua
-- Extend a lease that is still the last one granted.
-- KEYS: session    ARGV: 1 fence, 2 until, 3 seconds
-- Answers the holder, or the fence that was granted since.
local stands = redis.call('HMGET', KEYS[1], 'fence', 'holder')
if stands[1] ~= ARGV[1] or not stands[2] then
  return {'lost', stands[1] or '0'}
end
redis.call('HSET', KEYS[1], 'until', ARGV[2], 'seconds', ARGV[3])
return stands[2]
