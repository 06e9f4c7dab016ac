-- Takes or renews the lease, and tells where the mirror stands.
--
-- KEYS  1 lease, 2 meta
-- ARGV  1 the lease wanted ('<epoch> <token>'), 2 for how many milliseconds, 3 '1' to take it from whoever holds it
--
-- Returns {<who held it before>, <epoch>, <seq>}; '' for what is not there.

-- Keys of another type are somebody's mistake, and would keep every daemon out for good.
if redis.call('TYPE', KEYS[1]).ok ~= 'string' then redis.call('DEL', KEYS[1]) end
if redis.call('TYPE', KEYS[2]).ok ~= 'hash' then redis.call('DEL', KEYS[2]) end
local held = redis.call('GET', KEYS[1]) or ''
local epoch = string.match(ARGV[1], '^(%S+) ')
if held == '' or ARGV[3] == '1' or string.match(held, '^(%S+) ') == epoch then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
local place = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
return {held, place[1] or '', place[2] or ''}
