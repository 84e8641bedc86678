-- Add the tokens of one issue and revoke others of the user with their families, where the user's tokens are still
-- those that were seen. Return whether they were, and the ids of what was revoked.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked   KEYS[4] the chain   KEYS[5] the trail
-- ARGV[1] the offer: an event for the new token, then one for each that is revoked   ARGV[2] the present
-- ARGV[3] the ids that were seen, joined   ARGV[4] those to revoke, joined   then seven for each new token
local issued = KEYS[1]
if redis.call('HEXISTS', issued, 'D' .. ARGV[5]) == 1 then
  return {1, {}} -- this very change did it, when its answer was lost
end
local living = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[2], '+inf')) do
  if redis.call('HEXISTS', issued, 'S' .. id) == 0 then
    living[#living + 1] = id
  end
end
table.sort(living)
if table.concat(living) ~= ARGV[3] then
  return {0, {}}
end
local ending, names = {}, {hex(ARGV[5])}
for _, id in ipairs(ids_of(ARGV[4])) do
  local family = redis.call('HGET', issued, 'F' .. id)
  for _, kin in ipairs(unrevoked(issued, family and ids_of(redis.call('HGET', issued, 'f' .. family)) or {id})) do
    ending[#ending + 1] = kin
    names[#names + 1] = hex(kin)
  end
end
local offer = offered(ARGV[1])
if not is_each(KEYS[4], offer, names) then
  return again(KEYS[4], names)
end
issue(issued, KEYS[2], KEYS[3], 5, #ARGV)
for _, id in ipairs(ending) do
  redis.call('HSET', issued, 'R' .. id, ARGV[2])
  redis.call('ZREM', KEYS[3], id)
end
note(KEYS[4], KEYS[5], offer, offer.each)
return {1, ending}
