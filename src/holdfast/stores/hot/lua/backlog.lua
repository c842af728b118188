#!lua flags=no-writes
-- How long the flush queue of a partition is.
-- KEYS: queue, dead letters, written, flushed
-- Answers how many log entries wait, for how many milliseconds the oldest session has waited, and the dead letters.
local oldest, waiting, waited = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1], 0, 0
if oldest then
  local counts = redis.call('MGET', KEYS[3], KEYS[4])
  waiting = math.max(0, tonumber(counts[1] or 0) - tonumber(counts[2] or 0))
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  waited = math.max(0, now - tonumber(string.match(oldest[1], '^%d+')))
end
return {waiting, waited, redis.call('HLEN', KEYS[2])}
