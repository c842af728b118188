#!lua
-- The first instant of a boot: as first offered, and no earlier than any given before.
-- KEYS: epochs    ARGV: 1 boot, 2 offer
local known = redis.call('HMGET', KEYS[1], 'b:' .. ARGV[1], 'latest')
if known[1] then
  return known[1]
end
local instant = ARGV[2]
if known[2] and tonumber(known[2]) > tonumber(instant) then
  instant = known[2]
end
redis.call('HSET', KEYS[1], 'b:' .. ARGV[1], instant, 'latest', instant)
return instant
