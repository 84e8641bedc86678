-- Put a claimed wish off, or erase it.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] the chain   KEYS[4] the trail
-- ARGV[1] the offer   ARGV[2] id   ARGV[3] until when it was claimed   ARGV[4] when it is due again, or nothing
local place, id = KEYS[2], ARGV[2]
return once(KEYS[1], function()
  if redis.call('HGET', place, 'Ww:' .. id) ~= ARGV[3] then
    return 0
  end
  local offer = offered(ARGV[1])
  if not is_next(KEYS[3], offer, offer.events) then
    return again(KEYS[3])
  end
  if ARGV[4] == '' then
    unwish(place, id)
  else
    redis.call('HSET', place, 'Ww:' .. id, ARGV[4])
  end
  note(KEYS[3], KEYS[4], offer, offer.events)
  return 1
end)
