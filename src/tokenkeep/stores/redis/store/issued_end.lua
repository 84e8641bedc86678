-- Revoke one token and its family.
-- KEYS[1] the answer   KEYS[2] issued tokens   KEYS[3] those not revoked   KEYS[4] the trail
-- ARGV[1] id   ARGV[2] the event, for any token
local issued, id = KEYS[2], ARGV[1]
return once(KEYS[1], function()
  if redis.call('HEXISTS', issued, 'R' .. id) == 1 then
    return {}
  end
  local family = redis.call('HGET', issued, 'F' .. id)
  local ids = family and ids_of(redis.call('HGET', issued, 'f' .. family)) or {id}
  return revoke(issued, KEYS[3], KEYS[4], ids, cjson.decode(ARGV[2]))
end)
