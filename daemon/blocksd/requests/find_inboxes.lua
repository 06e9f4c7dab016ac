-- Finds the inboxes that hold something, without reading any of it.
--
-- KEYS  inboxes
-- ARGV  1 '1': also those that are empty and can take no more entries, which read_inboxes.lua makes anew
--
-- Returns the places of these among the keys; a key of another type is one of them: read_inboxes.lua removes it.

local found = {}
for place, key in ipairs(KEYS) do
  local length = redis.pcall('XLEN', key)
  if type(length) ~= 'number' then
    if not string.find(tostring(length.err), 'WRONGTYPE', 1, true) then
      return length -- the daemon may not ask
    end
    found[#found + 1] = place
  else
    if length > 0 then
      found[#found + 1] = place
    elseif ARGV[1] == '1' then
      local facts = redis.pcall('XINFO', 'STREAM', key)
      for at = 1, #facts, 2 do
        if facts[at] == 'last-generated-id' and facts[at + 1] == '18446744073709551615-18446744073709551615' then
          found[#found + 1] = place
        end
      end
    end
  end
end
return found
