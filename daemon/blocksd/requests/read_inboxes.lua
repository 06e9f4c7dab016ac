-- Reads inboxes: from each a bounded part, in all a bounded number of bytes.
--
-- An entry that is too long never leaves the server. Where the daemon holds the lease, such an entry is refused and
-- removed right here; so are entries that ask for nothing and have no id to reply to, and entries beyond those an
-- inbox may hold. A flood of them costs the daemon nothing but the count.
--
-- KEYS  1 lease, 2 … inboxes
-- ARGV  1 the lease this daemon holds; '': nothing is removed
--       2 the rules, JSON: `bytes` of one request, `total` bytes of one reading, `looks` at entries of one inbox in one
--         reading, `kept` entries of one inbox, `inbox` and `reply` (how these keys begin), `oversized` and `surplus`
--         (replies, with marks for id and size)
--       3 … for each inbox: the id of the entry after which to read ('0': from the beginning), and how many to read
--
-- Returns for each inbox {1 if there may be more to read, the last id that was looked at, how many entries it holds
-- now, {id, text or nil, …}, how many were dropped, how many were too long, how many were beyond those it may hold}.

local LAST = '18446744073709551615-18446744073709551615' -- after an entry of this id, a stream takes no other
local STEP = 16
local rules = cjson.decode(ARGV[2])
local may_remove = ARGV[1] ~= '' and redis.call('GET', KEYS[1]) == ARGV[1]
local spent = 0 -- bytes copied from all inboxes: one long entry is enough for one reading

-- The text of a request, and how many bytes the entry has besides the word `request`: all of them are copied to be read.
local function text_of(fields)
  local text, size = false, 0
  for at = 1, #fields, 2 do
    size = size + #fields[at] + #fields[at + 1]
    if fields[at] == 'request' then
      text, size = fields[at + 1], size - #fields[at]
    end
  end
  return text, size
end

-- The id of a request that cannot be read whole; nil if there is none near its beginning.
local function id_of(text)
  for id in string.gmatch(string.sub(text, 1, 1000), '"id"%s*:%s*"([%w_.-]+)"') do
    if #id <= 100 then
      return id
    end
  end
end

-- True if no request can be in the text, and no reply can be sent. JSON may write the name `id` with escapes.
local function is_hopeless(text)
  if not text then
    return true
  end
  if string.find(text, '^%s*{') then
    return not (string.find(text, '"id"', 1, true) or string.find(text, '\\u', 1, true))
  end
  return not id_of(text)
end

local function refuse(key, id, reply)
  if id then
    local address = rules.reply .. string.sub(key, #rules.inbox + 1) .. ':' .. id
    redis.pcall('DEL', address)
    redis.pcall('RPUSH', address, reply)
    redis.pcall('EXPIRE', address, 60)
  end
end

-- How many entries can be read at once without copying more than a reading may hold.
local function step_of(key)
  local size = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', 0)
  return type(size) == 'number' and size <= rules.total and STEP or 1
end

local function make_anew_if_exhausted(key)
  local facts = redis.pcall('XINFO', 'STREAM', key)
  for at = 1, #facts, 2 do
    if facts[at] == 'last-generated-id' and facts[at + 1] == LAST then
      redis.call('DEL', key)
    end
  end
end

-- Refuses the newest entries, as far as there are more than an inbox may hold: those before them were sent first.
local function refuse_surplus(key, cursor, excess, step)
  local refused, bytes = 0, 0
  local from = cursor == '0' and '-' or '(' .. cursor
  while refused < excess and bytes < rules.total do
    local some = redis.call('XREVRANGE', key, '+', from, 'COUNT', math.min(step, excess - refused))
    if #some == 0 then
      break
    end
    local ids = {}
    for _, entry in ipairs(some) do
      local text, size = text_of(entry[2])
      bytes = bytes + size
      if text then
        local id = id_of(text)
        if id then
          refuse(key, id, (string.gsub(rules.surplus, '@ID@', id)))
        end
      end
      ids[#ids + 1] = entry[1]
    end
    redis.call('XDEL', key, unpack(ids))
    refused = refused + #ids
  end
  return refused
end

local function read(key, cursor, wanted)
  local left = redis.pcall('XLEN', key)
  if type(left) ~= 'number' then -- find_inboxes.lua has told if the daemon may not ask
    local is_other = may_remove and string.find(tostring(left.err), 'WRONGTYPE', 1, true)
    if is_other then
      redis.call('DEL', key) -- nothing can be put into it, so its actor would be locked out
    end
    return { 0, cursor, 0, {}, is_other and 1 or 0, 0, 0 }
  end
  local entries, count, looked, dropped, oversized, surplus = {}, 0, 0, 0, 0, 0
  local is_more, step = left > 0, left > 0 and step_of(key)
  while is_more and count < wanted and looked < rules.looks and spent < rules.total do
    local limit = math.min(step, wanted - count)
    local from = cursor == '0' and '-' or '(' .. cursor
    local some = cursor == LAST and {} or redis.call('XRANGE', key, from, '+', 'COUNT', limit)
    is_more = #some == limit
    local removed = {}
    for _, entry in ipairs(some) do
      local text, size = text_of(entry[2])
      cursor, looked, spent = entry[1], looked + 1, spent + size
      if text and size > rules.bytes then
        if may_remove then
          local id = id_of(text)
          if id then
            refuse(key, id, (string.gsub(string.gsub(rules.oversized, '@ID@', id), '@SIZE@', tostring(size))))
          end
          oversized, removed[#removed + 1] = oversized + 1, entry[1]
        end
      elseif may_remove and is_hopeless(text) then
        dropped, removed[#removed + 1] = dropped + 1, entry[1]
      else
        count = count + 1
        entries[#entries + 1] = entry[1]
        entries[#entries + 1] = text
      end
    end
    if #removed > 0 then
      redis.call('XDEL', key, unpack(removed))
    end
  end
  left = redis.call('XLEN', key)
  if may_remove and left > rules.kept then
    surplus = refuse_surplus(key, cursor, math.min(left - rules.kept, rules.looks), step)
    left = left - surplus
    is_more = is_more or left > rules.kept
  elseif may_remove and left == 0 then
    make_anew_if_exhausted(key)
  end
  return { is_more and 1 or 0, cursor, left, entries, dropped, oversized, surplus }
end

local answer = {}
for place = 2, #KEYS do
  answer[place - 1] = read(KEYS[place], ARGV[2 * place - 1], tonumber(ARGV[2 * place]))
end
if spent > rules.total and rawget(_G, "collectgarbage") then
  collectgarbage() -- the copies of long texts
end
return answer
