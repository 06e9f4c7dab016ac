-- Counts the members of a part of the index for which conditions hold.
--
-- KEYS  1 index, 2 counts
-- ARGV  1 the conditions in JSON: flags, part (of a folded label), tags, all (true if all of them are needed), and, where
--         they are asked for, label and ranges (of numbers of agents: lists of least and most)
--       2 where the part begins, as ZRANGEBYLEX has it, 3 how many members it has at most
--
-- Returns {<how many>, <the last member; '' if the index ends with this part>}. It writes nothing.

local find, sub = string.find, string.sub
local wanted = cjson.decode(ARGV[1])
local tags, needs_all, flags, part = {}, wanted.all, wanted.flags, wanted.part
for number, tag in ipairs(wanted.tags) do tags[number] = '\29' .. tag .. '\29' end

local function has_tags(member)
  for number = 1, #tags do
    if (find(member, tags[number], 1, true) ~= nil) ~= needs_all then return not needs_all end
  end
  return needs_all or #tags == 0
end

local function is_listed(member)
  local flag = find(member, '\31', 1, true)
  if not flag or not find(flags, sub(member, flag + 1, flag + 1), 1, true) then return false end
  if part ~= '' then
    local folded = find(member, '\30', flag, true)
    if not folded or not find(member, part, folded + 1, true) then return false end
  end
  if not wanted.label and not wanted.ranges then return true end
  local label = sub(member, 1, flag - 1)
  if wanted.label and label ~= wanted.label and string.match(label, '^agents/[^/]+/(.+)$') ~= wanted.label then return false end
  if not wanted.ranges then return true end
  local agents = tonumber(redis.call('ZSCORE', KEYS[2], label) or '-1')
  for _, range in ipairs(wanted.ranges) do
    if agents >= range[1] and agents <= range[2] then return true end
  end
  return false
end

local members = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[3])
local count = 0
for number = 1, #members do
  local member = members[number]
  if has_tags(member) and is_listed(member) then count = count + 1 end
end
return {count, #members == tonumber(ARGV[3]) and members[#members] or ''}
