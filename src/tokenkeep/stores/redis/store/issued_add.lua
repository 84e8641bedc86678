-- Add issued tokens of one user.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked   KEYS[4] the trail
-- ARGV[1] events   then seven for each token
if redis.call('HEXISTS', KEYS[1], 'D' .. ARGV[2]) == 0 then -- otherwise the answer to this very change was lost
  local events = cjson.decode(ARGV[1])
  issue(KEYS[1], KEYS[2], KEYS[3], 2)
  note(KEYS[4], events)
end
return 1
