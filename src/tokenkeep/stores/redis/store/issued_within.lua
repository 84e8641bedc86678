-- Add the tokens of one issue and revoke others of the user, where the user's tokens are still those that were seen.
-- Return whether they were, and the ids of what was revoked.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked   KEYS[4] the trail
-- ARGV[1] the present   ARGV[2] the ids that were seen, joined   ARGV[3] those to revoke, joined
-- ARGV[4] the event of a revocation, for any token   ARGV[5] events   then seven for each new token
local issued = KEYS[1]
if redis.call('HEXISTS', issued, 'D' .. ARGV[6]) == 1 then
  return {1, {}} -- this very change did it, when its answer was lost
end
local living = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. ARGV[1], '+inf')) do
  if redis.call('HEXISTS', issued, 'S' .. id) == 0 then
    living[#living + 1] = id
  end
end
table.sort(living)
if table.concat(living) ~= ARGV[2] then
  return {0, {}}
end
local event, events = cjson.decode(ARGV[4]), cjson.decode(ARGV[5])
issue(issued, KEYS[2], KEYS[3], 6)
note(KEYS[4], events)
local ended = {}
for _, id in ipairs(ids_of(ARGV[3])) do
  local family = redis.call('HGET', issued, 'F' .. id)
  local kin = family and ids_of(redis.call('HGET', issued, 'f' .. family)) or {id}
  for _, other in ipairs(revoke(issued, KEYS[3], KEYS[4], kin, event)) do
    ended[#ended + 1] = other
  end
end
return {1, ended}
