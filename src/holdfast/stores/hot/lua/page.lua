#!lua flags=no-writes
-- A run of the log, in either direction, up to a number of entries and the one that fills the room. Forwards it goes a
-- step beyond the head: an entry there says that the head is an old one, put back.
-- KEYS: session, log    ARGV: 1 first step, 2 direction (1 or -1), 3 most entries, 4 room in bytes
-- Answers steps and entries in turn.
local stands = redis.call('HMGET', KEYS[1], 'step', 'floor')
local head, floor = tonumber(stands[1] or 0), tonumber(stands[2] or 1)
local at, way, most, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
at = math.max(way > 0 and math.max(at, floor) or math.min(at, head), 0)
local found, count, filled, last = {}, 0, 0, way > 0 and stands[1] and head + 1 or head
while at >= floor and at <= last and count < most and filled < room do
  local field = string.format('%.0f', at)
  local entry = redis.call('HGET', KEYS[2], field)
  if entry then
    count = count + 1
    found[2 * count - 1], found[2 * count] = field, entry
    local change, header, digest = struct.unpack('>I4I4I4', entry, 10)
    filled = filled + #entry - 21 - change - header - digest
  end
  at = at + way
end
return found
