-- Read what is known of tokens, in place or not, of one moment: at least the newest ARGV[4] of those asked for.
-- KEYS[1] the user's tokens   KEYS[2] history   KEYS[3] its order
-- ARGV[1] how the slots begin   ARGV[2] made at this moment or later   ARGV[3] and before this   ARGV[4] how many
local prefix, first, last, wanted = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local rows = {}
for _, slot in ipairs(slots(KEYS[1], prefix)) do
  local made = tonumber(redis.call('HGET', KEYS[1], 'C' .. slot))
  if (first == '-inf' or made >= tonumber(first)) and (last == '+inf' or made < tonumber(last)) then
    rows[#rows + 1] = redis.call('HMGET', KEYS[1], 'D' .. slot, 'R' .. slot, 'U' .. slot, 'L' .. slot, 'X' .. slot)
  end
end
if last ~= '+inf' then
  last = '(' .. last
end
local found, offset, edge = 0, 0, nil
while true do
  local page = redis.call('ZREVRANGEBYSCORE', KEYS[3], last, first, 'WITHSCORES', 'LIMIT', offset, 200)
  for at = 1, #page, 2 do
    if found >= wanted and page[at + 1] ~= edge then -- those of one moment are told apart by their versions, later
      return rows
    end
    if string.sub(page[at], 1, #prefix) == prefix then
      local id = string.match(page[at], '\n([^\n]*)$')
      rows[#rows + 1] = redis.call('HMGET', KEYS[2], 'D' .. id, 'R' .. id, 'U' .. id, 'L' .. id, 'X' .. id)
      found, edge = found + 1, page[at + 1]
    end
  end
  if #page < 400 then
    return rows
  end
  offset = offset + 200
end
