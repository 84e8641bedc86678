-- Read a user's tokens that are neither expired nor revoked nor spent, of one moment.
-- KEYS[1] issued tokens   KEYS[2] those not revoked   ARGV[1] the present
local rows = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf')) do
  if redis.call('HEXISTS', KEYS[1], 'S' .. id) == 0 then
    rows[#rows + 1] = {id, redis.call('HMGET', KEYS[1], 'D' .. id, 'H' .. id, 'K' .. id, 'R' .. id, 'L' .. id)}
  end
end
return rows
