#!lua
-- Count a session as its owner's before it is made. One that is counted already stays so, under the token it has.
-- KEYS: owner    ARGV: 1 session's id, 2 a fresh token, 3 quota or '', 4 a token that was voided or ''
-- Answers the token; where the quota is reached, how many are counted, the server's second, and ids and tokens.
local token = redis.call('HGET', KEYS[1], ARGV[1])
if token and token ~= ARGV[4] then
  return token
end
local second = redis.call('TIME')[1]
if not token and ARGV[3] ~= '' then
  local count = redis.call('HLEN', KEYS[1])
  if count >= tonumber(ARGV[3]) then
    return {count, second, redis.call('HGETALL', KEYS[1])}
  end
end
token = second .. ':' .. ARGV[2]
redis.call('HSET', KEYS[1], ARGV[1], token)
return token
