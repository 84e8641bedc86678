-- Use a refresh token and add what it brings. Return 'done', 'refused' or 'reused'.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked   KEYS[4] the trail
-- ARGV[1] its id   ARGV[2] the moment   ARGV[3] the grace   ARGV[4] how many successors
-- ARGV[5] the event of a second use, for any token   ARGV[6] events   then seven for each new token
local issued, id, event = KEYS[1], ARGV[1], cjson.decode(ARGV[5])
local held = redis.call('HMGET', issued, 'D' .. id, 'R' .. id, 'S' .. id, 'N' .. id, 'F' .. id, 'G' .. id)
local spent, successors, family, generation = held[3], tonumber(held[4] or '0'), held[5], tonumber(held[6] or '0')
if not held[1] then
  return 'refused'
end
if held[2] then
  return spent and held[2] == event[4] and 'reused' or 'refused' -- reused: by this very change, its answer was lost
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
if spent then
  if redis.call('HEXISTS', issued, 'D' .. ARGV[7]) == 1 then
    return 'done' -- by this very change, its answer was lost
  end
  local kin = ids_of(redis.call('HGET', issued, 'f' .. family))
  if tonumber(ARGV[2]) - tonumber(spent) >= tonumber(ARGV[3]) or has_later_use(kin) then
    revoke(issued, KEYS[3], KEYS[4], kin, event)
    return 'reused'
  end
  if successors >= tonumber(ARGV[4]) then
    return 'refused'
  end
end
local events = cjson.decode(ARGV[6])
redis.call('HSET', issued, 'S' .. id, spent or ARGV[2], 'N' .. id, successors + 1)
issue(issued, KEYS[2], KEYS[3], 7)
note(KEYS[4], events)
return 'done'
