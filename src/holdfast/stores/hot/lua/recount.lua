#!lua flags=allow-oom
-- Nothing is on the flush queue, and yet log entries count as waiting, or too many as flushed: somebody's hand was in
-- the keys. Sessions that should be queued are, and the count is made to fit.
-- KEYS: queue, written, flushed, then every session    ARGV: 1 what was written when they were listed, then their ids
-- Answers how many are queued again; none where things have moved on.
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[1] or redis.call('XLEN', KEYS[1]) > 0 then
  return 0
end
local waiting, count = 0, 0
for at = 4, #KEYS do
  local stands = redis.pcall('HMGET', KEYS[at], 'step', 'queued')
  if stands[1] and stands[2] then
    local step = tonumber(stands[1])
    local first = math.min(tonumber(string.match(stands[2], '^%d+')) or step, step)
    local field = string.format('%.0f', first)
    local ticket = redis.call('XADD', KEYS[1], '*', 's', ARGV[at - 2], 'n', field)
    redis.call('HSET', KEYS[at], 'queued', field .. ' ' .. ticket)
    waiting, count = waiting + step - first + 1, count + 1
  end
end
redis.call('SET', KEYS[3], string.format('%.0f', tonumber(ARGV[1]) - waiting))
return count
