-- Add issued tokens of one user that are not there yet. Return how many.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked
-- ARGV, twelve for each token: the seven of one that is issued, then revoked at, spent at, successors, uses, last use
local issued, added = KEYS[1], 0
for begin = 1, #ARGV, 12 do
  local id = ARGV[begin]
  if redis.call('HEXISTS', issued, 'D' .. id) == 0 then
    issue(issued, KEYS[2], KEYS[3], begin, begin)
    for number, letter in ipairs({'R', 'S', 'N', 'U', 'L'}) do
      if ARGV[begin + 6 + number] ~= '' then
        redis.call('HSET', issued, letter .. id, ARGV[begin + 6 + number])
      end
    end
    if ARGV[begin + 7] ~= '' then
      redis.call('ZREM', KEYS[3], id)
    end
    added = added + 1
  end
end
return added
