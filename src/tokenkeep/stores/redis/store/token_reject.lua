-- Mark exactly this token as refused by the provider.
-- KEYS[1] the answer   KEYS[2] the user's tokens   KEYS[3] the trail   ARGV[1] id   ARGV[2] event
return once(KEYS[1], function()
  local slot = redis.call('HGET', KEYS[2], 'T' .. ARGV[1])
  local event = cjson.decode(ARGV[2])
  if not slot or redis.call('HSETNX', KEYS[2], 'R' .. slot, event[4]) == 0 then
    return 0
  end
  note(KEYS[3], {event})
  return 1
end)
