-- Append events that no change carries.
-- KEYS[1] the answer   KEYS[2] the trail   ARGV[1] events
return once(KEYS[1], function()
  note(KEYS[2], cjson.decode(ARGV[1]))
  return 1
end)
