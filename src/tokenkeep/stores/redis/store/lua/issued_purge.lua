-- Delete tokens that expired before ARGV[1], at most ARGV[2] of them; return their ids.
-- KEYS[1] issued tokens   KEYS[2] by their end   KEYS[3] those not revoked
local issued = KEYS[1]
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])
for _, id in ipairs(ids) do
  local family = redis.call('HGET', issued, 'F' .. id)
  if family then
    local left = {}
    for _, other in ipairs(ids_of(redis.call('HGET', issued, 'f' .. family))) do
      if other ~= id then
        left[#left + 1] = other
      end
    end
    if #left == 0 then
      redis.call('HDEL', issued, 'f' .. family)
    else
      redis.call('HSET', issued, 'f' .. family, table.concat(left))
    end
  end
  for _, letter in ipairs({'D', 'H', 'K', 'R', 'S', 'N', 'U', 'L', 'F', 'G'}) do
    redis.call('HDEL', issued, letter .. id)
  end
  redis.call('ZREM', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
end
return ids
