-- Take the wish of a user that has been due longest. Return its id, the fields of its record, and when it ended.
-- KEYS[1] the user's tokens   KEYS[2] history
-- ARGV[1] the present   ARGV[2] those that ended before are anybody's   ARGV[3] until when it is claimed
-- then how the slots of each provider that can be told begin
local place, history = KEYS[1], KEYS[2]
local now, over = tonumber(ARGV[1]), tonumber(ARGV[2])
local function is_ours(kept, id)
  local slot, ends = unpack(redis.call('HMGET', place, 'S' .. kept, 'E' .. kept))
  for number = 4, #ARGV do
    if string.sub(slot, 1, #ARGV[number]) == ARGV[number] then
      return true
    end
  end
  if ends and tonumber(ends) <= now and redis.call('HEXISTS', place, 'B' .. kept) == 0 then
    return true
  end
  return tonumber(string.match(redis.call('HGET', history, 'X' .. id) or '0:', '^(%-?%d+):')) < over
end
local first, first_due = nil, nil
for _, field in ipairs(redis.call('HKEYS', place)) do
  if string.sub(field, 1, 3) == 'Ww:' then
    local id, due = string.sub(field, 4), tonumber(redis.call('HGET', place, field))
    if due <= now and (not first or due < first_due) and is_ours('w:' .. id, id) then
      first, first_due = id, due
    end
  end
end
if not first then
  return false
end
redis.call('HSET', place, 'Ww:' .. first, ARGV[3])
local known = redis.call('HMGET', history, 'D' .. first, 'R' .. first, 'U' .. first, 'L' .. first, 'X' .. first)
local sealed = redis.call('HMGET', place, 'Aw:' .. first, 'Bw:' .. first, 'Kw:' .. first)
return {first, known[1], sealed[1], sealed[2], sealed[3], known[2], known[3], known[4], known[5]}
