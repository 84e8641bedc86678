-- Mark exactly this token as refused by the provider.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] the chain   KEYS[4] the trail
-- ARGV[1] the offer   ARGV[2] id   ARGV[3] the moment
return once(KEYS[1], function()
  local slot = redis.call('HGET', KEYS[2], 'T' .. ARGV[2])
  if not slot or redis.call('HEXISTS', KEYS[2], 'R' .. slot) == 1 then
    return 0
  end
  local offer = offered(ARGV[1])
  if not is_next(KEYS[3], offer, offer.events) then
    return again(KEYS[3])
  end
  redis.call('HSET', KEYS[2], 'R' .. slot, ARGV[3])
  note(KEYS[3], KEYS[4], offer, offer.events)
  return 1
end)
