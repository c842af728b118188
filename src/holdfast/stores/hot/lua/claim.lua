#!lua flags=allow-oom
-- Entries of the flush queue for a worker: first those that somebody claimed long ago, then those that nobody has.
-- There is no group before the first claim, nor when the server came back without it: it is made, from the beginning.
-- KEYS: queue, written, flushed
-- ARGV: 1 worker, 2 most entries, 3 milliseconds after which a claim lapses, 4 '1' to look whether
--       the counts add up, and to forget workers that have held nothing for an hour, 5 where to look for claims from
-- Answers for each its id, its fields and values, how often it was claimed, and for how many milliseconds it has waited;
-- or, where the queue is empty and the counts say otherwise, how many writes there have been.
local queue, worker, most = KEYS[1], ARGV[1], tonumber(ARGV[2])
if redis.call('XLEN', queue) == 0 then
  if ARGV[4] == '1' then
    local counts = redis.call('MGET', KEYS[2], KEYS[3])
    if (counts[1] or '0') ~= (counts[2] or '0') then
      return tonumber(counts[1] or 0)
    end
  end
  if redis.call('EXISTS', queue) == 0 then
    return {}
  end
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = {}

local function take(entry, tries)
  found[#found + 1] = {entry[1], entry[2], tries, math.max(0, now - tonumber(string.match(entry[1], '^%d+')))}
end

local first = ARGV[5]
repeat -- what was deleted meanwhile is dropped from the claims by the way
  local lapsed = redis.pcall('XAUTOCLAIM', queue, 'flush', worker, ARGV[3], first, 'COUNT', most - #found)
  if lapsed.err then
    if not string.find(lapsed.err, 'NOGROUP', 1, true) then
      return lapsed
    end
    redis.call('XGROUP', 'CREATE', queue, 'flush', '0')
    break
  end
  for _, entry in ipairs(lapsed[2]) do
    take(entry, redis.call('XPENDING', queue, 'flush', entry[1], entry[1], 1)[1][4])
  end
  first = lapsed[1]
until first == '0-0' or #found >= most
if #found < most then
  local new = redis.call('XREADGROUP', 'GROUP', 'flush', worker, 'COUNT', most - #found, 'STREAMS', queue, '>')
  for _, entry in ipairs(new and new[1][2] or {}) do
    take(entry, 1)
  end
end
if ARGV[4] == '1' then
  for _, about in ipairs(redis.call('XINFO', 'CONSUMERS', queue, 'flush')) do
    if about[4] == 0 and about[6] > 3600000 then
      redis.call('XGROUP', 'DELCONSUMER', queue, 'flush', about[2])
    end
  end
end
return found
