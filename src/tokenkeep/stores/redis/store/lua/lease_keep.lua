-- Extend a lease that is still ours.
-- KEYS[1] the user's tokens
-- ARGV[1] provider   ARGV[2] owner   ARGV[3] fence   ARGV[4] how long   ARGV[5] the present, or nothing
local place, provider = KEYS[1], ARGV[1]
local now = moment(ARGV[5])
if not is_mine(place, provider, ARGV[2], ARGV[3])
  or tonumber(redis.call('HGET', place, 'until:' .. provider)) <= now then
  return 0
end
redis.call('HSET', place, 'until:' .. provider, whole(now + tonumber(ARGV[4])))
return 1
