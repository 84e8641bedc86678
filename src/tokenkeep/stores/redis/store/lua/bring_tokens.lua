-- Add acquired tokens of one user that are not there yet, in place or as history. Return how many.
-- KEYS[1] the user's tokens   KEYS[2] history   KEYS[3] its order   ARGV[1] whose they are
-- then fourteen for each token: slot, id, version, document, access, refresh, key, made at, end, uses, last use,
-- rejected at, and for history when it ended and why, and when its provider has to be told
local place, history, order, added = KEYS[1], KEYS[2], KEYS[3], 0
local function put(key, name, first, letters)
  for number, letter in ipairs(letters) do
    if letter ~= '' and ARGV[first + number - 1] ~= '' then
      redis.call('HSET', key, letter .. name, ARGV[first + number - 1])
    end
  end
end
for begin = 2, #ARGV, 14 do
  local slot, id, version, ended = ARGV[begin], ARGV[begin + 1], ARGV[begin + 2], ARGV[begin + 12]
  if redis.call('HEXISTS', place, 'T' .. id) == 0 and redis.call('HEXISTS', history, 'D' .. id) == 0 then
    if tonumber(redis.call('HGET', place, 'V' .. slot) or '0') < tonumber(version) then
      redis.call('HSET', place, 'V' .. slot, version, 'user', ARGV[1])
    end
    if ended == '' then
      redis.call('HSET', place, 'T' .. id, slot)
      put(place, slot, begin + 1, {'I', '', 'D', 'A', 'B', 'K', 'C', 'E', 'U', 'L', 'R'})
    else
      put(history, id, begin + 1, {'', '', 'D', '', '', 'K', '', '', 'U', 'L', 'R', 'X'})
      redis.call('ZADD', order, ARGV[begin + 7], slot .. '\n' .. id)
      if ARGV[begin + 13] ~= '' then
        redis.call('HSET', place, 'Ww:' .. id, ARGV[begin + 13], 'Sw:' .. id, slot)
        put(place, 'w:' .. id, begin + 2, {'V', '', 'A', 'B', 'K', '', 'E'})
      end
    end
    added = added + 1
  end
end
return added
