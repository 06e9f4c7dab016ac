-- Projects into the mirror, all of one call at once. The key schema is in keys.py.
--
-- KEYS  1 lease, 2 meta, 3 changes
-- ARGV  1 the lease this daemon holds
--       2 epoch, 3 seq: where the mirror must be for this to be applied; '' for what belongs to no place in the journal
--       4 the command that publishes: PUBLISH, or on a cluster SPUBLISH
--       5 … the commands, each as the number of its words and these words; besides those of Redis there are ANNOUNCE,
--         REPLY, FORGET and DEPART (below)
--
-- Returns {'ok'}, or, with nothing done, {'lease', <who holds it>} or {'place', <epoch>, <seq>}.

local held = redis.call('GET', KEYS[1])
if held ~= ARGV[1] then
  return {'lease', held or ''}
end
if ARGV[2] ~= '' then
  local place = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
  if place[1] ~= ARGV[2] or place[2] ~= ARGV[3] then
    return {'place', place[1] or '', place[2] or ''}
  end
end

local publish, at, last = ARGV[4], 5, #ARGV
while at < last do
  local first, name = at + 1, ARGV[at + 1]
  at = first + tonumber(ARGV[at]) -- where the next command begins
  if name == 'ANNOUNCE' then
    -- id in the stream ('': the next one behind the last revision that is shown), how many entries are kept, change, channels …
    -- An entry that is there already was added by a call that was cut short: it is the same entry.
    local change, id, next_id = ARGV[first + 3], ARGV[first + 1], nil
    if id == '' then
      local seq = redis.call('HGET', KEYS[2], 'seq') or '0'
      id, next_id = seq .. '-1', seq .. '-*'
    end
    local reply = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[first + 2], id, 'change', change)
    if next_id and type(reply) == 'table' and reply.err then
      reply = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[first + 2], next_id, 'change', change)
    end
    if type(reply) == 'table' and reply.err and not string.find(reply.err, 'equal or smaller', 1, true) then
      return redis.error_reply(reply.err)
    end
    for channel = first + 4, at - 1 do
      redis.call(publish, ARGV[channel], change)
    end
  elseif name == 'PUBLISH' then
    redis.call(publish, ARGV[first + 1], ARGV[first + 2])
  elseif name == 'REPLY' then
    -- inbox, entry that is done, and, unless it gets none, where the reply goes, for how many seconds, the reply
    -- Actors may write these keys: what one of them made of its own must not keep the others from being served.
    if first + 3 < at then
      local address = ARGV[first + 3]
      redis.pcall('DEL', address)
      redis.pcall('RPUSH', address, ARGV[first + 5])
      redis.pcall('EXPIRE', address, ARGV[first + 4])
    end
    redis.pcall('XDEL', ARGV[first + 1], ARGV[first + 2])
  elseif name == 'FORGET' then
    -- inbox of an agent that is not known: it goes unless a request waits in it
    if redis.pcall('XLEN', ARGV[first + 1]) == 0 then
      redis.call('DEL', ARGV[first + 1])
    end
  elseif name == 'DEPART' then
    -- times of agents, where the time of one that is not known any more goes, the agent, how many may be there, and for
    -- how many seconds; it begins anew when it is full, or was made something else
    local times, departed, agent = ARGV[first + 1], ARGV[first + 2], ARGV[first + 3]
    local score = redis.call('ZSCORE', times, agent)
    if score then
      local count = redis.pcall('HLEN', departed)
      if type(count) ~= 'number' or count >= tonumber(ARGV[first + 4]) then
        redis.call('DEL', departed)
      end
      redis.call('HSET', departed, agent, score)
      redis.call('EXPIRE', departed, ARGV[first + 5])
      redis.call('ZREM', times, agent)
    end
  else
    redis.call(unpack(ARGV, first, at - 1))
  end
end
return {'ok'}
