-- End what is in place of every kind, and break the lease, so that a login in flight cannot land.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] history   KEYS[4] its order   KEYS[5] the chain
-- KEYS[6] the trail
-- ARGV[1] the offer   ARGV[2] provider   ARGV[3] how its slots begin   ARGV[4] the moment
-- ARGV[5] 1: keep the secrets of what the provider may still accept, for it has to be told
local place, provider = KEYS[2], ARGV[2]
return once(KEYS[1], function()
  local offer, found, ids = offered(ARGV[1]), slots(place, ARGV[3]), {}
  for number, slot in ipairs(found) do
    ids[number] = redis.call('HGET', place, 'I' .. slot)
  end
  if not is_each(KEYS[5], offer, ids) then
    return again(KEYS[5], ids)
  end
  if redis.call('HEXISTS', place, 'fence:' .. provider) == 1 then
    free(place, provider)
    redis.call('HINCRBY', place, 'fence:' .. provider, 1)
  end
  for _, slot in ipairs(found) do
    if ARGV[5] == '1' then
      wish(place, slot, ARGV[4])
    end
    bury(place, KEYS[3], KEYS[4], slot, 'revoked', ARGV[4])
  end
  note(KEYS[5], KEYS[6], offer, offer.each)
  return #found
end)
