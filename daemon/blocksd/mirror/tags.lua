-- Finds the tags that the members of a part of the index have.
--
-- KEYS  1 index, 2 counts, which is not needed
-- ARGV  1 is not needed, 2 where the part begins, as ZRANGEBYLEX has it, 3 how many members it has at most
--
-- Returns {<the tags, each once>, <the last member; '' if the index ends with this part>}. It writes nothing.

local members = redis.call('ZRANGEBYLEX', KEYS[1], ARGV[2], '+', 'LIMIT', 0, ARGV[3])
local tags, seen = {}, {}
for number = 1, #members do
  local listed = string.match(members[number], '\31.\31(\29[^\30]*)\30')
  if listed and not seen[listed] then
    seen[listed] = true
    for tag in string.gmatch(listed, '\29([^\29]+)\29') do
      if not seen[tag] then
        seen[tag], tags[#tags + 1] = true, tag
      end
    end
  end
end
return {tags, #members == tonumber(ARGV[3]) and members[#members] or ''}
