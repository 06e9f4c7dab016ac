-- Tells which blocks the mirror does not show as they should be, by what is cheap to compare.
--
-- KEYS  1 labels, 2 ids, 3 counts, 4 index, 5 created, 6 updated
-- ARGV  1 a JSON list of blocks, each a list: label, version, digest, how many agents, id, created, updated (milliseconds),
--         and the form of its file: the text that `form_of` makes, if that is long its size in bytes, false if it is unknown
--       2 what the key of a block's hash begins with, 3 the same of its set of agents
--
-- Returns {'ok', <number in the list, from 1> …}. It writes nothing.

local function has_score(key, label, wanted)
  local score = redis.pcall('ZSCORE', key, label)
  return (type(score) == 'string' or type(score) == 'number') and tonumber(score) == wanted
end

local form_fields = {'path', 'head', 'newline', 'tail', 'file', 'mode'}

local function form_of(shown)
  local parts = {}
  for number, name in ipairs(form_fields) do
    if shown[number + 2] then parts[#parts + 1] = name .. '\31' .. shown[number + 2] .. '\30' end
  end
  return table.concat(parts)
end

local function has_form(shown, wanted)
  if wanted == false then return true end
  local form = form_of(shown)
  return form == wanted or #form == wanted
end

local differing = {'ok'}
for number, block in ipairs(cjson.decode(ARGV[1])) do
  local label = block[1]
  local head = redis.pcall('HMGET', ARGV[2] .. label, 'version', 'digest', unpack(form_fields))
  local same = type(head) == 'table' and head[1] == block[2] and head[2] == block[3] and has_form(head, block[8])
    and redis.pcall('SCARD', ARGV[3] .. label) == block[4]
    and redis.pcall('HGET', KEYS[2], block[5]) == label
    and has_score(KEYS[1], label, 0) and has_score(KEYS[3], label, block[4])
    and has_score(KEYS[5], label, block[6]) and has_score(KEYS[6], label, block[7])
    and redis.pcall('ZLEXCOUNT', KEYS[4], '[' .. label .. '\31', '(' .. label .. ' ') == 1
  if not same then differing[#differing + 1] = number end
end
return differing
