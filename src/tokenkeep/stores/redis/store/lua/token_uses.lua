-- Add uses, wherever the token is by now.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] history   ARGV: id, uses and the last of them for each token
return once(KEYS[1], function()
  for begin = 1, #ARGV, 3 do
    local id = ARGV[begin]
    local slot = redis.call('HGET', KEYS[2], 'T' .. id)
    if slot then
      used(KEYS[2], slot, ARGV[begin + 1], ARGV[begin + 2])
    elseif redis.call('HEXISTS', KEYS[3], 'D' .. id) == 1 then
      used(KEYS[3], id, ARGV[begin + 1], ARGV[begin + 2])
    end
  end
  return 1
end)
