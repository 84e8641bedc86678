-- Add issued tokens of one user.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked   KEYS[4] the chain   KEYS[5] the trail
-- ARGV[1] the offer   then seven for each token
if redis.call('HEXISTS', KEYS[1], 'D' .. ARGV[2]) == 1 then
  return 1 -- this very change did it, when its answer was lost
end
local offer = offered(ARGV[1])
if not is_next(KEYS[4], offer, offer.events) then
  return again(KEYS[4])
end
issue(KEYS[1], KEYS[2], KEYS[3], 2, #ARGV)
note(KEYS[4], KEYS[5], offer, offer.events)
return 1
