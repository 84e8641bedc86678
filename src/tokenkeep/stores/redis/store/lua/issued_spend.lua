-- Use a refresh token and add what it brings. Return 'done', 'refused' or 'reused'.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked   KEYS[4] the chain   KEYS[5] the trail
-- ARGV[1] the offer: its events are those of the change, each those of a second use
-- ARGV[2] its id   ARGV[3] the moment   ARGV[4] the grace   ARGV[5] how many successors   then seven for each new token
local issued, id, at = KEYS[1], ARGV[2], ARGV[3]
local held = redis.call('HMGET', issued, 'D' .. id, 'R' .. id, 'S' .. id, 'N' .. id, 'F' .. id, 'G' .. id)
local spent, successors, family, generation = held[3], tonumber(held[4] or '0'), held[5], tonumber(held[6] or '0')
if not held[1] then
  return 'refused'
end
if held[2] then
  return spent and held[2] == at and 'reused' or 'refused' -- reused: by this very change, its answer was lost
end
local function has_later_use(kin)
  for _, other in ipairs(kin) do
    local row = redis.call('HMGET', issued, 'G' .. other, 'S' .. other)
    if row[2] and (tonumber(row[1] or '') or 0) > generation then
      return true
    end
  end
  return false
end
local offer = offered(ARGV[1])
if spent then
  if redis.call('HEXISTS', issued, 'D' .. ARGV[6]) == 1 then
    return 'done' -- by this very change, its answer was lost
  end
  local kin = ids_of(redis.call('HGET', issued, 'f' .. family))
  if tonumber(at) - tonumber(spent) >= tonumber(ARGV[4]) or has_later_use(kin) then
    local revoked = revoke(issued, KEYS[3], KEYS[4], KEYS[5], unrevoked(issued, kin), offer, at)
    return revoked[1] == 'again' and revoked or 'reused'
  end
  if successors >= tonumber(ARGV[5]) then
    return 'refused'
  end
end
if not is_next(KEYS[4], offer, offer.events) then
  return again(KEYS[4])
end
redis.call('HSET', issued, 'S' .. id, spent or at, 'N' .. id, successors + 1)
issue(issued, KEYS[2], KEYS[3], 6, #ARGV)
note(KEYS[4], KEYS[5], offer, offer.events)
return 'done'
