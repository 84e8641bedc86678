-- Add events of one user that are not there yet, in the order of their numbers. Return how many.
-- KEYS[1] the trail   ARGV[1] whose it is   then eleven for each event: its number and what `note` writes of it
local trail, added = KEYS[1], 0
for begin = 2, #ARGV, 11 do
  local id = '0-' .. ARGV[begin]
  if #redis.call('XRANGE', trail, id, id) == 0 then
    redis.call('XADD', trail, id, unpack(event_fields({unpack(ARGV, begin + 1, begin + 10)}, ARGV[1])))
    added = added + 1
  end
end
return added
