-- Note that a login is about to begin.
-- KEYS[1] the user's tokens
-- ARGV[1] provider   ARGV[2] owner   ARGV[3] fence   ARGV[4] fingerprint of the refresh token, or nothing
local place, provider = KEYS[1], ARGV[1]
if not is_mine(place, provider, ARGV[2], ARGV[3]) then
  return 0
end
settle(place, provider)
redis.call('HSET', place, 'begun:' .. provider, ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', place, 'fingerprint:' .. provider, ARGV[4])
end
return 1
