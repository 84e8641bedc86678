-- End what is in place of every kind, and break the lease, so that a login in flight cannot land.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] history   KEYS[4] its order   KEYS[5] the trail
-- ARGV[1] provider   ARGV[2] how its slots begin   ARGV[3] the event, for any token
local place, provider = KEYS[2], ARGV[1]
return once(KEYS[1], function()
  local event = cjson.decode(ARGV[3])
  if redis.call('HEXISTS', place, 'fence:' .. provider) == 1 then
    free(place, provider)
    redis.call('HINCRBY', place, 'fence:' .. provider, 1)
  end
  local found = slots(place, ARGV[2])
  for _, slot in ipairs(found) do
    note(KEYS[5], {about(event, bury(place, KEYS[3], KEYS[4], slot, 'revoked', event[4]))})
  end
  return #found
end)
