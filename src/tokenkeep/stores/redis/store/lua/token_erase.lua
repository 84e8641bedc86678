-- Delete what has ended of one provider, but no wish; at most ARGV[3] rows. Return the ids, and how many wishes stay.
-- With the last of it goes the lease, unless somebody holds it, and what else is known of the account.
-- KEYS[1] the user's tokens   KEYS[2] history   KEYS[3] its order
-- ARGV[1] provider   ARGV[2] how its slots begin   ARGV[3] how many
local place, history, order, provider, prefix, most = KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], tonumber(ARGV[3])
local gone, offset, page = {}, 0, nil
repeat
  page = redis.call('ZRANGE', order, offset, offset + 199)
  for _, member in ipairs(page) do
    local slot, id = string.match(member, '^(.*)\n([^\n]*)$')
    if #gone < most and string.sub(slot, 1, #prefix) == prefix and redis.call('HEXISTS', place, 'Ww:' .. id) == 0 then
      redis.call('HDEL', history, 'D' .. id, 'X' .. id, 'R' .. id, 'U' .. id, 'L' .. id, 'K' .. id)
      redis.call('ZREM', order, member)
      gone[#gone + 1] = id
    else
      offset = offset + 1
    end
  end
until #page < 200 or #gone >= most
local wished, versions = 0, {}
for _, field in ipairs(redis.call('HKEYS', place)) do
  if string.sub(field, 1, 3) == 'Sw:' then
    local slot = redis.call('HGET', place, field)
    wished = wished + (string.sub(slot, 1, #prefix) == prefix and 1 or 0)
  elseif string.sub(field, 1, 1 + #prefix) == 'V' .. prefix then
    versions[#versions + 1] = field
  end
end
if #gone < most and wished == 0 and #slots(place, prefix) == 0
  and redis.call('HEXISTS', place, 'owner:' .. provider) == 0 then
  settle(place, provider)
  for _, name in ipairs({'until:', 'fence:', 'failures:', 'failed_fence:', 'failure:', 'reason:', 'retry_at:'}) do
    redis.call('HDEL', place, name .. provider)
  end
  for _, field in ipairs(versions) do
    redis.call('HDEL', place, field)
  end
  if redis.call('HLEN', place) == 1 then -- whose it is is all that is left
    redis.call('HDEL', place, 'user')
  end
end
return {gone, wished}
