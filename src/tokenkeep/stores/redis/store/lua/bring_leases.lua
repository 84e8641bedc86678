-- Add leases of one user that are not there yet. Return how many.
-- KEYS[1] the user's tokens   ARGV[1] whose they are   then eleven for each lease: provider and fields
local place, added = KEYS[1], 0
local names = {'fence', 'owner', 'until', 'begun', 'fingerprint', 'failures', 'failed_fence', 'failure', 'reason',
  'retry_at'}
for begin = 2, #ARGV, 11 do
  local provider = ARGV[begin]
  if redis.call('HEXISTS', place, 'fence:' .. provider) == 0 then
    redis.call('HSET', place, 'user', ARGV[1])
    for number, name in ipairs(names) do
      if ARGV[begin + number] ~= '' then
        redis.call('HSET', place, name .. ':' .. provider, ARGV[begin + number])
      end
    end
    added = added + 1
  end
end
return added
