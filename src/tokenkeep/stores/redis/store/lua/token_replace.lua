-- Put new tokens of one account in place of the old, and give the lease back.
-- KEYS[1] the user's tokens   KEYS[2] history   KEYS[3] its order   KEYS[4] the chain   KEYS[5] the trail
-- ARGV[1] the offer   ARGV[2] provider   ARGV[3] owner, or nothing without a lease   ARGV[4] fence
-- ARGV[5] the channel for whoever watches; a user that may not publish loses nothing else
-- then eleven for each token: slot, id, version, document, access, refresh, key, made at, end, uses, last use
local place, history, order, provider, owner = KEYS[1], KEYS[2], KEYS[3], ARGV[2], ARGV[3]
if redis.call('HEXISTS', place, 'T' .. ARGV[7]) == 1 or redis.call('HEXISTS', history, 'D' .. ARGV[7]) == 1 then
  return 1 -- this very change did it, when its answer was lost
end
if owner ~= '' and not is_mine(place, provider, owner, ARGV[4]) then
  return 0
end
if owner == '' and (redis.call('HEXISTS', place, 'owner:' .. provider) == 1
  or redis.call('HEXISTS', place, 'begun:' .. provider) == 1) then
  return 0
end
for begin = 6, #ARGV, 11 do
  if tonumber(redis.call('HGET', place, 'V' .. ARGV[begin]) or '0') >= tonumber(ARGV[begin + 2]) then
    return 0
  end
end
local offer = offered(ARGV[1]) -- whatever can fail does so before anything is written
if not is_next(KEYS[4], offer, offer.events) then
  return again(KEYS[4])
end
local letters = {'I', 'V', 'D', 'A', 'B', 'K', 'C', 'E', 'U', 'L'}
for begin = 6, #ARGV, 11 do
  local slot, id = ARGV[begin], ARGV[begin + 1]
  bury(place, history, order, slot, 'replaced', ARGV[begin + 7])
  redis.call('HSET', place, 'T' .. id, slot)
  for number, letter in ipairs(letters) do
    if ARGV[begin + number] ~= '' then
      redis.call('HSET', place, letter .. slot, ARGV[begin + number])
    end
  end
end
if owner == '' then -- an attempt that began before cannot land after this
  redis.call('HINCRBY', place, 'fence:' .. provider, 1)
else
  free(place, provider)
  settle(place, provider)
end
redis.call('HDEL', place, 'failures:' .. provider, 'failed_fence:' .. provider, 'failure:' .. provider,
  'reason:' .. provider, 'retry_at:' .. provider)
redis.call('HSET', place, 'user', offer.user)
note(KEYS[4], KEYS[5], offer, offer.events)
redis.pcall('PUBLISH', ARGV[5], place)
return 1
