-- Put a digest under a newer key in place of the old one.
-- KEYS[1] issued tokens   ARGV[1] id   ARGV[2] old digest   ARGV[3] new digest   ARGV[4] its key, or nothing
local id = ARGV[1]
local held = redis.call('HMGET', KEYS[1], 'H' .. id, 'R' .. id)
if held[2] or (held[1] ~= ARGV[2] and held[1] ~= ARGV[3]) then
  return 0
end
redis.call('HSET', KEYS[1], 'H' .. id, ARGV[3])
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], 'K' .. id)
else
  redis.call('HSET', KEYS[1], 'K' .. id, ARGV[4])
end
return 1
