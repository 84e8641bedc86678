-- Remove whatever is there, but for the hold of another writer, who will clear it himself.
-- KEYS[1] the account
-- ARGV[1] our own hold
-- ARGV[2] the channel for whoever watches; a user that may not publish loses nothing else
redis.pcall('PUBLISH', ARGV[2], KEYS[1])
local there = redis.pcall('GET', KEYS[1])
if type(there) == 'string' and there ~= ARGV[1] and string.sub(there, 1, 1) == 'H' then
  return 0
end
return redis.call('UNLINK', KEYS[1])
