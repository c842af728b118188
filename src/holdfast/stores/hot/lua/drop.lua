#!lua flags=allow-oom
-- Count sessions no more, each if it is still counted by the token that was settled.
-- KEYS: owner    ARGV: ids and tokens in turn
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
return 1
