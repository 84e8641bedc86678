-- Give a lease back, with the failure for those who wait.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] the trail
-- ARGV[1] provider   ARGV[2] owner   ARGV[3] fence   ARGV[4] the present, or nothing   ARGV[5] events
-- ARGV[6] the failure, or nothing   ARGV[7] its reason   ARGV[8] how long to wait, or nothing for never
local place, provider = KEYS[2], ARGV[1]
return once(KEYS[1], function()
  if not is_mine(place, provider, ARGV[2], ARGV[3]) then
    return 0
  end
  local events = cjson.decode(ARGV[5])
  free(place, provider)
  if ARGV[6] == '' then
    return 1
  end
  settle(place, provider)
  redis.call('HINCRBY', place, 'failures:' .. provider, 1)
  redis.call('HSET', place, 'failed_fence:' .. provider, ARGV[3], 'failure:' .. provider, ARGV[6],
    'reason:' .. provider, ARGV[7])
  if ARGV[8] == '' then
    redis.call('HDEL', place, 'retry_at:' .. provider)
  else
    redis.call('HSET', place, 'retry_at:' .. provider, whole(moment(ARGV[4]) + tonumber(ARGV[8])))
  end
  note(KEYS[3], events)
  return 1
end)
