-- What every script begins with.

-- The present in microseconds since 1970: what the program says, or the server's own clock.
local function moment(given)
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Append events to the trail of a user: the only place where that is done.
-- Each is {action, provider, token id, moment, actor, detail}.
local function note(trail, events)
  for _, event in ipairs(events) do
    redis.call('XADD', trail, '*', 'action', event[1], 'provider', event[2], 'token', event[3],
      'at', event[4], 'actor', event[5], 'detail', event[6])
  end
end

-- The same event for another token.
local function about(event, id)
  return {event[1], event[2], id, event[4], event[5], event[6]}
end

-- Do a change once: who asks again, because the answer was lost, is told the same.
local function once(key, work)
  local known = redis.call('GET', key)
  if known then
    return cmsgpack.unpack(known)
  end
  local answer = work()
  redis.call('SET', key, cmsgpack.pack(answer), 'PX', 60000)
  return answer
end

-- Tell whether a lease is held by this owner under this fence.
local function is_mine(place, provider, owner, fence)
  local held = redis.call('HMGET', place, 'owner:' .. provider, 'fence:' .. provider)
  return held[1] == owner and held[2] == fence
end

-- Give a lease back.
local function free(place, provider)
  redis.call('HDEL', place, 'owner:' .. provider)
  redis.call('HSET', place, 'until:' .. provider, '0')
end

-- Forget what an attempt was about to do.
local function settle(place, provider)
  redis.call('HDEL', place, 'begun:' .. provider, 'fingerprint:' .. provider)
end

-- Move what is in place into history, without its secrets. Return its id; nil when nothing is there.
local function bury(place, history, order, slot, reason, at)
  local held = redis.call('HMGET', place, 'I' .. slot, 'D' .. slot, 'C' .. slot, 'R' .. slot, 'U' .. slot, 'L' .. slot)
  local id = held[1]
  if not id then
    return nil
  end
  redis.call('HSET', history, 'D' .. id, held[2], 'X' .. id, at .. ':' .. reason)
  for number, letter in ipairs({'R', 'U', 'L'}) do
    if held[number + 3] then
      redis.call('HSET', history, letter .. id, held[number + 3])
    end
  end
  redis.call('ZADD', order, held[3], slot .. '\n' .. id)
  redis.call('HDEL', place, 'I' .. slot, 'D' .. slot, 'A' .. slot, 'B' .. slot, 'K' .. slot, 'C' .. slot, 'E' .. slot,
    'R' .. slot, 'U' .. slot, 'L' .. slot, 'T' .. id)
  return id
end

-- Name the slots that hold a token, of one provider or of all; in order.
local function slots(place, prefix)
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', place)) do
    if string.sub(field, 1, 1 + #prefix) == 'I' .. prefix then
      found[#found + 1] = string.sub(field, 2)
    end
  end
  table.sort(found)
  return found
end

-- Add uses to a token; the moment of the last never goes back.
local function used(key, id, count, at)
  redis.call('HINCRBY', key, 'U' .. id, count)
  local last = redis.call('HGET', key, 'L' .. id)
  if not last or tonumber(last) < tonumber(at) then
    redis.call('HSET', key, 'L' .. id, at)
  end
end

-- Cut 16-byte ids apart.
local function ids_of(joined)
  local found = {}
  for begin = 1, #(joined or ''), 16 do
    found[#found + 1] = string.sub(joined, begin, begin + 15)
  end
  return found
end

local function hex(id)
  return (string.gsub(id, '.', function(character) return string.format('%02x', string.byte(character)) end))
end

-- Add issued tokens from ARGV[first] on, seven arguments each:
-- id, document, digest, key of the digest, end, family, generation.
local function issue(issued, by_end, living, first)
  for begin = first, #ARGV, 7 do
    local id, family = ARGV[begin], ARGV[begin + 5]
    redis.call('HSET', issued, 'D' .. id, ARGV[begin + 1], 'H' .. id, ARGV[begin + 2])
    if ARGV[begin + 3] ~= '' then
      redis.call('HSET', issued, 'K' .. id, ARGV[begin + 3])
    end
    if family ~= '' then
      redis.call('HSET', issued, 'F' .. id, family, 'G' .. id, ARGV[begin + 6])
      redis.call('HSET', issued, 'f' .. family, (redis.call('HGET', issued, 'f' .. family) or '') .. id)
    end
    redis.call('ZADD', by_end, ARGV[begin + 4], id)
    redis.call('ZADD', living, ARGV[begin + 4], id)
  end
end

-- Revoke issued tokens, each with its event; return the ids of those that were not revoked yet.
local function revoke(issued, living, trail, ids, event)
  local ended = {}
  for _, id in ipairs(ids) do
    if redis.call('HEXISTS', issued, 'D' .. id) == 1 and redis.call('HSETNX', issued, 'R' .. id, event[4]) == 1 then
      redis.call('ZREM', living, id)
      note(trail, {about(event, hex(id))})
      ended[#ended + 1] = id
    end
  end
  return ended
end
