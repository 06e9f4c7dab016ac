-- Takes or renews the lease, and tells where the mirror stands.
--
-- KEYS  1 lease, 2 meta
-- ARGV  1 the lease wanted: '<epoch> <token> <machine> <folder>', 2 for how many milliseconds,
--       3 the generation of the daemon that asks: how many promotions there were up to its own
--
-- Returns {<who held it before>, <epoch>, <seq>, <the namespace's generation>, <1 if it is ours now, else 0>}; '' for what is
-- not there.
--
-- A lease of the same machine, in the same boot, is a dead daemon's if it is of the same folder or the same journal:
-- the daemon that asks has the locks of both. Any other is respected until it expires: nothing but time proves its daemon dead.
--
-- The namespace has the highest generation that ever asked. A daemon of a lower one gives its lease up when it asks, and
-- gets none: so a newer one waits for an older one, and no two of them hold it at a time.

-- A key of another type, or that never expires, is a mistake, and would keep every daemon out for good.
if redis.call('TYPE', KEYS[1]).ok ~= 'string' or redis.call('PTTL', KEYS[1]) < 0 then redis.call('DEL', KEYS[1]) end
if redis.call('TYPE', KEYS[2]).ok ~= 'hash' then redis.call('DEL', KEYS[2]) end
local words = '^(%S+) (%S+) (%S+) (%S+)$'
local held = redis.call('GET', KEYS[1]) or ''
local epoch, _, machine, folder = string.match(ARGV[1], words)
local its_epoch, _, its_machine, its_folder = string.match(held, words)
local is_dead = machine ~= '-' and machine == its_machine and (epoch == its_epoch or (folder ~= '-' and folder == its_folder))
local is_ours = held == '' or held == ARGV[1] or is_dead
local place = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'generation')
local asked, generation = tonumber(ARGV[3]), string.match(place[3] or '', '^%d+$')
generation = generation and #generation < 16 and tonumber(generation) or 0
if generation > asked then
  if is_ours and held ~= '' then redis.call('DEL', KEYS[1]) end
  is_ours = false
elseif asked > generation then
  redis.call('HSET', KEYS[2], 'generation', ARGV[3])
  generation = asked
end
if is_ours then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return {held, place[1] or '', place[2] or '', generation, is_ours and 1 or 0}
