#!lua flags=no-writes
-- The revocations beyond a number, in its order.
-- KEYS: revocations, by number    ARGV: 1 after
-- Answers for each what it is about, the rest, and its number.
local found = {}
local numbered = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf', 'WITHSCORES')
for at = 1, #numbered, 2 do
  found[#found + 1] = numbered[at]
  found[#found + 1] = redis.call('HGET', KEYS[1], numbered[at])
  found[#found + 1] = numbered[at + 1]
end
return found
