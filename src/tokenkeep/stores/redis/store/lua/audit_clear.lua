-- Delete the oldest events of a trail, and leave a mark of the last that went. Return how many were there.
-- An empty trail takes no room; its chain is kept.
-- KEYS[1] the chain   KEYS[2] the trail
-- ARGV[1] how the chain's mark of a purge was read   ARGV[2] to [5] number, digest, proof and key of the new one
-- then the ids of the events
if (redis.call('HGET', KEYS[1], 'purged') or '0') ~= ARGV[1] then
  return 0 -- somebody else purged meanwhile
end
if ARGV[2] ~= ARGV[1] then
  redis.call('HSET', KEYS[1], 'purged', ARGV[2], 'purged_digest', ARGV[3], 'purged_proof', ARGV[4],
    'purged_key', ARGV[5])
end
local gone = redis.call('XDEL', KEYS[2], unpack(ARGV, 6))
if redis.call('XLEN', KEYS[2]) == 0 then
  redis.call('DEL', KEYS[2])
end
return gone
