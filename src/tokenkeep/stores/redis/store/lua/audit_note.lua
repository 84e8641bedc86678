-- Append events that no change carries.
-- KEYS[1] the answer   KEYS[2] the chain   KEYS[3] the trail   ARGV[1] the offer
return once(KEYS[1], function()
  local offer = offered(ARGV[1])
  if not is_next(KEYS[2], offer, offer.events) then
    return again(KEYS[2])
  end
  note(KEYS[2], KEYS[3], offer, offer.events)
  return 1
end)
