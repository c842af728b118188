#!lua flags=no-writes
-- Some dead letters.
-- KEYS: dead letters    ARGV: 1 how many at most
-- Answers for each its id, the reason, and its fields and values.
local found = {}
local letters = redis.call('HRANDFIELD', KEYS[1], ARGV[1], 'WITHVALUES')
for at = 2, #letters, 2 do
  local letter = cmsgpack.unpack(letters[at])
  found[#found + 1] = {letters[at - 1], letter[1], letter[2]}
end
return found
