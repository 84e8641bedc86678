-- Swap the sealed fields of tokens that are in place or wished to be revoked, where they are still the old ones. Return how many.
-- KEYS[1] the user's tokens   ARGV, six for each token: id, version, old key, access, refresh, new key
local place, swapped = KEYS[1], 0
for begin = 1, #ARGV, 6 do
  local slot = redis.call('HGET', place, 'T' .. ARGV[begin])
  if not slot and redis.call('HEXISTS', place, 'Ww:' .. ARGV[begin]) == 1 then
    slot = 'w:' .. ARGV[begin]
  end
  local held = slot and redis.call('HMGET', place, 'K' .. slot, 'V' .. slot, 'A' .. slot)
  if held and held[1] == ARGV[begin + 5] and held[3] == ARGV[begin + 3] then
    swapped = swapped + 1 -- this very change did it, when its answer was lost
  elseif held and held[1] == ARGV[begin + 2] and held[2] == ARGV[begin + 1] then
    for number, letter in ipairs({'A', 'B', 'K'}) do
      local value = ARGV[begin + 2 + number]
      if value == '' then
        redis.call('HDEL', place, letter .. slot)
      else
        redis.call('HSET', place, letter .. slot, value)
      end
    end
    swapped = swapped + 1
  end
end
return swapped
