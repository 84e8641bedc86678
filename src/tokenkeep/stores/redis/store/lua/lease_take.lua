-- Take a lease that nobody holds, or whose holder let it end.
-- KEYS[1] the user's tokens   ARGV[1] provider   ARGV[2] owner   ARGV[3] how long   ARGV[4] the present, or nothing
-- ARGV[5] whose it is
local place, provider, owner = KEYS[1], ARGV[1], ARGV[2]
local now = moment(ARGV[4])
local held = redis.call('HMGET', place, 'owner:' .. provider, 'until:' .. provider)
if held[1] ~= owner then -- an owner asks once, so what is his he took when the answer was lost
  if held[1] and tonumber(held[2]) > now then
    return false
  end
  redis.call('HINCRBY', place, 'fence:' .. provider, 1)
  redis.call('HSET', place, 'owner:' .. provider, owner, 'until:' .. provider, whole(now + tonumber(ARGV[3])),
    'user', ARGV[5])
end
return redis.call('HMGET', place, 'fence:' .. provider, 'begun:' .. provider, 'fingerprint:' .. provider,
  'failures:' .. provider)
