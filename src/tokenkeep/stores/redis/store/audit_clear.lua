-- Delete events; return how many were there. An empty trail takes no room.
-- KEYS[1] the trail   ARGV: their ids
local gone = redis.call('XDEL', KEYS[1], unpack(ARGV))
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
end
return gone
