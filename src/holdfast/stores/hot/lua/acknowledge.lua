#!lua flags=allow-oom
-- Take entries off the flush queue whose sessions the warm tier has up to a step. A session that has been written to
-- beyond it is put on the queue anew. An entry that is not the one its session is queued by changes nothing else.
-- KEYS: queue, flushed, then the session of each entry    ARGV: of each the entry's id, the session's id and the step
-- Answers how many sessions are on the queue anew.
local queue, anew = KEYS[1], 0
for at = 3, #KEYS do
  local session, arg = KEYS[at], 3 * at - 8
  local entry, id, upto = ARGV[arg], ARGV[arg + 1], tonumber(ARGV[arg + 2])
  redis.call('XACK', queue, 'flush', entry)
  redis.call('XDEL', queue, entry)
  local stands = redis.pcall('HMGET', session, 'step', 'queued')
  local first, ticket = string.match(stands[2] or '', '^(%d+) (.+)$')
  if ticket == entry then
    local step = tonumber(stands[1])
    local following = math.max(tonumber(first), math.min(step, upto) + 1)
    redis.call('INCRBY', KEYS[2], following - tonumber(first))
    if following > step then
      redis.call('HDEL', session, 'queued')
    else
      local field = string.format('%.0f', following)
      ticket = redis.call('XADD', queue, '*', 's', id, 'n', field)
      redis.call('HSET', session, 'queued', field .. ' ' .. ticket)
      anew = anew + 1
    end
  end
end
return anew
