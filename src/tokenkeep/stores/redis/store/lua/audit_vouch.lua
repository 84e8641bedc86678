-- Put the marks of a rotation of keys into a chain. Return whether no purge went on meanwhile.
-- KEYS[1] the chain   ARGV[1] the number of the last purged event   ARGV[2] to [5] number, digest, proof and key of the
-- last event that is vouched for   ARGV[6] and [7] proof and key of the mark of the purge
if (redis.call('HGET', KEYS[1], 'purged') or '0') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], 'vouched', ARGV[2], 'vouched_digest', ARGV[3], 'vouched_proof', ARGV[4], 'vouched_key',
  ARGV[5], 'purged_proof', ARGV[6], 'purged_key', ARGV[7])
return 1
