-- Put a writer's hold in place of whatever is there. Where there is no room for it, remove what is there.
-- KEYS[1] the account
-- ARGV[1] the hold   ARGV[2] milliseconds that it lives
local put = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if put.err then
  redis.call('UNLINK', KEYS[1])
  return 0
end
return 1
