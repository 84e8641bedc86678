-- Add what is known of a chain where nothing is. Return how many chains that were.
-- KEYS[1] the chain   ARGV: its fields and their values
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
