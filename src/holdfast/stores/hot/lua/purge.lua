#!lua flags=allow-oom
-- Remove the items, leave of the payloads their hashes, destroy the key and clear when it is due.
-- Redis has no SHA-256: the caller has read the log and hashed it; if it has changed since, nothing is done.
-- KEYS: session, log, due    ARGV: 1 session's id, 2 step and 3 floor the caller saw, then steps and what is left of them
-- Answers 1, or 0 if the caller is to look again.
local stands = redis.call('HMGET', KEYS[1], 'step', 'floor', 'purged')
if not stands[1] then
  return 1
end
if not stands[3] then
  if stands[1] ~= ARGV[2] or (stands[2] or '1') ~= ARGV[3] then
    return 0
  end
  local items = {}
  for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
    if string.sub(field, 1, 2) == 'i:' then
      items[#items + 1] = field
    end
  end
  for first = 1, #items, 4000 do
    redis.call('HDEL', KEYS[1], unpack(items, first, math.min(first + 3999, #items)))
  end
  for first = 4, #ARGV, 4000 do
    redis.call('HSET', KEYS[2], unpack(ARGV, first, math.min(first + 3999, #ARGV)))
  end
  redis.call('HSET', KEYS[1], 'purged', '1')
end
redis.call('HDEL', KEYS[1], 'key', 'due')
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
