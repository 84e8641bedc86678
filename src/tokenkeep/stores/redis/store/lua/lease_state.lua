-- Read a lease, and the clock that it goes by.
-- KEYS[1] the user's tokens   ARGV[1] provider   ARGV[2] the present, or nothing
local place, provider = KEYS[1], ARGV[1]
local row = redis.call('HMGET', place, 'fence:' .. provider, 'owner:' .. provider, 'until:' .. provider,
  'failed_fence:' .. provider, 'failure:' .. provider, 'reason:' .. provider, 'retry_at:' .. provider)
row[8] = whole(moment(ARGV[2]))
return row
