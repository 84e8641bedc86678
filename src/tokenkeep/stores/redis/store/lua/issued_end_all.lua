-- Revoke a user's tokens, but one and its family; at most ARGV[4] of them.
-- KEYS[1] the answer   KEYS[2] issued tokens   KEYS[3] those not revoked   KEYS[4] the chain   KEYS[5] the trail
-- ARGV[1] the offer   ARGV[2] the id of the one that is kept, or nothing   ARGV[3] the moment
local issued, kept, most = KEYS[2], ARGV[2], tonumber(ARGV[4])
return once(KEYS[1], function()
  local family = redis.call('HGET', issued, 'F' .. kept)
  local ids, offset = {}, 0
  repeat
    local page = redis.call('ZRANGE', KEYS[3], offset, offset + 499)
    for _, id in ipairs(page) do
      local is_kin = family and redis.call('HGET', issued, 'F' .. id) == family
      if id ~= kept and not is_kin and #ids < most then
        ids[#ids + 1] = id
      end
    end
    offset = offset + 500
  until #page < 500 or #ids >= most
  return revoke(issued, KEYS[3], KEYS[4], KEYS[5], unrevoked(issued, ids), offered(ARGV[1]), ARGV[3])
end)
