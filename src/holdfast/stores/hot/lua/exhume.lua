#!lua
-- Put dead letters back on the flush queue, each for its session if that is here and not on it already; what names no
-- session that can be read goes where it was.
-- KEYS: queue, dead letters, flushed, then the session of each letter, or the dead letters for none
-- ARGV: the letters' ids
-- Answers how many there were.
local queue, count = KEYS[1], 0
for at = 1, #ARGV do
  local kept = redis.call('HGET', KEYS[2], ARGV[at])
  if kept then
    local fields, session = cmsgpack.unpack(kept)[2], KEYS[at + 3]
    local stands = session == KEYS[2] and {err = ''} or redis.pcall('HMGET', session, 'step', 'queued')
    if stands.err then
      redis.call('XADD', queue, '*', unpack(fields))
    elseif stands[1] and not stands[2] then
      local step = tonumber(stands[1])
      local first = math.min(tonumber(fields[4]), step)
      local field = string.format('%.0f', first)
      local ticket = redis.call('XADD', queue, '*', 's', fields[2], 'n', field)
      redis.call('HSET', session, 'queued', field .. ' ' .. ticket)
      redis.call('INCRBY', KEYS[3], first - step - 1)
    end
    redis.call('HDEL', KEYS[2], ARGV[at])
    count = count + 1
  end
end
return count
