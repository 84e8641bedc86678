-- Add uses of issued tokens; a revoked one is left alone.
-- KEYS[1] the answer   KEYS[2] issued tokens   ARGV: id, uses and the last of them for each token
return once(KEYS[1], function()
  for begin = 1, #ARGV, 3 do
    local id = ARGV[begin]
    if redis.call('HEXISTS', KEYS[2], 'D' .. id) == 1 and redis.call('HEXISTS', KEYS[2], 'R' .. id) == 0 then
      used(KEYS[2], id, ARGV[begin + 1], ARGV[begin + 2])
    end
  end
  return 1
end)
