-- Give a lease back, with the failure for those who wait.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] the chain   KEYS[4] the trail
-- ARGV[1] the offer   ARGV[2] provider   ARGV[3] owner   ARGV[4] fence   ARGV[5] the present, or nothing
-- ARGV[6] the failure, or nothing   ARGV[7] its reason   ARGV[8] how long to wait, or nothing for never
local place, provider = KEYS[2], ARGV[2]
return once(KEYS[1], function()
  if not is_mine(place, provider, ARGV[3], ARGV[4]) then
    return 0
  end
  local offer = offered(ARGV[1])
  if not is_next(KEYS[3], offer, offer.events) then
    return again(KEYS[3])
  end
  free(place, provider)
  if ARGV[6] == '' then
    return 1
  end
  settle(place, provider)
  redis.call('HINCRBY', place, 'failures:' .. provider, 1)
  redis.call('HSET', place, 'failed_fence:' .. provider, ARGV[4], 'failure:' .. provider, ARGV[6],
    'reason:' .. provider, ARGV[7])
  if ARGV[8] == '' then
    redis.call('HDEL', place, 'retry_at:' .. provider)
  else
    redis.call('HSET', place, 'retry_at:' .. provider, whole(moment(ARGV[5]) + tonumber(ARGV[8])))
  end
  note(KEYS[3], KEYS[4], offer, offer.events)
  return 1
end)
