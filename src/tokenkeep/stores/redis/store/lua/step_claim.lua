-- Claim the one-time codes of the time steps after ARGV[1] up to ARGV[2].
-- KEYS[1] the answer   KEYS[2] the account of the codes   ARGV[3] milliseconds for which it is remembered
return once(KEYS[1], function()
  local step = redis.call('GET', KEYS[2])
  if step and tonumber(step) > tonumber(ARGV[1]) then
    return 0
  end
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
  return 1
end)
