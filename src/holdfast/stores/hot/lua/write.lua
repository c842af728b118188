#!lua
-- One write whole, or nothing of it. Everything is looked at before anything is changed: Redis does not roll back.
-- KEYS: session, log, due, moved, written, queue, flushed [, void, evicted: with a token]
-- ARGV: 1 session's id, 2 expected step, 3 now, 4 fence or '', 5 '1' for a commit, 6 change id, 7 new step, 8 entry,
--       9 status, 10 due or '', 11 token of the reservation or '', 12 most log entries that may wait, 13 the digest it
--       stands at or '', 14 number of the last field, then fields and values of the session, then fields to be removed
-- Answers 1 (landed), 0 (stands elsewhere, or the change is known), or a table that says what is in the way.
local session, log = KEYS[1], KEYS[2]
local now, fence, token = tonumber(ARGV[3]), ARGV[4], ARGV[11]
local stands = redis.call('HMGET', session, 'step', 'due', 'fence', 'holder', 'until', 'seconds', 'uncounted', 'queued',
  'digest')
local step, holder, ends, uncounted = stands[1], stands[4], stands[5], stands[7]

if (step or '0') ~= ARGV[2] or (ARGV[13] ~= '' and stands[9] ~= ARGV[13]) then
  return 0
end
if not step and token ~= '' and redis.call('HEXISTS', KEYS[9], ARGV[1]) == 1 then
  return 0
end
if step then
  if fence ~= '' then
    if not holder or fence ~= stands[3] then
      return {'lost', stands[3] or '0'}
    end
  elseif holder and ARGV[5] == '1' and tonumber(ends) > now then
    return {'held', holder, ends}
  end
end
local known = redis.call('HMGET', log, 'c:' .. ARGV[6], ARGV[7])
if known[1] then
  return 0
end
if known[2] then
  return {'torn'}
end
if token ~= '' and redis.call('EXISTS', KEYS[8]) == 1 then
  return {'void'}
end
local gone = ARGV[9] == 'discarded' or ARGV[9] == 'expired'
if uncounted and not gone and token == '' then
  return {'uncounted'}
end
local counts = redis.call('MGET', KEYS[5], KEYS[7])
local waiting = tonumber(counts[1] or 0) - tonumber(counts[2] or 0)
if waiting >= tonumber(ARGV[12]) and redis.call('XLEN', KEYS[6]) > 0 then -- on an empty queue nothing waits
  return {'full', waiting}
end

redis.call('HSET', log, ARGV[7], ARGV[8], 'c:' .. ARGV[6], ARGV[7])
local last = tonumber(ARGV[14])
for first = 15, last, 4000 do
  redis.call('HSET', session, unpack(ARGV, first, math.min(first + 3999, last)))
end
for first = last + 1, #ARGV, 4000 do
  redis.call('HDEL', session, unpack(ARGV, first, math.min(first + 3999, #ARGV)))
end
if uncounted and not gone then
  redis.call('HDEL', session, 'uncounted')
end
if step and fence ~= '' and tonumber(ends) > now then
  redis.call('HSET', session, 'until', string.format('%.17g', now + tonumber(stands[6])))
end
if ARGV[10] ~= (stands[2] or '') then
  if ARGV[10] == '' then
    redis.call('HDEL', session, 'due')
    redis.call('ZREM', KEYS[3], ARGV[1])
  else
    redis.call('HSET', session, 'due', ARGV[10])
    redis.call('ZADD', KEYS[3], ARGV[10], ARGV[1])
  end
end
redis.call('ZADD', KEYS[4], redis.call('INCR', KEYS[5]), ARGV[1])
if not stands[8] then
  local ticket = redis.call('XADD', KEYS[6], '*', 's', ARGV[1], 'n', ARGV[7])
  redis.call('HSET', session, 'queued', ARGV[7] .. ' ' .. ticket)
end
return 1
