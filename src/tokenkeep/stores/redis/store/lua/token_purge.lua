-- Delete what ended before ARGV[2], at most ARGV[4] rows; erase the secrets of what ended before ARGV[1], at most
-- ARGV[3] of them, where no refresh token is kept. Return how many were erased, and the ids of what was deleted.
-- KEYS[1] the user's tokens   KEYS[2] history   KEYS[3] its order
local place, history, order = KEYS[1], KEYS[2], KEYS[3]
local expired, ended, erasable, deletable = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local gone, erased, offset = {}, 0, 0
local function over(slot, before)
  local ends = redis.call('HGET', place, 'E' .. slot)
  return ends and tonumber(ends) < before
end
local function delete(slot, id)
  redis.call('HDEL', history, 'D' .. id, 'X' .. id, 'R' .. id, 'U' .. id, 'L' .. id, 'K' .. id)
  redis.call('ZREM', order, slot .. '\n' .. id)
  unwish(place, id)
  gone[#gone + 1] = id
end
for _, slot in ipairs(slots(place, '')) do
  if #gone < deletable and over(slot, ended) then
    delete(slot, bury(place, history, order, slot, 'expired', ARGV[1]))
  elseif erased < erasable and over(slot, expired) and redis.call('HEXISTS', place, 'B' .. slot) == 0 then
    bury(place, history, order, slot, 'expired', ARGV[1])
    erased = erased + 1
  end
end
while #gone < deletable do -- what ended before was made before
  local page = redis.call('ZRANGEBYSCORE', order, '-inf', '(' .. ARGV[2], 'LIMIT', offset, 200)
  for _, member in ipairs(page) do
    local slot, id = string.match(member, '^(.*)\n([^\n]*)$')
    local moment_ended = tonumber(string.match(redis.call('HGET', history, 'X' .. id) or '0:', '^(%-?%d+):'))
    if moment_ended < ended and #gone < deletable then
      delete(slot, id)
    else
      offset = offset + 1
    end
  end
  if #page < 200 then
    break
  end
end
return {erased, gone}
