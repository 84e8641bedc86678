-- Revoke one token and its family.
-- KEYS[1] the answer   KEYS[2] issued tokens   KEYS[3] those not revoked   KEYS[4] the chain   KEYS[5] the trail
-- ARGV[1] the offer   ARGV[2] id   ARGV[3] the moment
local issued, id = KEYS[2], ARGV[2]
return once(KEYS[1], function()
  if redis.call('HEXISTS', issued, 'R' .. id) == 1 then
    return {}
  end
  local family = redis.call('HGET', issued, 'F' .. id)
  local ids = unrevoked(issued, family and ids_of(redis.call('HGET', issued, 'f' .. family)) or {id})
  return revoke(issued, KEYS[3], KEYS[4], KEYS[5], ids, offered(ARGV[1]), ARGV[3])
end)
