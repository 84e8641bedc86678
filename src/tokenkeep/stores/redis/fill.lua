-- Put sealed records in place of the mark that their reader left, and of nothing else.
-- A writer that came between has taken the mark away, so what was read before its write is never put back.
-- KEYS[1] the account
-- ARGV[1] the mark   ARGV[2] the records   ARGV[3] milliseconds that they live at most
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local left = math.min(redis.call('PTTL', KEYS[1]), tonumber(ARGV[3]))
if left < 1 then
  return 0
end
local time = redis.call('TIME')
local ends = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + left
redis.call('SET', KEYS[1], ARGV[2], 'PXAT', string.format('%.0f', ends))
return 1
