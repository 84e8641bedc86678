-- Revoke a user's tokens, but one and its family; at most ARGV[3] of them.
-- KEYS[1] the answer   KEYS[2] issued tokens   KEYS[3] those not revoked   KEYS[4] the trail
-- ARGV[1] the id of the one that is kept, or nothing   ARGV[2] the event, for any token
local issued, kept, most = KEYS[2], ARGV[1], tonumber(ARGV[3])
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
  return revoke(issued, KEYS[3], KEYS[4], ids, cjson.decode(ARGV[2]))
end)
