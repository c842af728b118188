#!lua
-- Whether an owner's session need not be counted: it is gone, or was never made. If so, whoever still means to bring it
-- back, or to make it, under the token it is counted by is sent to be counted anew.
-- An evicted one is neither, unless it was gone.
-- KEYS: session, void, evicted
-- ARGV: 1 session's id, 2 '1' if one that was never made may be under way, 3 milliseconds to remember the token
local stands = redis.call('HMGET', KEYS[1], 'step', 'status')
if stands[1] then
  if stands[2] ~= 'discarded' and stands[2] ~= 'expired' then
    return 0
  end
else
  local evicted = redis.call('HGET', KEYS[3], ARGV[1])
  if evicted and string.sub(evicted, 1, 1) ~= '-' or not evicted and ARGV[2] == '1' then
    return 0
  end
end
redis.call('SET', KEYS[2], '', 'PX', ARGV[3])
if stands[1] then
  redis.call('HSET', KEYS[1], 'uncounted', '1')
end
return 1
