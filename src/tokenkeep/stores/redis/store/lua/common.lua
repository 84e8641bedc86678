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

-- What a change writes into the trail it brings along as `offer`, for a script has no SHA-256 to link events with:
-- head     the last event that the program knows of, which its events follow
-- events   those of the change
-- each     those of tokens which the change finds, made for the tokens that it will find
-- user     whose trail it is, for whoever reads it
-- An event is {action, provider, token id, moment, actor, detail, number, digest, proof, key}.
local function offered(text)
  return cjson.decode(text)
end

local function head(chain)
  local last = redis.call('HMGET', chain, 'sequence', 'digest')
  return last[1] and last[1] .. ':' .. last[2] or ''
end

-- Tell whether events can be appended. It is asked before anything is written.
local function is_next(chain, offer, events)
  return #events == 0 or head(chain) == offer.head
end

-- The same of an event for each of these tokens.
local function is_each(chain, offer, ids)
  if #ids ~= #offer.each then
    return false
  end
  for number, id in ipairs(ids) do
    if offer.each[number][3] ~= id then
      return false
    end
  end
  return is_next(chain, offer, offer.each)
end

-- What a change answers that wrote nothing: the head that its events must follow, and the tokens that it finds.
local function again(chain, ids)
  return {'again', head(chain), ids or {}}
end

-- What the entry of an event holds.
local function event_fields(event, user)
  return {'action', event[1], 'provider', event[2], 'token', event[3], 'at', event[4], 'actor', event[5],
    'detail', event[6], 'sequence', event[7], 'digest', event[8], 'proof', event[9], 'key', event[10], 'user', user}
end

-- Append events to the trail of a user.
local function note(chain, trail, offer, events)
  for _, event in ipairs(events) do
    redis.call('XADD', trail, '*', unpack(event_fields(event, offer.user)))
  end
  local last = events[#events]
  if last then
    redis.call('HSET', chain, 'user', offer.user, 'sequence', last[7], 'digest', last[8])
  end
end

-- Do a change once: who asks again, because the answer was lost, is told the same.
local function once(key, work)
  local known = redis.call('GET', key)
  if known then
    return cmsgpack.unpack(known)
  end
  local answer = work()
  if type(answer) == 'table' and answer[1] == 'again' then
    return answer
  end
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

-- Keep the secrets of what is about to be buried beside what is in place, if its provider may still accept it:
-- a wish, under a slot that begins as no other does. `W` is when it is due, `S` the slot it had, `E` its end.
local function wish(place, slot, at)
  local held = redis.call('HMGET', place, 'I' .. slot, 'A' .. slot, 'B' .. slot, 'K' .. slot, 'V' .. slot, 'E' .. slot)
  local lasts = not held[6] or tonumber(held[6]) > tonumber(at)
  if held[3] or (held[2] and lasts and redis.call('HEXISTS', place, 'R' .. slot) == 0) then
    local kept = 'w:' .. held[1]
    redis.call('HSET', place, 'W' .. kept, at, 'S' .. kept, slot)
    for number, letter in ipairs({'A', 'B', 'K', 'V', 'E'}) do
      if held[number + 1] then
        redis.call('HSET', place, letter .. kept, held[number + 1])
      end
    end
  end
end

-- Erase a wish.
local function unwish(place, id)
  for _, letter in ipairs({'W', 'S', 'A', 'B', 'K', 'V', 'E'}) do
    redis.call('HDEL', place, letter .. 'w:' .. id)
  end
end

-- Move what is in place into history, without its secrets. Return its id; nil when nothing is there.
local function bury(place, history, order, slot, reason, at)
  local held = redis.call('HMGET', place, 'I' .. slot, 'D' .. slot, 'C' .. slot, 'R' .. slot, 'U' .. slot, 'L' .. slot,
    'K' .. slot)
  local id = held[1]
  if not id then
    return nil
  end
  redis.call('HSET', history, 'D' .. id, held[2], 'X' .. id, at .. ':' .. reason)
  for number, letter in ipairs({'R', 'U', 'L', 'K'}) do
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

-- Add issued tokens from ARGV[first] to the one that begins at ARGV[last], seven arguments each:
-- id, document, digest, key of the digest, end, family, generation.
local function issue(issued, by_end, living, first, last)
  for begin = first, last, 7 do
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

-- Return those of issued tokens that are there and not revoked yet.
local function unrevoked(issued, ids)
  local found = {}
  for _, id in ipairs(ids) do
    if redis.call('HEXISTS', issued, 'D' .. id) == 1 and redis.call('HEXISTS', issued, 'R' .. id) == 0 then
      found[#found + 1] = id
    end
  end
  return found
end

-- Revoke issued tokens at a moment, each with its event. Return their ids; or what to do again, and nothing is done.
local function revoke(issued, living, chain, trail, ids, offer, at)
  local names = {}
  for number, id in ipairs(ids) do
    names[number] = hex(id)
  end
  if not is_each(chain, offer, names) then
    return again(chain, names)
  end
  for _, id in ipairs(ids) do
    redis.call('HSET', issued, 'R' .. id, at)
    redis.call('ZREM', living, id)
  end
  note(chain, trail, offer, offer.each)
  return ids
end
